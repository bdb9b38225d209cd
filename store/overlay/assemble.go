package overlay

import (
	"context"
	"errors"
	"io"

	"github.com/keifs/keifs/backend"
)

// Assemble implements backend.Assembler.
func (b *Bucket) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	assembler, ok := backend.As[backend.Assembler](b.raw)
	if !ok {
		return nil, backend.Fail("assemble", key, backend.ErrUnsupported, nil)
	}
	c, err := b.change(ctx, "assemble", key)
	if err != nil {
		return nil, err
	}
	missed := false
	if c != nil {
		if err := c.nests(ctx, "assemble"); err != nil {
			return nil, err
		}
		if opts.Cond, missed, err = c.early(ctx, opts.Cond); err != nil {
			return nil, err
		}
	}
	a, err := assembler.Assemble(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	return &assembly{b: b, c: c, next: a, cond: opts.Cond, missed: missed}, nil
}

// early is the condition of a publication for the plain object, where it has
// to be known before the end. missed: it does not hold now.
func (c *change) early(ctx context.Context, cond backend.Cond) (plain backend.Cond, missed bool, err error) {
	if c.base == nil || !cond.IfAbsent && cond.IfMatch != c.base.ETag {
		return cond, false, nil
	}
	if !cond.IfAbsent {
		if _, err := c.raw.Stat(ctx, c.key); err == nil || !errors.Is(err, backend.ErrNotExist) {
			return cond, false, err
		}
	}
	shown, err := c.shown(ctx)
	switch {
	case err != nil || !shown:
		return cond, false, err
	case cond.IfAbsent:
		return cond, true, nil
	case !c.Caps().CondAssemble:
		return backend.Cond{}, false, nil
	}
	return backend.Cond{IfAbsent: true}, false, nil
}

// assembly is one whose end is a change of a branch.
type assembly struct {
	b      *Bucket
	c      *change // nil outside of branches
	next   backend.Assembly
	cond   backend.Cond
	missed bool
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	return a.next.PutPart(ctx, number, src)
}

func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	sources, err := a.b.sources(ctx, key, etag, false)
	if err != nil {
		return err
	}
	_, err = fromAny(sources, func(from source) (struct{}, error) {
		err := a.next.CopyPart(ctx, number, from.key, from.etag, offset, length)
		if from.version != "" && err != nil && gone(err) {
			err = a.carryPart(ctx, number, from, offset, length)
		}
		return struct{}{}, err
	})
	return err
}

// carryPart takes a part of a version that is not the current one by way of
// this machine: no store copies it.
func (a *assembly) carryPart(ctx context.Context, number int, from source, offset, length int64) error {
	file, err := spare()
	if err != nil {
		return err
	}
	defer file.Close()
	opts := backend.GetOptions{VersionID: from.version, IfMatch: from.etag, Offset: offset, Length: length}
	if err := a.b.raw.Get(ctx, from.key, opts, into(file)); err != nil {
		return err
	}
	return a.next.PutPart(ctx, number, io.NewSectionReader(file, 0, length))
}

func (a *assembly) Complete(ctx context.Context) (info backend.Info, err error) {
	if a.c == nil {
		return a.next.Complete(ctx)
	}
	if a.missed {
		return backend.Info{}, backend.Fail("complete", a.c.key, backend.ErrPrecondition, nil)
	}
	err = a.c.guard(ctx, "complete", a.cond, func(ctx context.Context, _ backend.Cond) (err error) {
		info, err = a.next.Complete(ctx)
		return err
	})
	return info, err
}

// ID is what Discard knows the assembly by.
func (a *assembly) ID() string { return backend.AssemblyID(a.next) }

// Discard implements backend.Discarder.
func (b *Bucket) Discard(ctx context.Context, key, id string) error {
	discarder, ok := backend.As[backend.Discarder](b.raw)
	if !ok {
		return backend.Fail("discard", key, backend.ErrUnsupported, nil)
	}
	return discarder.Discard(ctx, key, id)
}

func (a *assembly) Abort(ctx context.Context) error { return a.next.Abort(ctx) }
