package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
)

func TestWhatChangingAttributesCosts(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	f := b.path("f")
	first := b.put("main/f", "content")
	e, err := b.SetAttr(ctx, f, AttrChange{Mode: new(uint32(0o600))})
	ok(t, err)
	b.cost("STAT main/f", "LIST main/f/", "COPY main/f if-match")
	if e.Mode != 0o100600 || !e.Mtime.Equal(first.ModTime) || b.stat("main/f").Metadata["mode"] != "33152" {
		t.Errorf("%+v", e)
	}
	if found, err := b.Head(ctx, f); err != nil || !alike(found, e) {
		t.Errorf("changed to\n%+v, found as\n%+v, %v", e, found, err)
	}
	b.in.ResetRequests()
	_, err = b.SetAttr(ctx, f, AttrChange{Mode: new(uint32(0o600)), Mtime: new(first.ModTime)})
	ok(t, err)
	b.cost("STAT main/f", "LIST main/f/") // nothing to change
	_, err = b.SetAttr(ctx, f, AttrChange{Mode: new(uint32(0o640)), Base: e.Version})
	ok(t, err)
	b.cost("STAT main/f", "COPY main/f if-match") // what has a version is a file

	b.put("main/d/f", "")
	before := time.Now()
	e, err = b.SetAttr(ctx, b.path("d"), AttrChange{GID: new(uint32(7))})
	ok(t, err)
	if !e.Marker || e.GID != 7 || e.Mtime.Before(before) {
		t.Errorf("%+v", e)
	}
	b.cost("STAT main/d", "LIST main/d/", "PUT main/d/ if-absent")
	e, err = b.SetAttr(ctx, b.path("d"), AttrChange{Mtime: new(time.Unix(5, 0))})
	if err != nil || e.GID != 7 || e.Mtime.Unix() != 5 {
		t.Errorf("%+v %v", e, err)
	}
	b.cost("STAT main/d", "LIST main/d/", "STAT main/d/", "PUT main/d/ if-match")
	if found, err := b.HeadDir(ctx, b.path("d")); err != nil || !alike(found, e) {
		t.Errorf("changed to\n%+v, found as\n%+v, %v", e, found, err)
	}
	_, err = b.SetAttr(ctx, b.path("d"), AttrChange{Dir: true, GID: new(uint32(8))})
	ok(t, err)
	b.in.ResetRequests()
	_, err = b.SetAttr(ctx, b.path("d"), AttrChange{Dir: true, GID: new(uint32(9))})
	ok(t, err)
	b.cost("STAT main/d/", "PUT main/d/ if-match")
	b.in.ResetRequests()
	e, err = b.SetAttr(ctx, f, AttrChange{Dir: true, Mode: new(uint32(0o600))})
	if err != nil || e.IsDir() || e.Mode != 0o100600 {
		t.Errorf("a file that was taken for a directory: %+v %v", e, err)
	}
	b.cost("STAT main/f/", "STAT main/f", "LIST main/f/", "COPY main/f if-match")
	_, err = b.SetAttr(ctx, b.path("none"), AttrChange{Dir: true})
	is(t, err, ErrNotExist)
	_, err = b.SetAttr(ctx, f, AttrChange{Size: new(int64(0))})
	is(t, err, ErrUnsupported)
}

// lesserCopies are the ways in which stores keep an object while its metadata
// changes.
func lesserCopies() map[string]mem.Options {
	return map[string]mem.Options{
		"copies with conditions":    {},
		"copies that ignore them":   {Caps: func(c *backend.Caps) { c.CondCopy = false }, IgnoreConds: true},
		"copies by parts":           {Caps: func(c *backend.Caps) { c.MaxCopy = 1 }},
		"nothing but put":           {Plain: true},
		"nothing with a condition":  {Caps: func(c *backend.Caps) { *c = backend.Caps{Metadata: true, Copy: true, ObjectPrefix: true} }, IgnoreConds: true},
		"parts without conditions":  {Caps: func(c *backend.Caps) { c.CondAssemble, c.MaxCopy = false, 1 }, IgnoreConds: true},
		"no condition in the parts": {Caps: func(c *backend.Caps) { c.CondCopy, c.CondAssemble = false, false }, IgnoreConds: true},
	}
}

