package gcs

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/api/storage/v1"

	"github.com/keifs/keifs/backend"
)

// Copy rewrites the object on the server, which for large ones takes several
// requests. To replace the metadata it first asks for the type and the other
// headers of the source, which the server would drop.
func (b *bucket) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	if opts.SourceVersion != "" {
		return backend.Info{}, backend.Fail("copy", src, backend.ErrUnsupported, errors.New("versions are not looked at"))
	}
	if !b.caps.Copy || opts.Cond != (backend.Cond{}) && !b.caps.CondCopy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	if err := b.checkPut("copy", dst, -1, backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata}); err != nil {
		return backend.Info{}, err
	}
	if err := b.checkKey("copy", src); err != nil {
		return backend.Info{}, err
	}
	// An empty description keeps what the source has.
	attrs := &storage.Object{}
	if b.class != "" || opts.Metadata != nil {
		from, err := b.stat(ctx, "copy", src)
		if err != nil {
			return backend.Info{}, err
		}
		etag := listed(src, from).ETag
		if opts.SourceETag != "" && opts.SourceETag != etag {
			return backend.Info{}, backend.Fail("copy", src, backend.ErrPrecondition, fmt.Errorf("it is %s by now", etag))
		}
		attrs = &storage.Object{
			ContentType: from.ContentType, ContentEncoding: from.ContentEncoding, ContentLanguage: from.ContentLanguage,
			ContentDisposition: from.ContentDisposition, CacheControl: from.CacheControl, CustomTime: from.CustomTime,
			StorageClass: from.StorageClass, Metadata: from.Metadata,
		}
		if opts.Metadata != nil {
			attrs.Metadata = b.attrs(backend.PutOptions{Metadata: opts.Metadata}).Metadata
		}
		if b.class != "" {
			attrs.StorageClass = b.class
		}
		if opts.SourceETag == "" {
			o, err := b.rewrite(ctx, "copy", b.full(src), b.full(dst), etag, opts.Cond, attrs) // the headers are of this version
			if errors.Is(err, backend.ErrPrecondition) && opts.Cond == (backend.Cond{}) {
				err = backend.Fail("copy", dst, backend.ErrTransient, errors.New("the source has just changed"))
			}
			return b.copied(dst, o, err)
		}
	}
	o, err := b.rewrite(ctx, "copy", b.full(src), b.full(dst), opts.SourceETag, opts.Cond, attrs)
	return b.copied(dst, o, err)
}

func (b *bucket) copied(key string, o *storage.Object, err error) (backend.Info, error) {
	if err != nil {
		return backend.Info{}, err
	}
	return b.info(key, o), nil
}

// rewrite copies between names of the bucket. The server moves a part of a
// large object and gives a token with which it goes on.
func (b *bucket) rewrite(ctx context.Context, op, from, to, sourceETag string, cond backend.Cond, attrs *storage.Object) (*storage.Object, error) {
	ctx, w := b.WatchLong(ctx)
	defer w.Stop()
	for token := ""; ; {
		call := b.objects.Rewrite(b.name, from, b.name, to, attrs).Context(ctx).RewriteToken(token)
		apply(call, cond)
		if sourceETag != "" {
			v := parseVersion(sourceETag)
			call.IfSourceGenerationMatch(v.generation).IfSourceMetagenerationMatch(v.metageneration)
		}
		out, err := call.Do()
		if err != nil {
			return nil, b.fail(ctx, op, to[len(b.prefix):], err)
		}
		if out.Done {
			if out.Resource == nil {
				return nil, backend.Fail(op, to[len(b.prefix):], backend.ErrTransient, errors.New("the answer names no object"))
			}
			return out.Resource, nil
		}
		token = out.RewriteToken
		w.Progress()
	}
}

// Rename moves an object by one atomic request.
func (b hierarchical) Rename(ctx context.Context, src, dst string, cond backend.Cond) (backend.Info, error) {
	if err := b.checkKey("rename", src); err != nil {
		return backend.Info{}, err
	}
	if err := b.checkPut("rename", dst, -1, backend.PutOptions{Cond: cond}); err != nil {
		return backend.Info{}, err
	}
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	call := b.objects.Move(b.name, b.full(src), b.full(dst)).Context(ctx)
	apply(call, cond)
	o, err := call.Do()
	return b.copied(dst, o, b.fail(ctx, "rename", dst, err))
}
