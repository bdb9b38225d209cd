package gcs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/api/googleapi"

	"github.com/keifs/keifs/backend"
)

const (
	maxBatch = 1000
	// batchCalls is how many calls the store takes in one request.
	batchCalls = 100
)

// DeleteBatch deletes by the store's batch requests of a hundred each, side by
// side: a thousand objects are ten requests.
func (b *bucket) DeleteBatch(ctx context.Context, deletions []backend.Deletion) ([]error, error) {
	if len(deletions) > maxBatch {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys, at most %d", len(deletions), maxBatch))
	}
	for _, d := range deletions {
		if d.IfMatch != "" && !b.caps.CondBatch {
			return nil, backend.Fail("deletebatch", d.Key, backend.ErrUnsupported, errors.New("condition"))
		}
	}
	errs := make([]error, len(deletions))
	failed := make([]error, (len(deletions)+batchCalls-1)/batchCalls)
	var wg sync.WaitGroup
	for i := range failed {
		from := i * batchCalls
		to := min(from+batchCalls, len(deletions))
		wg.Go(func() { failed[i] = b.deleteSome(ctx, deletions[from:to], errs[from:to]) })
	}
	wg.Wait()
	// Deleting again what is gone does no harm: one failure is that of all.
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return errs, nil
}

// deleteSome is one batch request. It fills in the results, or fails as a whole.
func (b *bucket) deleteSome(ctx context.Context, deletions []backend.Deletion, errs []error) error {
	var doc bytes.Buffer
	parts := multipart.NewWriter(&doc)
	asked := 0
	for i, d := range deletions {
		if errs[i] = b.checkKey("deletebatch", d.Key); errs[i] != nil {
			continue
		}
		part, err := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"application/http"}, "Content-Id": {fmt.Sprintf("<keifs+%d>", i)},
		})
		if err != nil {
			return err
		}
		query := ""
		if d.IfMatch != "" {
			v := parseVersion(d.IfMatch)
			query = fmt.Sprintf("?ifGenerationMatch=%d&ifMetagenerationMatch=%d", v.generation, v.metageneration)
		}
		fmt.Fprintf(part, "DELETE /storage/v1/b/%s/o/%s%s HTTP/1.1\r\n\r\n", b.name, url.PathEscape(b.full(d.Key)), query)
		asked++
	}
	if asked == 0 {
		return nil
	}
	if err := parts.Close(); err != nil {
		return err
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.server+"/batch/storage/v1", &doc)
	if err != nil {
		return backend.Fail("deletebatch", "", backend.ErrInvalid, err)
	}
	req.Header.Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	resp, err := b.http.Do(req)
	if err != nil {
		return b.fail(ctx, "deletebatch", "", err)
	}
	defer resp.Body.Close()
	if err := googleapi.CheckResponse(resp); err != nil {
		return b.fail(ctx, "deletebatch", "", err)
	}
	answered, err := b.batchAnswers(resp, deletions, errs)
	if err == nil && answered < asked {
		err = fmt.Errorf("%d answers to %d calls", answered, asked)
	}
	if err != nil {
		if ctx.Err() != nil {
			return b.fail(ctx, "deletebatch", "", err)
		}
		return backend.Fail("deletebatch", "", backend.ErrTransient, fmt.Errorf("not an answer of the store: %v", err))
	}
	return nil
}

// batchAnswers fills in what became of each call, and counts them.
func (b *bucket) batchAnswers(resp *http.Response, deletions []backend.Deletion, errs []error) (answered int, err error) {
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return 0, err
	}
	parts := multipart.NewReader(resp.Body, params["boundary"])
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return answered, nil
		}
		if err != nil {
			return 0, err
		}
		id := strings.TrimSuffix(part.Header.Get("Content-Id"), ">")
		i, err := strconv.Atoi(id[strings.LastIndexByte(id, '+')+1:])
		if err != nil || i < 0 || i >= len(deletions) {
			return 0, fmt.Errorf("part %q", id)
		}
		one, err := http.ReadResponse(bufio.NewReader(part), nil)
		if err != nil {
			return 0, err
		}
		refusal := answerOf(googleapi.CheckResponse(one))
		one.Body.Close()
		answered++
		if refusal == nil {
			continue
		}
		if kind := refusal.kind(); kind != backend.ErrNotExist {
			errs[i] = backend.Fail("deletebatch", deletions[i].Key, kind, refusal)
		}
	}
}
