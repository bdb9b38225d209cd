package store_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
)

func TestDirect(t *testing.T) {
	storetest.Run(t, func(t *testing.T, s *store.Store) store.Volume {
		return store.NewDirect(s, store.DirectOptions{})
	})
}

func TestDirectRefusesToHoldMoreThanItMayInMemory(t *testing.T) {
	ctx := t.Context()
	b := mem.New("", mem.Options{})
	large := bytes.Repeat([]byte("0123456789"), 20)
	if _, err := b.Put(ctx, "main/large", backend.Bytes(large), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, b, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v := store.NewDirect(s, store.DirectOptions{MaxFile: 100})
	tree, err := v.Branch(ctx, "main")
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) store.Path {
		p, err := store.ParsePath(name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tooBig := func(err error) {
		t.Helper()
		if !errors.Is(err, store.ErrTooBig) {
			t.Errorf("%v; want %v", err, store.ErrTooBig)
		}
	}

	f, err := tree.Create(ctx, path("f"), store.Attr{Mode: 0o644}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, make([]byte, 90), 10); err != nil {
		t.Error(err)
	}
	for _, off := range []int64{-1, 91, 1 << 62} {
		_, err = f.WriteAt(ctx, make([]byte, 10), off)
		tooBig(err)
	}
	size := int64(5 << 30)
	_, err = f.SetAttr(ctx, store.AttrChange{Size: &size})
	tooBig(err)
	if err := f.Flush(ctx); err != nil {
		t.Error(err)
	}
	if e, _ := tree.Lookup(ctx, path("f")); e.Size != 100 {
		t.Errorf("size %d", e.Size)
	}

	// What is only read has no limit, as long as it has its name.
	g, err := tree.Open(ctx, path("large"), store.OpenFlags{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 300)
	if n, err := g.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p[:n], large) {
		t.Errorf("%d bytes, %v", n, err)
	}
	_, err = g.WriteAt(ctx, []byte("x"), 0)
	tooBig(err)
	if err := tree.Remove(ctx, path("large")); err != nil {
		t.Error(err)
	}
	if _, err := g.ReadAt(ctx, p, 0); !errors.Is(err, store.ErrStale) {
		t.Error(err)
	}
	if n, err := g.ReadAt(ctx, p, 200); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
	for _, f := range []store.File{f, g} {
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