func TestAChangeOfAttributesNeverBringsOldContentBack(t *testing.T) {
	for name, bucket := range lesserCopies() {
		for _, size := range []int{0, 10, smallCopy + 1} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				b := newBench(t, bucket, Options{})
				p := b.path("f")
				old := strings.Repeat("o", size)
				first := b.put("main/f", old)
				// Somebody writes between the look and the change.
				b.in.Add(fault.Rule{Op: "stat", After: true, Do: func(context.Context, *backend.Op) error { b.put("main/f", "new"); return nil }})
				e, err := b.SetAttr(t.Context(), p, AttrChange{UID: new(uint32(7))})
				ok(t, err)
				if b.in.Fired() != 1 || b.body("main/f") != "new" || e.UID != 7 || e.Size != 3 || e.Version != b.stat("main/f").ETag {
					t.Errorf("%d, %.10q, %+v", b.in.Fired(), b.body("main/f"), e)
				}
				_, err = b.SetAttr(t.Context(), p, AttrChange{UID: new(uint32(8)), Base: first.ETag})
				is(t, err, ErrStale)

				// Left alone, the content stays as it was.
				b.put("main/f", old)
				e, err = b.SetAttr(t.Context(), p, AttrChange{UID: new(uint32(9))})
				if err != nil || b.body("main/f") != old || e.Size != int64(size) || b.stat("main/f").Metadata["uid"] != "9" || e.Version != b.stat("main/f").ETag {
					t.Errorf("%+v %v", e, err)
				}
				same(t, b.keys(), []string{"main/f"})
			})
		}
	}
}

func TestAttributesThatCannotBeKeptAreRefused(t *testing.T) {
	b := newBench(t, mem.Options{Caps: func(c *backend.Caps) { c.Metadata = false }}, Options{})
	b.put("main/f", "x")
	e, err := b.Lookup(t.Context(), b.path("f"))
	ok(t, err)
	_, err = b.SetAttr(t.Context(), b.path("f"), AttrChange{UID: new(uint32(7))})
	is(t, err, ErrUnsupported)
	_, err = b.SetAttr(t.Context(), b.path("f"), AttrChange{UID: new(e.UID)})
	ok(t, err) // it is so already
	_, err = b.Mknod(t.Context(), b.path("l"), Attr{Mode: ModeSymlink}, "f")
	is(t, err, ErrUnsupported)
	e, err = b.publish("g", "x", PublishOptions{Attr: Attr{UID: 7}})
	if found, ferr := b.Head(t.Context(), b.path("g")); err != nil || ferr != nil || e.UID != 0 || !alike(found, e) {
		t.Errorf("%+v, %+v, %v %v", e, found, err, ferr)
	}
}

