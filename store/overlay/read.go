package overlay

import (
	"context"
	"errors"
	"io"

	"github.com/keifs/keifs/backend"
)

// Stat implements backend.Backend.
func (b *Bucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	l, rel := b.at(key)
	if l == nil {
		return b.raw.Stat(ctx, key)
	}
	v, err := l.reading(ctx)
	if err != nil {
		return backend.Info{}, err
	}
	if !v.frozen {
		info, err := b.raw.Stat(ctx, key)
		if v.base == nil || !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrBadKey) {
			return info, err
		}
	}
	o, ok, err := l.visible(ctx, v, rel)
	switch {
	case err != nil:
		return backend.Info{}, err
	case !ok:
		return backend.Info{}, backend.Fail("stat", key, backend.ErrNotExist, nil)
	}
	return l.describe(ctx, o)
}

// Get implements backend.Backend. The version that the base has is read
// without asking whether the branch still shows it: it never changes.
func (b *Bucket) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	l, rel := b.at(key)
	if l == nil || opts.VersionID != "" {
		return b.raw.Get(ctx, key, opts, fn)
	}
	v, err := l.reading(ctx)
	if err != nil {
		return err
	}
	if v.base == nil && !v.frozen {
		return b.raw.Get(ctx, key, opts, fn)
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, nil)
	}
	if opts.IfMatch != "" {
		o, ok, err := v.base.Lookup(ctx, rel)
		if err != nil {
			return err
		}
		if ok && o.ETag == opts.IfMatch {
			return l.fetch(ctx, o, opts, fn)
		}
	}
	if !v.frozen {
		var own error
		err := b.raw.Get(ctx, key, opts, func(info backend.Info, body io.Reader) error {
			own = fn(info, body)
			return own
		})
		if own != nil || !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrBadKey) {
			return err
		}
	}
	o, ok, err := l.visible(ctx, v, rel)
	switch {
	case err != nil:
		return err
	case !ok:
		return backend.Fail("get", key, backend.ErrNotExist, nil)
	case opts.IfMatch != "":
		return backend.Fail("get", key, backend.ErrPrecondition, nil)
	}
	return l.fetch(ctx, o, opts, fn)
}
