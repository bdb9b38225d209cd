package azure

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// Assemble sends nothing: blocks belong to a blob by its name alone.
func (c *container) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	if err := c.checkPut("assemble", key, -1, opts); err != nil {
		return nil, err
	}
	metadata, err := written("assemble", key, opts.Metadata)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if opts.ContentType == "" {
		opts.ContentType = httpio.DefaultType
	}
	opts.Metadata = info(key, 0, nil, nil, opts).Metadata // its own
	return &assembly{c: c, key: key, opts: opts, metadata: metadata, name: rand.Text()[:26], parts: map[int]int64{}, sources: map[string]int64{}}, nil
}

type assembly struct {
	c        *container
	key      string
	opts     backend.PutOptions
	metadata map[string]*string
	name     string // of this assembly among others of the blob

	mu      sync.Mutex
	parts   map[int]int64    // sizes
	sources map[string]int64 // sizes, by ETag and key
}

// block is the id of a part. All ids of a blob have one length, those of other
// tools too: it is the one that most of them use.
func (a *assembly) block(number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "keifs-%s-%015d", a.name, number))
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	if err := a.check("putpart", number, src.Size()); err != nil {
		return err
	}
	if src.Size() == 0 { // of which Azure makes no block
		a.add(number, 0)
		return ctx.Err()
	}
	ctx, w := a.c.Watch(ctx)
	defer w.Stop()
	body := w.Upload(src)
	_, err := a.c.blob(a.key).StageBlock(ctx, a.block(number), body, nil)
	if srcErr := body.End(); srcErr != nil && err != nil && ctx.Err() == nil {
		return fmt.Errorf("putpart %s: source: %w", a.key, srcErr)
	}
	if err != nil {
		return a.c.fail(ctx, "putpart", a.key, err)
	}
	a.add(number, src.Size())
	return nil
}

func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	if err := a.check("copypart", number, length); err != nil {
		return err
	}
	if err := a.c.checkKey("copypart", key); err != nil {
		return err
	}
	if !a.c.caps.Copy {
		return backend.Fail("copypart", key, backend.ErrUnsupported, nil)
	}
	if offset < 0 || length <= 0 { // a range cannot be empty
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", offset, length))
	}
	// A range beyond the end would be cut without a word.
	switch size, err := a.sourceSize(ctx, key, etag); {
	case err != nil:
		return err
	case offset+length > size:
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d of %d bytes", offset, length, size))
	}
	ctx, w := a.c.WatchLong(ctx)
	defer w.Stop()
	source, token, err := a.c.source(ctx, key)
	if err != nil {
		return a.c.fail(ctx, "copypart", key, err)
	}
	o := &blockblob.StageBlockFromURLOptions{CopySourceAuthorization: token, Range: blob.HTTPRange{Offset: offset, Count: length}}
	if etag != "" {
		o.SourceModifiedAccessConditions = &blob.SourceModifiedAccessConditions{SourceIfMatch: quoted(etag)}
	}
	if _, err := a.c.blob(a.key).StageBlockFromURL(ctx, a.block(number), source, o); err != nil {
		return a.c.failSource(ctx, "copypart", key, err)
	}
	a.add(number, length)
	return nil
}

// sourceSize is the size of a version of an object, for which it asks once.
func (a *assembly) sourceSize(ctx context.Context, key, etag string) (int64, error) {
	version := etag + " " + key
	a.mu.Lock()
	size, known := a.sources[version]
	a.mu.Unlock()
	if known && etag != "" {
		return size, nil
	}
	info, err := a.c.head(ctx, "copypart", key, etag)
	if err != nil {
		return 0, a.c.orMissing(ctx, "copypart", key, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sources[version] = info.Size
	return info.Size, nil
}

func (a *assembly) check(op string, number int, size int64) error {
	switch caps := a.c.caps; {
	case number < 1:
		return backend.Fail(op, a.key, backend.ErrInvalid, fmt.Errorf("part %d", number))
	case number > caps.MaxParts:
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("part %d, at most %d", number, caps.MaxParts))
	case size > caps.MaxPart:
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("a part of %d bytes, at most %d", size, caps.MaxPart))
	}
	return nil
}

func (a *assembly) add(number int, size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts[number] = size
}

// blocks are the ids in order, and the size of the whole; ErrInvalid where a
// part is missing.
func (a *assembly) blocks() (ids []string, size int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.parts) == 0 {
		return nil, 0, backend.Fail("complete", a.key, backend.ErrInvalid, errors.New("no parts"))
	}
	for number := 1; number <= len(a.parts); number++ {
		n, ok := a.parts[number]
		if !ok {
			return nil, 0, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no part %d", number))
		}
		if n > 0 {
			ids = append(ids, a.block(number))
		}
		size += n
	}
	return ids, size, nil
}

// Complete publishes the blocks. Those of another assembly of the blob are gone
// with that, as ours are when somebody else publishes the blob: ErrPrecondition.
func (a *assembly) Complete(ctx context.Context) (backend.Info, error) {
	ids, size, err := a.blocks()
	if err != nil {
		return backend.Info{}, err
	}
	ctx, w := a.c.WatchLong(ctx)
	defer w.Stop()
	out, err := a.c.blob(a.key).CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{
		Metadata: a.metadata, HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &a.opts.ContentType}, AccessConditions: conditions(a.opts.Cond),
	})
	if err != nil {
		return backend.Info{}, a.c.failCond(ctx, "complete", a.key, a.opts.Cond, err)
	}
	return info(a.key, size, out.ETag, out.LastModified, a.opts), nil
}

// Abort leaves the blocks to Azure, which forgets them after a week: there is
// no request for it, and nobody sees them.
func (a *assembly) Abort(ctx context.Context) error { return ctx.Err() }
