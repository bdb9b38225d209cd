package azure

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

func (c *container) Stat(ctx context.Context, key string) (backend.Info, error) {
	if err := c.checkKey("stat", key); err != nil {
		return backend.Info{}, err
	}
	return c.head(ctx, "stat", key, "")
}

func (c *container) head(ctx context.Context, op, key, etag string) (backend.Info, error) {
	ctx, w := c.Watch(ctx)
	defer w.Stop()
	out, err := c.blob(key).GetProperties(ctx, &blob.GetPropertiesOptions{AccessConditions: conditions(backend.Cond{IfMatch: etag})})
	if err != nil {
		return backend.Info{}, c.fail(ctx, op, key, err)
	}
	return backend.Info{
		Key: key, Size: value(out.ContentLength), ETag: unquoted(out.ETag), ModTime: value(out.LastModified),
		Metadata: original(out.Metadata), ContentType: value(out.ContentType), Date: value(out.Date),
	}, nil
}

func (c *container) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if err := c.checkKey("get", key); err != nil {
		return err
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	if opts.VersionID != "" {
		return backend.Fail("get", key, backend.ErrUnsupported, errors.New("versions are not looked at"))
	}
	req, w := c.Watch(ctx)
	defer w.Stop()
	out, err := c.blob(key).DownloadStream(req, &blob.DownloadStreamOptions{
		Range:            blob.HTTPRange{Offset: opts.Offset, Count: opts.Length},
		AccessConditions: conditions(backend.Cond{IfMatch: opts.IfMatch}),
	})
	if a, ok := errors.AsType[*azcore.ResponseError](err); ok && a.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return c.getNothing(ctx, key, opts, fn)
	}
	if err != nil {
		return c.orMissing(ctx, "get", key, c.fail(req, "get", key, err))
	}
	w.Pause()
	defer out.Body.Close()
	info := backend.Info{
		Key: key, Size: value(out.ContentLength), ETag: unquoted(out.ETag), ModTime: value(out.LastModified),
		Metadata: original(out.Metadata), ContentType: value(out.ContentType),
	}
	body := &httpio.Body{Watch: w, Key: key, Reader: out.Body, Left: info.Size, Fail: func(err error) error {
		if ended := httpio.Ended(req, "get", key); ended != nil {
			return ended
		}
		return backend.Fail("get", key, backend.ErrTransient, httpio.Words(err))
	}}
	if opts.Offset > 0 || opts.Length > 0 {
		if info.Size, err = body.Cut(opts, value(out.ContentRange)); err != nil {
			return err
		}
	} else if sum := string(out.ContentMD5); sum != "" { // of the whole, where Azure knows one
		return fn(info, &checkedBody{Reader: body, key: key, hash: md5.New(), sum: sum})
	}
	return fn(info, body)
}

// getNothing answers for a range beyond the end. The refusal of the range does
// not tell what the object is, and a reader of an empty one wants to know.
func (c *container) getNothing(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	info, err := c.head(ctx, "get", key, opts.IfMatch)
	if err != nil {
		return c.orMissing(ctx, "get", key, err)
	}
	if opts.Offset < info.Size {
		return backend.Fail("get", key, backend.ErrTransient, errors.New("the object has just changed"))
	}
	return fn(info, strings.NewReader(""))
}

// checkedBody ends only where what it gave has the checksum.
type checkedBody struct {
	io.Reader
	key  string
	hash hash.Hash
	sum  string
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.hash.Write(p[:n])
	if err == io.EOF && string(b.hash.Sum(nil)) != b.sum {
		err = backend.Fail("get", b.key, backend.ErrCorrupt, errors.New("the content does not have the checksum of the object"))
	}
	return n, err
}

func (c *container) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := c.checkPut("put", key, src.Size(), opts); err != nil {
		return backend.Info{}, err
	}
	metadata, err := written("put", key, opts.Metadata)
	if err != nil {
		return backend.Info{}, err
	}
	if opts.ContentType == "" {
		opts.ContentType = httpio.DefaultType
	}
	ctx, w := c.Watch(ctx)
	defer w.Stop()
	body := w.Upload(src)
	out, err := c.blob(key).Upload(ctx, body, &blockblob.UploadOptions{
		Metadata: metadata, HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &opts.ContentType}, AccessConditions: conditions(opts.Cond),
	})
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return backend.Info{}, fmt.Errorf("put %s: source: %w", key, srcErr)
	}
	if err != nil {
		return backend.Info{}, c.failCond(ctx, "put", key, opts.Cond, err)
	}
	return info(key, src.Size(), out.ETag, out.LastModified, opts), nil
}

// info is what is known of an object after it was stored.
func info(key string, size int64, etag *azcore.ETag, modified *time.Time, opts backend.PutOptions) backend.Info {
	metadata := maps.Clone(opts.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	return backend.Info{
		Key: key, Size: size, ETag: unquoted(etag), ModTime: value(modified), Metadata: metadata, ContentType: opts.ContentType,
	}
}

func (c *container) Delete(ctx context.Context, key string, cond backend.Cond) error {
	if err := c.checkKey("delete", key); err != nil {
		return err
	}
	if cond.IfAbsent {
		return backend.Fail("delete", key, backend.ErrInvalid, errors.New("condition of absence"))
	}
	req, w := c.Watch(ctx)
	defer w.Stop()
	_, err := c.blob(key).Delete(req, &blob.DeleteOptions{AccessConditions: conditions(cond)})
	err = c.orMissing(ctx, "delete", key, c.fail(req, "delete", key, err))
	if cond.IfMatch == "" && errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}
