package bunny

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// entry is what the store says of a file or directory.
type entry struct {
	ObjectName  string
	IsDirectory bool
	Length      int64
	LastChanged string // UTC, in ISO 8601 without a zone
	Checksum    string // SHA-256 in upper-case hex; null where the store has none
	GUID        string `json:"Guid"`
	ContentType string
}

// info is the entry as an object of that key, as a listing tells it.
func (e *entry) info(key string) backend.Info {
	modified, _ := time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(e.LastChanged, "Z")) // of the store's doing: no error helps
	etag := e.Checksum
	if etag == "" {
		etag = e.GUID + "-" + e.LastChanged
	}
	return backend.Info{Key: key, Size: e.Length, ETag: etag, ModTime: modified}
}

func (z *zone) Stat(ctx context.Context, key string) (backend.Info, error) {
	info, _, err := z.describe(ctx, "stat", key)
	return info, err
}

// describe asks for one file. Bunny's reference leaves the method out; its own
// libraries use it. sum is the checksum, where the store has one.
func (z *zone) describe(ctx context.Context, op, key string) (info backend.Info, sum string, err error) {
	if err := z.checkKey(op, key); err != nil {
		return backend.Info{}, "", err
	}
	var e entry
	date, err := z.ask(ctx, op, key, "DESCRIBE", z.path(key), &e)
	if err != nil {
		return backend.Info{}, "", err
	}
	if e.IsDirectory {
		return backend.Info{}, "", backend.Fail(op, key, backend.ErrNotExist, errors.New("it is a directory"))
	}
	info = e.info(key)
	info.Metadata = map[string]string{}
	info.ContentType, info.Date = e.ContentType, date
	return info, e.Checksum, nil
}

// Get asks what the object is before it reads, since an answer with content
// does not tell, and makes sure at the end of the body that it is of that
// version: by the checksum of the whole, or by asking again.
func (z *zone) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if err := z.checkKey("get", key); err != nil {
		return err
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	if opts.VersionID != "" {
		return backend.Fail("get", key, backend.ErrUnsupported, errors.New("a zone keeps no versions"))
	}
	info, sum, err := z.describe(ctx, "get", key)
	if err != nil {
		return err
	}
	if opts.IfMatch != "" && opts.IfMatch != info.ETag {
		return backend.Fail("get", key, backend.ErrPrecondition, nil)
	}
	if opts.Offset >= info.Size {
		return fn(info, strings.NewReader(""))
	}

	ctx, w := z.Watch(ctx)
	defer w.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, z.url(z.path(key)), nil)
	if err != nil {
		return backend.Fail("get", key, backend.ErrInvalid, err)
	}
	whole := opts.Offset == 0 && (opts.Length == 0 || opts.Length >= info.Size)
	switch {
	case whole:
	case opts.Length > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", opts.Offset, opts.Offset+opts.Length-1))
	default:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", opts.Offset))
	}
	resp, err := z.do("get", key, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	w.Pause()
	body := &httpio.Body{Watch: w, Key: key, Reader: resp.Body, Left: resp.ContentLength, Fail: func(err error) error {
		if ended := httpio.Ended(ctx, "get", key); ended != nil {
			return ended
		}
		return backend.Fail("get", key, backend.ErrTransient, httpio.Words(err))
	}}
	size := resp.ContentLength
	if !whole {
		if size, err = body.Cut(opts, resp.Header.Get("Content-Range")); err != nil {
			return err
		}
	}
	if size != info.Size {
		return backend.Fail("get", key, backend.ErrTransient, errChanged)
	}
	checked := &checkedBody{Reader: body, ended: func() error { return httpio.Ended(ctx, "get", key) }, end: func() error { return z.unchanged(ctx, key, info) }}
	if whole && sum != "" {
		checked.hash = sha256.New()
		checked.end = func() error {
			if hexSum(checked.hash) == strings.ToUpper(sum) {
				return nil
			}
			if err := z.unchanged(ctx, key, info); err != nil {
				return err
			}
			return backend.Fail("get", key, backend.ErrCorrupt, errors.New("the content does not have the checksum of the object"))
		}
	}
	return fn(info, checked)
}

var errChanged = errors.New("the object has just changed")

// unchanged says whether the object still is what it was.
func (z *zone) unchanged(ctx context.Context, key string, was backend.Info) error {
	now, _, err := z.describe(ctx, "get", key)
	if err == nil && now.ETag != was.ETag || errors.Is(err, backend.ErrNotExist) {
		return backend.Fail("get", key, backend.ErrTransient, errChanged)
	}
	return err
}

