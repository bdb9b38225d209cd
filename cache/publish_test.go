package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

func TestWritersWaitForAPublicationAndReadersDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		f := create(t, tree, "f", false)
		write(t, f, 0, "first")
		held := make(chan struct{})
		b.faults.Add(fault.Rule{Op: "put", Key: "main/f", Do: func(context.Context, *backend.Op) error { <-held; return nil }})
		var flushed, written bool
		go func() { ok(t, f.Flush(t.Context())); flushed = true }()
		synctest.Wait()
		go func() { write(t, f, 0, "SECOND"); written = true }()
		synctest.Wait()
		if flushed || written {
			t.Fatalf("flushed %v, written %v", flushed, written)
		}
		if got := content(t, f); got != "first" {
			t.Errorf("reads %q", got)
		}
		if got := readFile(t, tree, "f"); got != "first" { // opens it, too
			t.Errorf("opened: %q", got)
		}
		if p := c.Pending(); len(p) != 1 || p[0].State != "uploading" {
			t.Errorf("pending: %+v", p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.WriteAt(ctx, []byte("x"), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a writer that gives up: %v", err)
		}
		close(held)
		synctest.Wait()
		if got := b.get("main/f"); got != "first" || !flushed || !written {
			t.Errorf("object %q, flushed %v, written %v", got, flushed, written)
		}
		closeFile(t, f)
		if got := b.get("main/f"); got != "SECOND" {
			t.Errorf("object %q", got)
		}
	})
}

func TestAFailedPublicationIsTriedAgainUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		closeFile(t, create(t, tree, "before", false))
		f := create(t, tree, "f", false)
		write(t, f, 0, "content")
		b.faults.Add(fault.Rule{Op: "write", Key: "main/f", Times: fault.Always, Err: backend.ErrPermission})
		if err := f.Close(t.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("close: %v", err)
		}
		time.Sleep(24 * time.Hour)
		if n := b.faults.Fired(); n < 24*12 || n > 24*12+20 {
			t.Errorf("%d attempts in a day", n)
		}
		if p := c.Pending(); len(p) != 1 || p[0].State != "failed" || !strings.Contains(p[0].Err, "permission") {
			t.Errorf("pending: %+v", p)
		}
		again := open(t, tree, "f", store.OpenFlags{})
		if got := content(t, again); got != "content" {
			t.Errorf("reads %q", got)
		}
		if err := again.Close(t.Context()); !errors.Is(err, backend.ErrPermission) { // the last one tries
			t.Errorf("close: %v", err)
		}
		b.faults.Clear()
		time.Sleep(lastRetryAfter)
		synctest.Wait()
		if got := b.get("main/f"); got != "content" || len(c.Pending()) != 0 || c.Stats().StagedFiles != 0 {
			t.Errorf("object %q, pending %+v, %+v", got, c.Pending(), c.Stats())
		}
	})
}

func TestWhatFailedCanBeRenamedRemovedAndWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		for _, name := range []string{"renamed", "removed", "written"} {
			f := create(t, tree, name, false)
			write(t, f, 0, "content")
			b.faults.Add(fault.Rule{Op: "put", Key: "main/" + name, Err: backend.ErrTransient})
			if err := f.Close(t.Context()); !errors.Is(err, backend.ErrTransient) {
				t.Errorf("close: %v", err)
			}
		}
		ok(t, tree.Rename(t.Context(), path(t, "renamed"), path(t, "new"), store.Replace))
		ok(t, tree.Remove(t.Context(), path(t, "removed")))
		f := open(t, tree, "written", store.OpenFlags{Write: true})
		write(t, f, -1, ", more")
		closeFile(t, f)
		time.Sleep(time.Hour)
		if got := b.get("main/new") + "; " + b.get("main/written"); got != "content; content, more" {
			t.Errorf("objects: %q", got)
		}
		missing(t, tree, "renamed")
		missing(t, tree, "removed")
		if there, err := backend.Exists(t.Context(), b.raw, "main/removed"); there || err != nil {
			t.Errorf("the removed file is in the bucket: %v, %v", there, err)
		}
		if len(c.Pending()) != 0 || c.Stats().StagedFiles != 0 {
			t.Errorf("pending %+v, %+v", c.Pending(), c.Stats())
		}
	})
}

