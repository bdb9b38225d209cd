package bunny

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// do sends a request whose context is that of a [httpio.Watch]. An answer that
// is none of success is an error of package backend; the body of any other is
// for the caller to close.
func (z *zone) do(op, key string, req *http.Request) (*http.Response, error) {
	req.Header.Set("AccessKey", z.key)
	resp, err := z.client.Do(req)
	if err != nil {
		if ended := httpio.Ended(req.Context(), op, key); ended != nil {
			return nil, ended
		}
		if sent, ok := errors.AsType[*url.Error](err); ok {
			return nil, httpio.Unanswered(op, key, sent)
		}
		return nil, backend.Fail(op, key, backend.ErrTransient, httpio.Words(err))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // for the words of the store only
	return nil, z.refused(op, key, resp.StatusCode, text)
}

// refused makes an error of the store's refusal.
func (z *zone) refused(op, key string, status int, text []byte) error {
	var words struct{ Message string }
	said := fmt.Errorf("HTTP %d %s", status, http.StatusText(status))
	if json.Unmarshal(text, &words) == nil && words.Message != "" {
		said = fmt.Errorf("%s (HTTP %d)", words.Message, status)
	}
	kind := httpio.Kind(status)
	switch {
	case status == http.StatusUnauthorized:
		said = fmt.Errorf("%w: the key is not that of zone %q, or the zone is in another region than that of %s", said, z.zone, z.endpoint)
	case status == http.StatusBadRequest && strings.Contains(strings.ToLower(words.Message), "checksum"):
		kind = backend.ErrTransient // of what has arrived
	case status == http.StatusBadRequest:
		kind = backend.ErrBadKey
	}
	return backend.Fail(op, key, kind, said)
}

// ask sends a request without a body and decodes the JSON of its answer. It
// returns when that was, by the store's clock.
func (z *zone) ask(ctx context.Context, op, key, method, path string, answer any) (date time.Time, err error) {
	ctx, w := z.Watch(ctx)
	defer w.Stop()
	req, err := http.NewRequestWithContext(ctx, method, z.url(path), nil)
	if err != nil {
		return date, backend.Fail(op, key, backend.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := z.do(op, key, req)
	if err != nil {
		return date, err
	}
	defer resp.Body.Close()
	date, _ = http.ParseTime(resp.Header.Get("Date"))
	if answer == nil {
		return date, nil
	}
	if err := json.NewDecoder(progress{resp.Body, w}).Decode(answer); err != nil {
		if ended := httpio.Ended(ctx, op, key); ended != nil {
			return date, ended
		}
		return date, backend.Fail(op, key, backend.ErrTransient, fmt.Errorf("not an answer of Bunny Storage: %v", err))
	}
	return date, nil
}

// progress is a body that keeps its request alive.
type progress struct {
	io.Reader
	w *httpio.Watch
}

func (p progress) Read(b []byte) (int, error) {
	p.w.Progress()
	return p.Reader.Read(b)
}
