package cache

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

func TestAttributesSetDuringAnotherChangeOfThemAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		b.put("main/f", "content")
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		f := open(t, tree, "f", store.OpenFlags{Write: true})
		held := make(chan struct{})
		b.faults.Add(fault.Rule{Op: "copy", Key: "main/f", Do: func(context.Context, *backend.Op) error { <-held; return nil }})
		uid, mode := uint32(7), uint32(0o600)
		go func() {
			if _, err := f.SetAttr(t.Context(), store.AttrChange{UID: &uid}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		write(t, f, 0, "CONTENT!")
		_, err := f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
		ok(t, err)
		close(held)
		synctest.Wait()
		closeFile(t, f)
		e, err := tree.Lookup(t.Context(), path(t, "f"))
		ok(t, err)
		if e.Mode != store.ModeRegular|mode || e.UID != uid || b.get("main/f") != "CONTENT!" {
			t.Errorf("%+v", e)
		}
	})
}