func TestALostAnswerMakesNoConflictWithWhatWasWrittenSince(t *testing.T) {
	b := newBucket(t)
	b.put("main/old", "old")
	_, tree := b.open(Options{})
	for name, f := range map[string]store.File{"new": create(t, tree, "new", false), "old": open(t, tree, "old", store.OpenFlags{Write: true})} {
		write(t, f, 0, "first")
		b.faults.Add(fault.Rule{Op: "put", Key: "main/" + name, Err: backend.ErrTransient, After: true})
		if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrTransient) {
			t.Errorf("flush: %v", err)
		}
		write(t, f, -1, " second")
		b.faults.Add(fault.Rule{Op: "put", Key: "main/" + name, Err: backend.ErrTransient}) // this one does not arrive
		if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrTransient) {
			t.Errorf("flush: %v", err)
		}
		write(t, f, -1, " third")
		closeFile(t, f)
		if got := b.get("main/" + name); got != "first second third" {
			t.Errorf("object %q", got)
		}
	}
	// Somebody else's is still told apart.
	f := open(t, tree, "old", store.OpenFlags{Write: true})
	write(t, f, 0, "FIRST")
	b.faults.Clear()
	b.faults.Add(fault.Rule{Op: "put", Key: "main/old", Err: backend.ErrTransient})
	if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("flush: %v", err)
	}
	b.put("main/old", "FIRST second third")
	if err := f.Flush(t.Context()); !errors.Is(err, store.ErrStale) {
		t.Errorf("flush: %v", err)
	}
	ok(t, f.Close(t.Context()))
}

func TestALongCopyKeepsNobodyElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		b.put("main/from", "content")
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		from, to := open(t, tree, "from", store.OpenFlags{}), create(t, tree, "to", false)
		_, err := to.CopyFrom(t.Context(), from, 0, 0, 1<<40)
		ok(t, err)
		held := make(chan struct{})
		b.faults.Add(fault.Rule{Op: "copy", Key: "main/to", Do: func(context.Context, *backend.Op) error { <-held; return nil }})
		go func() { ok(t, to.Flush(t.Context())) }()
		synctest.Wait()
		written := false
		go func() { closeFile(t, create(t, tree, "other", false)); written = true }()
		synctest.Wait()
		if !written {
			t.Error("another file is not published before the copy is made")
		}
		close(held)
		synctest.Wait()
		ok(t, to.Close(t.Context()))
		ok(t, from.Close(t.Context()))
		if got := b.get("main/to"); got != "content" {
			t.Errorf("object %q", got)
		}
	})
}

// A reference to an object that another host may remove is no promise: with
// write-back, a copy is acknowledged when its content is here, or in the
// bucket.
func TestASmallCopyIsWrittenAnewWithWriteBack(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{WriteBack: true})
	for size, want := range map[int]error{openWhole: store.ErrUnsupported, openWhole + 1: nil} {
		b.put("main/from", strings.Repeat("x", size))
		from, to := open(t, tree, "from", store.OpenFlags{}), create(t, tree, fmt.Sprint("to", size), false)
		if _, err := to.CopyFrom(t.Context(), from, 0, 0, 1<<40); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
		ok(t, from.Close(t.Context()))
		ok(t, to.Flush(t.Context()))
		if want == nil {
			ok(t, b.raw.Delete(t.Context(), "main/from", backend.Cond{}))
			if got := b.get(fmt.Sprint("main/to", size)); len(got) != size {
				t.Errorf("%d bytes", len(got))
			}
		}
		ok(t, to.Close(t.Context()))
	}
}

