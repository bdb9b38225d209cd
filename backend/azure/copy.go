package azure

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"github.com/keifs/keifs/backend"
)

// Copy is synchronous, which Azure has for 256 MiB; more is assembled from
// ranges of the source.
func (c *container) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	if opts.SourceVersion != "" {
		return backend.Info{}, backend.Fail("copy", src, backend.ErrUnsupported, errors.New("versions are not looked at"))
	}
	if !c.caps.Copy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	if err := c.checkKey("copy", src); err != nil {
		return backend.Info{}, err
	}
	if err := c.checkPut("copy", dst, -1, backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata}); err != nil {
		return backend.Info{}, err
	}
	if opts.Cond != (backend.Cond{}) && !c.caps.CondCopy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, errors.New("condition of a copy's destination"))
	}
	metadata, err := written("copy", dst, opts.Metadata)
	if err != nil {
		return backend.Info{}, err
	}
	if src == dst {
		return c.replaceMetadata(ctx, dst, metadata, opts)
	}
	if opts.Metadata != nil && len(metadata) == 0 {
		metadata[noMetadata] = new("1")
	}
	if opts.Metadata == nil {
		metadata = nil
	}
	req, w := c.WatchLong(ctx)
	defer w.Stop()
	source, token, err := c.source(req, src)
	if err != nil {
		return backend.Info{}, c.fail(req, "copy", src, err)
	}
	o := &blob.CopyFromURLOptions{Metadata: metadata, CopySourceAuthorization: token, BlobAccessConditions: conditions(opts.Cond)}
	if opts.SourceETag != "" {
		o.SourceModifiedAccessConditions = &blob.SourceModifiedAccessConditions{SourceIfMatch: quoted(opts.SourceETag)}
	}
	out, err := c.blob(dst).CopyFromURL(req, source, o)
	if err != nil {
		err = c.failSource(req, "copy", src, err)
		if opts.SourceETag != "" && opts.Cond == (backend.Cond{}) {
			err = c.orMissing(ctx, "copy", src, err)
		}
		return backend.Info{}, err
	}
	return backend.Info{Key: dst, Size: -1, ETag: unquoted(out.ETag), ModTime: value(out.LastModified)}, nil
}

// replaceMetadata is the copy of an object onto itself.
func (c *container) replaceMetadata(ctx context.Context, key string, metadata map[string]*string, opts backend.CopyOptions) (backend.Info, error) {
	cond := backend.Cond{IfMatch: opts.SourceETag}
	switch {
	case opts.Cond.IfAbsent, opts.Cond.IfMatch != "" && cond.IfMatch != "" && opts.Cond.IfMatch != cond.IfMatch:
		return backend.Info{}, backend.Fail("copy", key, backend.ErrPrecondition, nil)
	case opts.Cond.IfMatch != "":
		cond.IfMatch = opts.Cond.IfMatch
	}
	if opts.Metadata == nil {
		return c.head(ctx, "copy", key, cond.IfMatch)
	}
	req, w := c.Watch(ctx)
	defer w.Stop()
	out, err := c.blob(key).SetMetadata(req, metadata, &blob.SetMetadataOptions{AccessConditions: conditions(cond)})
	if err != nil {
		return backend.Info{}, c.orMissing(ctx, "copy", key, c.fail(req, "copy", key, err))
	}
	return backend.Info{Key: key, Size: -1, ETag: unquoted(out.ETag), ModTime: value(out.LastModified)}, nil
}

// failSource is fail for a request by which the server reads a blob itself.
func (c *container) failSource(ctx context.Context, op, src string, err error) error {
	a, ok := errors.AsType[*azcore.ResponseError](err)
	if ok && a.ErrorCode == "CannotVerifyCopySource" {
		// It has the status that the source was refused with.
		bare := &azcore.ResponseError{StatusCode: a.StatusCode}
		return backend.Fail(op, src, kindOf(bare), words(a))
	}
	return c.fail(ctx, op, src, err)
}
