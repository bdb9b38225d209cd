package gcs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

func (b *bucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	if err := b.checkKey("stat", key); err != nil {
		return backend.Info{}, err
	}
	o, err := b.stat(ctx, "stat", key)
	if err != nil {
		return backend.Info{}, err
	}
	return b.info(key, o), nil
}

func (b *bucket) stat(ctx context.Context, op, key string) (*storage.Object, error) {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	o, err := b.objects.Get(b.name, b.full(key)).Context(ctx).Do()
	return o, b.fail(ctx, op, key, err)
}

// info is what the store says of an object, with its metadata.
func (b *bucket) info(key string, o *storage.Object) backend.Info {
	info := listed(key, o)
	info.ContentType, info.Metadata = o.ContentType, make(map[string]string, len(o.Metadata))
	for name, value := range o.Metadata {
		info.Metadata[strings.ToLower(name)] = value
	}
	info.Date, _ = http.ParseTime(o.Header.Get("Date"))
	return info
}

// listed is what a listing says of an object.
func listed(key string, o *storage.Object) backend.Info {
	updated, _ := time.Parse(time.RFC3339, o.Updated)
	return backend.Info{
		Key: key, Size: int64(o.Size), ModTime: updated.Truncate(time.Second), // as a read tells it
		ETag: version{o.Generation, o.Metageneration}.String(),
	}
}

// Get reads by the XML API, whose answer tells the metadata along with the
// content.
func (b *bucket) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if err := b.checkKey("get", key); err != nil {
		return err
	}
	switch {
	case opts.VersionID != "":
		return backend.Fail("get", key, backend.ErrUnsupported, errors.New("versions"))
	case opts.Offset < 0 || opts.Length < 0:
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	req, err := b.getRequest(ctx, key, opts)
	if err != nil {
		return backend.Fail("get", key, backend.ErrInvalid, err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return b.fail(ctx, "get", key, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return b.getNothing(ctx, key, opts, fn)
	}
	if err := googleapi.CheckResponse(resp); err != nil {
		return b.fail(ctx, "get", key, err)
	}
	w.Pause()
	info := told(key, resp)
	if opts.IfMatch != "" && info.ETag != parseVersion(opts.IfMatch).String() { // not every server heeds the condition
		return backend.Fail("get", key, backend.ErrPrecondition, fmt.Errorf("it is %s by now", info.ETag))
	}
	body := &httpio.Body{Watch: w, Key: key, Reader: resp.Body, Left: resp.ContentLength, Fail: func(err error) error {
		if errors.Is(err, errChecksum) {
			return backend.Fail("get", key, backend.ErrCorrupt, err)
		}
		if ended := httpio.Ended(ctx, "get", key); ended != nil {
			return ended
		}
		return backend.Fail("get", key, backend.ErrTransient, httpio.Words(err))
	}}
	if opts.Offset > 0 || opts.Length > 0 {
		if info.Size, err = body.Cut(opts, resp.Header.Get("Content-Range")); err != nil {
			return err
		}
	} else if want, ok := checksumOf(resp.Header); ok {
		body.Reader = &checked{r: resp.Body, left: info.Size, sum: crc32.New(castagnoli), want: want}
	}
	return fn(info, body)
}

func (b *bucket) getRequest(ctx context.Context, key string, opts backend.GetOptions) (*http.Request, error) {
	path := "/" + b.name + "/"
	u, err := url.Parse(b.server)
	if err != nil {
		return nil, err
	}
	u.Path, u.RawPath = path+b.full(key), path+url.PathEscape(b.full(key))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "gzip") // else the store unpacks what was stored packed
	switch {
	case opts.Length > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", opts.Offset, opts.Offset+opts.Length-1))
	case opts.Offset > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", opts.Offset))
	}
	if opts.IfMatch != "" {
		v := parseVersion(opts.IfMatch)
		req.Header.Set("X-Goog-If-Generation-Match", strconv.FormatInt(v.generation, 10))
		req.Header.Set("X-Goog-If-Metageneration-Match", strconv.FormatInt(v.metageneration, 10))
	}
	return req, nil
}

// told is what the headers of a read say.
func told(key string, resp *http.Response) backend.Info {
	number := func(name string, none int64) int64 {
		if n, err := strconv.ParseInt(resp.Header.Get(name), 10, 64); err == nil {
			return n
		}
		return none
	}
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified"))
	info := backend.Info{
		Key: key, Size: resp.ContentLength, ModTime: modified,
		ETag:     version{number("X-Goog-Generation", 0), number("X-Goog-Metageneration", 1)}.String(),
		Metadata: map[string]string{}, ContentType: resp.Header.Get("Content-Type"),
	}
	for name, values := range resp.Header {
		if name, ok := strings.CutPrefix(strings.ToLower(name), "x-goog-meta-"); ok {
			info.Metadata[name] = values[0]
		}
	}
	return info
}

// getNothing answers for a range beyond the end. The refusal of the range does
// not tell what the object is, and a reader of an empty one wants to know.
func (b *bucket) getNothing(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	o, err := b.stat(ctx, "get", key)
	if err != nil {
		return err
	}
	info := b.info(key, o)
	switch {
	case opts.IfMatch != "" && opts.IfMatch != info.ETag:
		return backend.Fail("get", key, backend.ErrPrecondition, fmt.Errorf("it is %s by now", info.ETag))
	case opts.Offset < info.Size:
		return backend.Fail("get", key, backend.ErrTransient, errors.New("the object has just changed"))
	}
	return fn(info, strings.NewReader(""))
}

const (
	// largeUpload is the size in bytes above which an upload is resumable: the
	// client sends a piece again that failed, for half a minute, and not all.
	largeUpload = 16 << 20
	uploadPiece = 8 << 20
)

func (b *bucket) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := b.checkPut("put", key, src.Size(), opts); err != nil {
		return backend.Info{}, err
	}
	o, err := b.upload(ctx, "put", b.full(key), src, opts)
	if err != nil {
		return backend.Info{}, err
	}
	return b.info(key, o), nil
}

