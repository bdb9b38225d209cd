package storetest

import (
	"context"
	"testing"

	"github.com/keifs/keifs/store"
)

// Settled makes a volume that acknowledges before the bucket has the file one
// that passes Run: each of its Flush and Close also waits, as fsync(2) does.
// What is left out by that, the order in which things reach the bucket without
// anybody waiting, RunModels tests.
func Settled(v store.Volume) store.Volume { return settledVolume{v} }

// RunModels runs only the random operations, on the plain bucket in memory.
func RunModels(t *testing.T, open Open) {
	for _, b := range buckets(t) {
		if b.name != plain {
			continue
		}
		for _, c := range models() {
			t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, open, nil, b)) })
		}
	}
}

type settledVolume struct{ store.Volume }

func (v settledVolume) Root() store.Tree { return settledTree{v.Volume.Root()} }

func (v settledVolume) Branch(ctx context.Context, name string) (store.Tree, error) {
	t, err := v.Volume.Branch(ctx, name)
	if err != nil {
		return nil, err
	}
	return settledTree{t}, nil
}

type settledTree struct{ store.Tree }

func (t settledTree) Open(ctx context.Context, p store.Path, flags store.OpenFlags) (store.File, error) {
	f, err := t.Tree.Open(ctx, p, flags)
	return settledFile(f, flags.Write, err)
}

func (t settledTree) Create(ctx context.Context, p store.Path, attr store.Attr, exclusive bool) (store.File, error) {
	f, err := t.Tree.Create(ctx, p, attr, exclusive)
	return settledFile(f, true, err)
}

// SetAttr with a size is an open, a write and a close.
func (t settledTree) SetAttr(ctx context.Context, p store.Path, change store.AttrChange) (store.Entry, error) {
	e, err := t.Tree.SetAttr(ctx, p, change)
	if err != nil || change.Size == nil {
		return e, err
	}
	f, err := t.Tree.Open(ctx, p, store.OpenFlags{})
	if err != nil {
		return e, err
	}
	if err := f.Sync(ctx); err != nil {
		return e, err
	}
	if e, err = f.Stat(ctx); err != nil {
		return e, err
	}
	return e, f.Close(ctx)
}

type settled struct {
	store.File
	write bool
}

func settledFile(f store.File, write bool, err error) (store.File, error) {
	if err != nil {
		return nil, err
	}
	return settled{f, write}, nil
}

func (f settled) CopyFrom(ctx context.Context, src store.File, srcOff, off, n int64) (int64, error) {
	if s, ok := src.(settled); ok {
		src = s.File
	}
	return f.File.CopyFrom(ctx, src, srcOff, off, n)
}

func (f settled) Flush(ctx context.Context) error {
	err := f.File.Flush(ctx)
	if err == nil && f.write {
		err = f.Sync(ctx)
	}
	return err
}

func (f settled) Close(ctx context.Context) (err error) {
	if f.write {
		err = f.Sync(ctx)
	}
	if cerr := f.File.Close(ctx); err == nil {
		err = cerr
	}
	return err
}