func TestWhatMakingAndRemovingCosts(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	b.put("main/x", "")
	e, err := b.Mkdir(ctx, b.path("d"), Attr{Mode: 0o700})
	ok(t, err)
	b.cost("STAT main/d", "LIST main/d/", "LIST main/", "PUT main/d/ if-absent")
	if found, err := b.Lookup(ctx, b.path("d")); err != nil || !alike(found, e) || e.Mode != 0o40700 || !e.Marker {
		t.Errorf("made as\n%+v, found as\n%+v, %v", e, found, err)
	}
	b.in.ResetRequests()
	e, err = b.Mknod(ctx, b.path("d/l"), Attr{Mode: ModeSymlink | 0o600}, "target")
	ok(t, err)
	b.cost("STAT main/d/l", "LIST main/d/l/", "LIST main/d/", "PUT main/d/l if-absent")
	if found, err := b.Lookup(ctx, b.path("d/l")); err != nil || !alike(found, e) || e.Mode != 0o120777 || e.Size != 6 {
		t.Errorf("made as\n%+v, found as\n%+v, %v", e, found, err)
	}
	b.in.ResetRequests()
	ok(t, b.Remove(ctx, b.path("d/l")))
	b.cost("STAT main/d/l", "LIST main/d/l/", "DELETE main/d/l") // the marker is known
	ok(t, b.Rmdir(ctx, b.path("d")))
	b.cost("LIST main/d/", "LIST main/", "DELETE main/d/")
	same(t, b.keys(), []string{"main/x"})

	// A directory without a marker gets one when its last entry goes, and is
	// looked at as seldom as can be.
	for i := range 10 {
		b.put(fmt.Sprint("main/e/", i), "")
	}
	b.put("main/e/sub/x", "")
	for i := range 10 {
		ok(t, b.Remove(ctx, b.path(fmt.Sprint("e/", i))))
	}
	ok(t, b.Remove(ctx, b.path("e/sub/x")))
	if lists := b.in.Count("list"); lists != 11+2 {
		t.Errorf("%d listings: %q", lists, b.in.Requests())
	}
	same(t, b.keys(), []string{"main/e/sub/", "main/x"})
	ok(t, b.Rmdir(ctx, b.path("e/sub")))
	same(t, b.keys(), []string{"main/e/", "main/x"})
	ok(t, b.Rmdir(ctx, b.path("e")))
	ok(t, b.Remove(ctx, b.path("x")))
	same(t, b.keys(), []string{"main/"}) // the branch does not vanish
}

func TestMakingAndRemovingSayWhatIsInTheWay(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	b.put("main/f", "")
	b.put("main/d/f", "")
	mkdir := func(rel string) error { return second(b.Mkdir(ctx, b.path(rel), Attr{})) }
	mknod := func(rel string) error { return second(b.Mknod(ctx, b.path(rel), Attr{Mode: ModeFIFO}, "")) }
	remove := func(rel string) error { return b.Remove(ctx, b.path(rel)) }
	rmdir := func(rel string) error { return b.Rmdir(ctx, b.path(rel)) }
	for _, c := range []struct {
		name string
		do   func(string) error
		rel  string
		want error
	}{
		{"mkdir", mkdir, "f", ErrExist}, {"mkdir", mkdir, "d", ErrExist}, {"mkdir", mkdir, "", ErrExist}, {"mkdir", mkdir, "d/f", ErrExist},
		{"mkdir", mkdir, "none/d", ErrNotExist}, {"mkdir", mkdir, "f/d", ErrNotDir}, {"mkdir", mkdir, "%!d", ErrBadName}, {"mkdir", mkdir, "%!", ErrBadName},
		{"mknod", mknod, "f", ErrExist}, {"mknod", mknod, "d", ErrExist}, {"mknod", mknod, "none/d", ErrNotExist}, {"mknod", mknod, "f/d", ErrNotDir},
		{"remove", remove, "d", ErrIsDir}, {"remove", remove, "none", ErrNotExist}, {"remove", remove, "", ErrIsDir},
		{"rmdir", rmdir, "f", ErrNotDir}, {"rmdir", rmdir, "d", ErrNotEmpty}, {"rmdir", rmdir, "none", ErrNotExist}, {"rmdir", rmdir, "", ErrInvalid},
	} {
		if err := c.do(c.rel); !errors.Is(err, c.want) {
			t.Errorf("%s %q: %v, want %v", c.name, c.rel, err, c.want)
		}
	}
	is(t, mkdir(strings.Repeat("nnnnnnnn/", 113)+"xx"), ErrNameTooLong) // its marker is one byte longer
	for _, a := range []Attr{{Mode: 0o020644}, {Mode: ModeDir}} {
		_, err := b.Mknod(ctx, b.path("x"), a, "")
		is(t, err, ErrUnsupported)
	}
	for target, want := range map[string]error{"": ErrInvalid, "a\x00": ErrInvalid, strings.Repeat("x", 4096): ErrNameTooLong} {
		_, err := b.Mknod(ctx, b.path("x"), Attr{Mode: ModeSymlink}, target)
		is(t, err, want)
	}
	same(t, b.keys(), []string{"main/d/f", "main/f"})
}