// upload stores an object of that name in the bucket. The checksum goes with
// it: the store takes no other bytes than these.
func (b *bucket) upload(ctx context.Context, op, name string, src backend.Source, opts backend.PutOptions) (*storage.Object, error) {
	key := strings.TrimPrefix(name, b.prefix)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, key, err)
	}
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.NewSectionReader(src, 0, src.Size()))
	if err == nil && n < src.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: source: %w", op, key, err)
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	attrs := b.attrs(opts)
	attrs.Name, attrs.Crc32c = name, encodeChecksum(sum.Sum32())
	body, piece := w.Upload(src), 0
	if src.Size() > largeUpload {
		piece = uploadPiece
	}
	call := b.objects.Insert(b.name, attrs).Name(name).Context(ctx).
		Media(body, googleapi.ContentType(attrs.ContentType), googleapi.ChunkSize(piece))
	apply(call, opts.Cond)
	o, err := call.Do()
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%s %s: source: %w", op, key, srcErr)
	}
	return o, b.failCond(ctx, op, key, opts.Cond, err)
}

// attrs are what an object has beside its content.
func (b *bucket) attrs(opts backend.PutOptions) *storage.Object {
	o := &storage.Object{ContentType: opts.ContentType, Metadata: maps.Clone(opts.Metadata), StorageClass: b.class}
	if o.ContentType == "" {
		o.ContentType = httpio.DefaultType
	}
	return o
}

// failCond is fail for a change with a condition.
func (b *bucket) failCond(ctx context.Context, op, key string, cond backend.Cond, err error) error {
	if a := answerOf(err); a != nil && cond.IfMatch != "" && a.kind() == backend.ErrNotExist {
		return backend.Fail(op, key, backend.ErrPrecondition, a)
	}
	return b.fail(ctx, op, key, err)
}

func (b *bucket) Delete(ctx context.Context, key string, cond backend.Cond) error {
	if err := b.checkKey("delete", key); err != nil {
		return err
	}
	if cond.IfAbsent {
		return backend.Fail("delete", key, backend.ErrInvalid, errors.New("condition of absence"))
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	call := b.objects.Delete(b.name, b.full(key)).Context(ctx)
	apply(call, cond)
	err := b.fail(ctx, "delete", key, call.Do())
	if cond.IfMatch == "" && errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

var errChecksum = errors.New("the content does not match its checksum")

// checked reads a whole object, and fails at its end where the checksum is another.
type checked struct {
	r    io.Reader
	left int64
	sum  hash.Hash32
	want uint32
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	c.left -= int64(n)
	if err == io.EOF && c.left == 0 && c.sum.Sum32() != c.want {
		err = errChecksum
	}
	return n, err
}