func TestACopyThatLosesARaceNamesNoFileOfIts(t *testing.T) {
	b := newBucket(t)
	b.opts.Policy = store.Fail
	b.put("main/from", "content")
	b.put("main/to", "old")
	_, tree := b.open(Options{})
	from, to := open(t, tree, "from", store.OpenFlags{}), open(t, tree, "to", store.OpenFlags{Write: true, Truncate: true})
	_, err := to.CopyFrom(t.Context(), from, 0, 0, 1<<40)
	ok(t, err)
	b.put("main/to", "theirs")
	if err := to.Flush(t.Context()); !errors.Is(err, store.ErrStale) || strings.Contains(err.Error(), "content is in") {
		t.Errorf("flush: %v", err)
	}
	ok(t, to.Close(t.Context()))
	ok(t, from.Close(t.Context()))
	if got := b.get("main/to"); got != "theirs" {
		t.Errorf("object %q", got)
	}
}

// As rsync makes them on two hosts from one source.
func TestAFileOfTheSameSizeAndTimeIsStillSomebodyElses(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{})
	_, theirs := b.open(Options{})
	when := time.Unix(1e9, 0)
	save := func(f store.File, content string) error {
		write(t, f, 0, content)
		_, err := f.SetAttr(t.Context(), store.AttrChange{Mtime: &when})
		ok(t, err)
		return f.Flush(t.Context())
	}
	f := create(t, tree, "f", false)
	b.faults.Add(fault.Rule{Op: "put", Key: "main/f", Err: backend.ErrTransient})
	if err := save(f, "ours"); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("flush: %v", err)
	}
	g := create(t, theirs, "f", false)
	ok(t, save(g, "them"))
	ok(t, g.Close(t.Context()))
	if err := save(f, "ours, and more"); !errors.Is(err, store.ErrStale) {
		t.Errorf("flush: %v", err)
	}
	ok(t, f.Close(t.Context()))
	if got := b.get("main/f"); got != "them" {
		t.Errorf("object %q", got)
	}
}

func TestAFullCacheDiskIsTheWritersErrorAndLosesNothingBefore(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{})
	f := create(t, tree, "f", false)
	write(t, f, 0, "content")
	good := c.stage.writeAt
	c.stage.writeAt = func(*os.File, []byte, int64) (int, error) { return 0, unix.ENOSPC }
	if _, err := f.WriteAt(t.Context(), []byte("more"), -1); !errors.Is(err, store.ErrCacheFull) {
		t.Errorf("write: %v", err)
	}
	b.put("main/g", "content of g")
	g := open(t, tree, "g", store.OpenFlags{Write: true})
	if _, err := g.WriteAt(t.Context(), []byte("more"), -1); !errors.Is(err, store.ErrCacheFull) {
		t.Errorf("first write: %v", err)
	}
	if got := content(t, g); got != "content of g" {
		t.Errorf("g reads %q", got)
	}
	c.stage.writeAt = good
	write(t, g, -1, ", more")
	closeFile(t, g)
	closeFile(t, f)
	if got := b.get("main/f") + "; " + b.get("main/g"); got != "content; content of g, more" {
		t.Errorf("objects: %q", got)
	}
}

