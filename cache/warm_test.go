package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// all lists everything below dir, and looks up each name.
func all(t *testing.T, tree store.Tree, dir string) (names int) {
	t.Helper()
	for e, err := range tree.List(t.Context(), path(t, dir)) {
		ok(t, err)
		name := strings.TrimPrefix(dir+"/"+e.Name, "/")
		_, err := tree.Lookup(t.Context(), path(t, name))
		ok(t, err)
		if names++; e.IsDir() {
			names += all(t, tree, name)
		}
	}
	return names
}

func TestWarmingATreeCostsAboutOneListing(t *testing.T) {
	for name, tree := range map[string]struct {
		keys  func(put func(string))
		names int
		lists int // at most
	}{
		"files in many directories": {func(put func(string)) {
			for i := range 6000 {
				put(fmt.Sprintf("d%02d/f%03d", i/100, i%100))
			}
		}, 6060, 6 + 1 + warmPieces},
		"one directory": {func(put func(string)) {
			for i := range 3500 {
				put(fmt.Sprintf("f%04d", i))
			}
		}, 3500, 4},
		"directories far below": {func(put func(string)) {
			for i := range 4500 {
				put(fmt.Sprintf("a/b/c/d%02d/e/f%04d", i/500, i))
			}
		}, 4500 + 3 + 9*2, 5 + 3*5 + warmPieces},
		"large and small": {func(put func(string)) {
			for i := range 3000 {
				put(fmt.Sprintf("large/f%04d", i))
			}
			for i := range 1500 {
				put(fmt.Sprintf("small%04d/file", i))
			}
			put("empty/")
			put("zfile")
		}, 1 + 3000 + 3000 + 2, 5 + 2 + 2*warmPieces},
		"nothing": {func(put func(string)) { put("") }, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t)
			b.opts.Attrs = store.AttrsAuto
			tree.keys(func(key string) { b.put("main/top/"+key, "") })
			b.put("main/beside", "")
			c, main := b.open(Options{MetadataTTL: time.Hour})
			got := b.requests(func() { ok(t, c.Warm(t.Context(), "main", path(t, "top"), false, &Warming{})) })
			lists := 0
			for _, r := range got {
				if strings.HasPrefix(r, "LIST") {
					lists++
				}
			}
			if lists > tree.lists+1 || len(got)-lists > 3 { // and the way to it
				t.Errorf("%d listings, at most %d are needed: %q", lists, tree.lists, got)
			}
			b.golden("what was warmed", func() {
				if n := all(t, main, "top"); n != tree.names {
					t.Errorf("%d names, want %d", n, tree.names)
				}
			})
		})
	}
}

func TestWarmingAsksForWhatNoListingTells(t *testing.T) {
	for name, caps := range map[string]func(*backend.Caps){
		"by key": func(*backend.Caps) {}, "by directory": func(c *backend.Caps) { c.ListAfter = false },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t)
			b.raw = mem.New(t.Name(), mem.Options{Caps: caps})
			b.opts.Attrs = store.AttrsHead
			const files = 60
			for i := range files {
				b.put(fmt.Sprintf("main/d%d/f%02d", i%3, i), "content")
			}
			c, main := b.open(Options{MetadataTTL: time.Hour})
			var progress Warming
			ok(t, c.Warm(t.Context(), "", store.Path{}, true, &progress))
			if progress.Names() != files+3 || progress.Dirs() != 4 || progress.Files() < files || progress.Bytes() != files*7 {
				t.Errorf("%d names, %d directories, %d files, %d bytes", progress.Names(), progress.Dirs(), progress.Files(), progress.Bytes())
			}
			b.golden("what was warmed", func() { all(t, main, "") })
			b.golden("its content", func() {
				f, err := main.Open(t.Context(), path(t, "d0/f00"), store.OpenFlags{})
				ok(t, err)
				buf := make([]byte, 7)
				_, err = f.ReadAt(t.Context(), buf, 0)
				ok(t, err)
				ok(t, f.Close(t.Context()))
			}, "STAT main/d0/f00")
		})
	}
}

func TestWarmingBringsBackNothingThatWasChangedMeanwhile(t *testing.T) {
	b := newBucket(t)
	for i := range 2500 {
		b.put(fmt.Sprintf("main/d/%04d", i), "old")
	}
	c, main := b.open(Options{MetadataTTL: time.Hour})
	b.faults.Add(fault.Rule{Op: "list", Key: "main/*", From: 3, After: true, Do: func(ctx context.Context, _ *backend.Op) error {
		ok(t, main.Remove(ctx, path(t, "d/2400")))
		return main.Sync(ctx, path(t, "d"))
	}})
	ok(t, c.Warm(t.Context(), "main", path(t, "d"), false, &Warming{}))
	if b.faults.Fired() != 1 {
		t.Fatal("nothing was removed meanwhile")
	}
	if n := all(t, main, "d"); n != 2499 {
		t.Errorf("%d names", n)
	}
	if err := c.Warm(t.Context(), "main", path(t, "nothing"), false, &Warming{}); err == nil {
		t.Error("what is not there was warmed")
	}
	b.faults.Clear()
	b.faults.Add(fault.Rule{Op: "list", Times: fault.Always, Err: backend.ErrTransient})
	c.Refresh("main", path(t, "d"))
	if err := c.Warm(t.Context(), "main", path(t, "d"), false, &Warming{}); err == nil {
		t.Error("a listing that failed was taken for one")
	}
}