// checkedBody ends only where end has nothing against it.
type checkedBody struct {
	io.Reader
	hash  hash.Hash // of what was read, where that is the whole; else nil
	end   func() error
	ended func() error // that the request is called off
	err   error        // stays
}

func (b *checkedBody) Read(p []byte) (int, error) {
	if b.err == nil {
		b.err = b.ended() // what has arrived by then could be read on
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.Reader.Read(p)
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	if err == io.EOF {
		if bad := b.end(); bad != nil {
			err = bad
		}
	}
	b.err = err
	return n, err
}

func hexSum(h hash.Hash) string { return fmt.Sprintf("%X", h.Sum(nil)) }

func (z *zone) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := z.checkKey("put", key); err != nil {
		return backend.Info{}, err
	}
	if err := z.caps.CheckPut("put", key, src.Size(), opts); err != nil {
		return backend.Info{}, err
	}
	if opts.Cond != (backend.Cond{}) {
		return backend.Info{}, backend.Fail("put", key, backend.ErrUnsupported, errors.New("a zone knows no conditions"))
	}
	if key[len(key)-1] == '/' && src.Size() > 0 {
		return backend.Info{}, backend.Fail("put", key, backend.ErrBadKey, errors.New("a directory's marker has no content"))
	}
	if opts.ContentType == "" {
		opts.ContentType = httpio.DefaultType
	}
	sum := sha256.New()
	if err := readAll(ctx, sum, src); err != nil {
		return backend.Info{}, fmt.Errorf("put %s: source: %w", key, err)
	}
	leave, err := z.gate.write(ctx, key)
	if err != nil {
		return backend.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	defer leave()

	info := backend.Info{
		Key: key, Size: src.Size(), ETag: hexSum(sum), Metadata: map[string]string{}, ContentType: opts.ContentType,
	}
	info.ModTime, err = z.send(ctx, info, src)
	if errors.Is(err, backend.ErrBadKey) && !strings.HasSuffix(key, "/") {
		// An empty directory, which nobody sees, may be in the way.
		if pruned, pruneErr := z.prune(ctx, "put", key+"/"); pruneErr == nil && pruned {
			info.ModTime, err = z.send(ctx, info, src)
		}
	}
	if err != nil {
		return backend.Info{}, err
	}
	return info, nil
}

// send uploads what info says of a source, and returns when that was.
func (z *zone) send(ctx context.Context, info backend.Info, src backend.Source) (time.Time, error) {
	ctx, w := z.Watch(ctx)
	defer w.Stop()
	body := w.Upload(src)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, z.url(z.path(info.Key)), body)
	if err != nil {
		return time.Time{}, backend.Fail("put", info.Key, backend.ErrInvalid, err)
	}
	if req.ContentLength = info.Size; req.ContentLength == 0 {
		req.Body = http.NoBody // else its length would not be sent
	}
	req.Header.Set("Checksum", info.ETag)
	req.Header.Set("Content-Type", info.ContentType)
	resp, err := z.do("put", info.Key, req)
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return time.Time{}, fmt.Errorf("put %s: source: %w", info.Key, srcErr)
	}
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		return t, nil
	}
	return time.Now().Truncate(time.Second), nil
}

// readAll reads a source to its end: io.ErrUnexpectedEOF where that comes early.
func readAll(ctx context.Context, w hash.Hash, src backend.Source) error {
	buf := make([]byte, 64<<10)
	for off := int64(0); off < src.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadAt(buf[:min(int64(len(buf)), src.Size()-off)], off)
		_, _ = w.Write(buf[:n]) // never fails
		off += int64(n)
		switch {
		case n > 0:
		case err == nil || err == io.EOF:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return ctx.Err()
}

// Delete makes sure that it is a file before it deletes: the store would take
// a directory of that name with everything in it.
func (z *zone) Delete(ctx context.Context, key string, cond backend.Cond) error {
	if err := z.checkKey("delete", key); err != nil {
		return err
	}
	switch {
	case cond.IfAbsent:
		return backend.Fail("delete", key, backend.ErrInvalid, errors.New("condition of absence"))
	case cond.IfMatch != "":
		return backend.Fail("delete", key, backend.ErrUnsupported, errors.New("a zone knows no conditions"))
	}
	_, _, err := z.describe(ctx, "delete", key)
	if err == nil {
		_, err = z.ask(ctx, "delete", key, http.MethodDelete, z.path(key), nil)
	}
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		return err
	}
	if strings.HasSuffix(key, "/") {
		_, err := z.prune(ctx, "delete", key)
		return err
	}
	return nil
}