// Whatever happens at the same time, every file is as one writer made it, and
// in the end nothing is open, staged or pending.
func TestManyAtOnce(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{MetadataTTL: 5 * time.Millisecond, Memory: -1})
	for _, dir := range []string{"d", "e", "e/sub"} {
		_, err := tree.Mkdir(t.Context(), path(t, dir), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
	}
	const size = 3 * chunkSize / 2
	whole := func(p []byte) bool { return len(p) == 0 || bytes.Count(p, p[:1]) == len(p) }
	work := func(rnd *rand.Rand) error {
		ctx := t.Context()
		name := func() store.Path {
			dir := []string{"", "d/", "e/", "e/sub/", "moved/"}[rnd.IntN(5)]
			return path(t, dir+string(rune('a'+rnd.IntN(3))))
		}
		p := name()
		switch rnd.IntN(12) {
		case 0, 1, 2: // written whole under another name, and renamed
			temp := path(t, fmt.Sprintf("temp-%d", rnd.Uint64()))
			f, err := tree.Create(ctx, temp, newAttr, rnd.IntN(2) == 0)
			if err != nil {
				return err
			}
			defer f.Close(ctx)
			if _, err := f.WriteAt(ctx, bytes.Repeat([]byte{byte('A' + rnd.IntN(26))}, rnd.IntN([]int{10, 10_000, size}[rnd.IntN(3)])), 0); err != nil {
				return err
			}
			if rnd.IntN(2) == 0 {
				if err := f.Flush(ctx); err != nil {
					return err
				}
			}
			if err := tree.Rename(ctx, temp, p, store.Replace); err != nil {
				tree.Remove(ctx, temp)
				return nil // the directory has moved
			}
			return f.Flush(ctx)
		case 3, 4, 5, 6:
			f, err := tree.Open(ctx, p, store.OpenFlags{})
			if err != nil {
				return expected(err)
			}
			defer f.Close(ctx)
			buf := make([]byte, size)
			n, err := f.ReadAt(ctx, buf, 0)
			if err == nil && !whole(buf[:n]) {
				return fmt.Errorf("%s is a mix", p)
			}
			if err == io.EOF {
				err = nil
			}
			return expected(err)
		case 7:
			mode := uint32(0o600 + rnd.IntN(64))
			_, err := tree.SetAttr(ctx, p, store.AttrChange{Mode: &mode})
			return expected(err)
		case 8:
			return expected(tree.Remove(ctx, p))
		case 9:
			from, to := path(t, "e"), path(t, "moved")
			if rnd.IntN(2) == 0 {
				from, to = to, from
			}
			return expected(tree.Rename(ctx, from, to, store.Replace))
		case 10:
			for e, err := range tree.List(ctx, p.Dir()) {
				if err != nil {
					return expected(err)
				}
				if _, err := tree.Lookup(ctx, path(t, strings.TrimPrefix(p.Dir().String()+"/"+e.Name, "/"))); err != nil {
					return expected(err)
				}
			}
		case 11:
			from, err := tree.Open(ctx, p, store.OpenFlags{})
			if err != nil {
				return expected(err)
			}
			defer from.Close(ctx)
			to, err := tree.Create(ctx, path(t, fmt.Sprintf("copy-%d", rnd.Uint64())), newAttr, false)
			if err != nil {
				return err
			}
			defer to.Close(ctx)
			_, err = to.CopyFrom(ctx, from, 0, 0, size)
			if errors.Is(err, store.ErrUnsupported) {
				err = nil
			}
			if err == nil {
				err = expected(to.Flush(ctx))
			}
			return err
		}
		return nil
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for range 100 {
				if err := work(rnd); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	ok(t, c.Sync(t.Context()))
	// Large files are staged until the cache has their content.
	for end := time.Now().Add(time.Minute); c.Stats().StagedFiles != 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s := c.Stats(); s.OpenFiles != 0 || s.StagedFiles != 0 || s.DirtyFiles != 0 || len(c.copies) != 0 {
		t.Errorf("left: %+v", s)
	}
	for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/") {
		ok(t, err)
		if strings.Contains(info.Key, ".conflict-") {
			t.Errorf("%s is there", info.Key)
		}
		if !whole([]byte(b.get(info.Key))) {
			t.Errorf("%s is a mix", info.Key)
		}
	}
	for _, in := range c.inodes() {
		t.Errorf("%s is left", in.where())
	}
	for _, tr := range c.trees {
		if n := len(tr.gate.queue); n != 0 {
			t.Errorf("%d claims are left", n)
		}
	}
}

// expected drops the errors of names that others are moving about.
func expected(err error) error {
	for _, e := range []error{store.ErrNotExist, store.ErrNotDir, store.ErrIsDir, store.ErrExist, store.ErrNotEmpty} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
