package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/storetest"
)

// The suite of all volumes, with the cache as it is by default, with nothing
// remembered, and with next to no room.
func TestVolume(t *testing.T) {
	opener := func(opts Options) storetest.Open {
		return func(t *testing.T, s *store.Store) store.Volume {
			opts := opts
			opts.Dir = t.TempDir()
			c, err := Open(t.Context(), s, opts)
			ok(t, err)
			return c
		}
	}
	settle := func(v store.Volume) error {
		c := v.(*Cache)
		if err := c.check(); err != nil {
			return err
		}
		return c.removals.wait(t.Context(), everything)
	}
	t.Run("default", func(t *testing.T) { storetest.RunLazy(t, opener(Options{}), settle) })
	t.Run("removals wait for the bucket", func(t *testing.T) {
		storetest.RunInMemory(t, opener(Options{SyncDeletes: true}), nil)
	})
	t.Run("nothing remembered", func(t *testing.T) {
		storetest.RunInMemory(t, opener(Options{MetadataTTL: -1, Size: -1, Memory: -1}), settle)
	})
	t.Run("write-back", func(t *testing.T) {
		back := opener(Options{WriteBack: true, StrictExcl: true, SyncDeletes: true})
		storetest.Run(t, func(t *testing.T, s *store.Store) store.Volume { return storetest.Settled(back(t, s)) })
	})
	t.Run("write-back with nobody waiting", func(t *testing.T) {
		storetest.RunModels(t, opener(Options{WriteBack: true}))
	})
	t.Run("everything sent while it is written", func(t *testing.T) {
		storetest.RunModels(t, opener(Options{streamPart: 100}))
	})
	t.Run("everything sent while it is written, and write-back", func(t *testing.T) {
		storetest.RunModels(t, opener(Options{streamPart: 100, WriteBack: true}))
	})
	t.Run("every change a patch", func(t *testing.T) {
		storetest.RunModels(t, opener(Options{patchFrom: 1}))
	})
	t.Run("every change a patch, and write-back", func(t *testing.T) {
		storetest.RunModels(t, opener(Options{patchFrom: 1, WriteBack: true}))
	})
	t.Run("next to no room", func(t *testing.T) {
		storetest.RunInMemory(t, opener(Options{Size: 2 * diskBlock, Memory: 100, MetadataEntries: 3}), settle)
	})
}

// bucket is a bucket in memory whose requests are recorded.
type bucket struct {
	t      testing.TB
	raw    backend.Backend
	faults *fault.Injector
	opts   store.Options
}

func newBucket(t testing.TB) *bucket {
	b := &bucket{t: t, raw: mem.New(t.Name(), mem.Options{}), faults: fault.New()}
	b.faults.Quiet(overlay.IsRefCheck)
	return b
}

// open opens a cache on the bucket and returns it with its branch main, which
// it has already asked about.
func (b *bucket) open(opts Options) (*Cache, store.Tree) {
	b.t.Helper()
	if opts.Dir == "" {
		opts.Dir = b.t.TempDir()
	}
	if b.opts.Host == "" {
		b.opts.Host = "here"
	}
	s, err := store.Open(context.Background(), b.faults.Wrap(b.raw), b.opts)
	ok(b.t, err)
	c, err := Open(context.Background(), s, opts)
	ok(b.t, err)
	b.t.Cleanup(func() { c.Close(context.Background()) })
	_, err = c.Branch(context.Background(), "main")
	if errors.Is(err, store.ErrNotExist) {
		_, err = c.Root().Mkdir(context.Background(), path(b.t, "main"), store.Attr{Mode: store.ModeDir | 0o755})
	}
	ok(b.t, err)
	tree, err := c.Branch(context.Background(), "main")
	ok(b.t, err)
	return c, tree
}

// requests runs fn and returns what it asked of the bucket.
func (b *bucket) requests(fn func()) []string {
	b.faults.ResetRequests()
	fn()
	return b.faults.Requests()
}

// golden checks what fn asks of the bucket.
func (b *bucket) golden(what string, fn func(), want ...string) {
	b.t.Helper()
	got := b.requests(fn)
	slices.Sort(got) // some are sent at the same time
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func (b *bucket) put(key, content string) {
	b.t.Helper()
	_, err := b.raw.Put(context.Background(), key, backend.Bytes([]byte(content)), backend.PutOptions{})
	ok(b.t, err)
}

func (b *bucket) get(key string) string {
	b.t.Helper()
	data, _, err := backend.ReadAll(context.Background(), b.raw, key, 1<<30)
	ok(b.t, err)
	return string(data)
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var newAttr = store.Attr{Mode: store.ModeRegular | 0o644}

func create(t testing.TB, tree store.Tree, name string, exclusive bool) store.File {
	t.Helper()
	f, err := tree.Create(t.Context(), path(t, name), newAttr, exclusive)
	ok(t, err)
	return f
}

func open(t testing.TB, tree store.Tree, name string, flags store.OpenFlags) store.File {
	t.Helper()
	f, err := tree.Open(t.Context(), path(t, name), flags)
	ok(t, err)
	return f
}

func write(t testing.TB, f store.File, off int64, content string) {
	t.Helper()
	n, err := f.WriteAt(t.Context(), []byte(content), off)
	if err != nil || n != len(content) {
		t.Fatalf("%d bytes written, %v", n, err)
	}
}

// closeFile is what close(2) does with the last descriptor.
func closeFile(t testing.TB, f store.File) {
	t.Helper()
	ok(t, f.Flush(t.Context()))
	ok(t, f.Close(t.Context()))
}

func content(t testing.TB, f store.File) string {
	t.Helper()
	var all []byte
	buf := make([]byte, 1<<20)
	for {
		n, err := f.ReadAt(t.Context(), buf, int64(len(all)))
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all)
		}
		ok(t, err)
	}
}

func readFile(t testing.TB, tree store.Tree, name string) string {
	t.Helper()
	f := open(t, tree, name, store.OpenFlags{})
	defer closeFile(t, f)
	return content(t, f)
}

func missing(t testing.TB, tree store.Tree, name string) {
	t.Helper()
	if _, err := tree.Lookup(t.Context(), path(t, name)); !errors.Is(err, store.ErrNotExist) {
		t.Fatalf("%s: %v", name, err)
	}
}

// What a flow costs. The kernel looks a name up before it creates it.
func TestRequestsOfAFlow(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{MetadataTTL: time.Hour})
	_, err := tree.Lookup(t.Context(), store.Path{})
	ok(t, err)

	missing(t, tree, "f")
	b.golden("create, write, chmod, utimens, close", func() {
		f := create(t, tree, "f", false)
		write(t, f, 0, "content")
		mode, when := uint32(0o600), time.Unix(1e9, 0)
		_, err := tree.SetAttr(t.Context(), path(t, "f"), store.AttrChange{Mtime: &when})
		ok(t, err)
		_, err = f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
		ok(t, err)
		closeFile(t, f)
	}, "PUT main/f if-absent")
	b.golden("looking at it", func() {
		e, err := tree.Lookup(t.Context(), path(t, "f"))
		ok(t, err)
		if e.Mode != store.ModeRegular|0o600 || e.Mtime.Unix() != 1e9 || e.Size != 7 {
			t.Errorf("entry %+v", e)
		}
	})
	b.golden("first read", func() { readFile(t, tree, "f") }, "STAT main/f")
	b.golden("second read", func() { readFile(t, tree, "f") }, "STAT main/f")
	b.golden("open and close for writing", func() { closeFile(t, open(t, tree, "f", store.OpenFlags{Write: true})) }, "STAT main/f")
	b.golden("append", func() {
		f := open(t, tree, "f", store.OpenFlags{Write: true})
		write(t, f, -1, "!")
		ok(t, f.Flush(t.Context()))
		closeFile(t, f)
	}, "STAT main/f", "PUT main/f if-match")
	b.golden("truncate and write", func() {
		f := open(t, tree, "f", store.OpenFlags{Write: true, Truncate: true})
		write(t, f, 0, "new")
		closeFile(t, f)
	}, "STAT main/f", "PUT main/f if-match")

	missing(t, tree, "x")
	b.golden("exclusive create", func() {
		f := create(t, tree, "x", true)
		write(t, f, 0, "content")
		mode := uint32(0o600)
		_, err := tree.SetAttr(t.Context(), path(t, "x"), store.AttrChange{Mode: &mode})
		ok(t, err)
		closeFile(t, f)
	}, "PUT main/x if-absent", "PUT main/x if-match")
	missing(t, tree, "touched")
	b.golden("touch", func() { closeFile(t, create(t, tree, "touched", false)) }, "PUT main/touched if-absent")
	missing(t, tree, "lock")
	b.golden("exclusive touch", func() { closeFile(t, create(t, tree, "lock", true)) }, "PUT main/lock if-absent")

	missing(t, tree, "dir")
	b.golden("a file in a new directory", func() {
		_, err := tree.Mkdir(t.Context(), path(t, "dir"), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
		missing(t, tree, "dir/f")
		f := create(t, tree, "dir/f", false)
		write(t, f, 0, "content")
		closeFile(t, f)
		for e, err := range tree.List(t.Context(), path(t, "dir")) {
			if ok(t, err); e.Name != "f" || e.Size != 7 {
				t.Errorf("entry %+v", e)
			}
		}
	}, "STAT main/dir", "LIST main/dir/", "LIST main/", "PUT main/dir/ if-absent", "PUT main/dir/f if-absent")

	missing(t, tree, "copy")
	b.golden("copy", func() {
		from, to := open(t, tree, "x", store.OpenFlags{}), create(t, tree, "copy", false)
		n, err := to.CopyFrom(t.Context(), from, 0, 0, 1<<40)
		if n != 7 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		n, err = to.CopyFrom(t.Context(), from, 7, 7, 1<<40)
		if n != 0 || err != nil {
			t.Fatalf("at the end: %d bytes, %v", n, err)
		}
		closeFile(t, to)
		closeFile(t, from)
	}, "STAT main/x", "COPY main/copy if-absent")
	if got := b.get("main/copy"); got != "content" {
		t.Errorf("the copy is %q", got)
	}

	b.golden("list", func() {
		for range 2 {
			for _, err := range tree.List(t.Context(), store.Path{}) {
				ok(t, err)
			}
		}
	}) // it was listed when a second name was looked up
	b.golden("names that a listing shows are not there", func() {
		missing(t, tree, "nothing")
		missing(t, tree, "nor this")
	})
	if s := c.Stats(); s.OpenFiles != 0 || s.StagedFiles != 0 || s.DirtyFiles != 0 {
		t.Errorf("left open: %+v", s)
	}
}

func TestANameThatCanNeverBePublishedIsRefusedAtOnce(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{})
	for _, name := range []string{"%!", "%!a"} { // a//, and the object of a key that is a prefix as well
		if _, err := tree.Create(t.Context(), path(t, name), newAttr, false); !errors.Is(err, store.ErrBadName) {
			t.Errorf("create %q: %v", name, err)
		}
	}
	b.put("main/a", "object")
	b.put("main/a/b", "child")
	f := open(t, tree, "%!a", store.OpenFlags{Write: true})
	write(t, f, -1, "!")
	closeFile(t, f)
	if got := b.get("main/a"); got != "object!" {
		t.Errorf("object %q", got)
	}
}

func TestOpenSeesTheBucketAndOldHandlesTheirVersion(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	b.put("main/f", "one")
	first := open(t, tree, "f", store.OpenFlags{})
	if got := content(t, first); got != "one" {
		t.Fatalf("first: %q", got)
	}
	b.put("main/f", "two!")
	second := open(t, tree, "f", store.OpenFlags{Write: true})
	if got := content(t, second); got != "two!" {
		t.Errorf("second: %q", got)
	}
	if got := content(t, first); got != "one" { // from the chunks
		t.Errorf("first, again: %q", got)
	}
	write(t, second, 0, "TWO")
	if got := content(t, first); got != "one" {
		t.Errorf("first, after a write to the second: %q", got)
	}
	closeFile(t, second)
	closeFile(t, first)
	if got := b.get("main/f"); got != "TWO!" {
		t.Errorf("object: %q", got)
	}
}

func TestAConflictKeepsBothAndTellsTheWriter(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{})
	b.put("main/f", "base")
	f := open(t, tree, "f", store.OpenFlags{Write: true})
	write(t, f, 0, "OURS")
	b.put("main/f", "theirs")
	for range 2 {
		if err := f.Flush(t.Context()); !errors.Is(err, store.ErrStale) {
			t.Errorf("flush: %v", err)
		}
	}
	if _, err := f.WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, store.ErrStale) {
		t.Errorf("write: %v", err)
	}
	if got := content(t, f); got != "OURS" {
		t.Errorf("the handle reads %q", got)
	}
	ok(t, f.Close(t.Context()))
	if got := readFile(t, tree, "f"); got != "theirs" {
		t.Errorf("the name is %q", got)
	}
	var found []string
	for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/f.conflict-here-") {
		ok(t, err)
		found = append(found, b.get(info.Key))
	}
	if !slices.Equal(found, []string{"OURS"}) {
		t.Errorf("conflict copies: %q", found)
	}
	if s := c.Stats(); s.StagedFiles != 0 || len(c.Pending()) != 0 {
		t.Errorf("left: %+v, %+v", s, c.Pending())
	}
}

// failed returns the contents below Dir/failed by file name.
func failed(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range files(t, filepath.Join(dir, "failed")) {
		data, err := os.ReadFile(name)
		ok(t, err)
		rel, err := filepath.Rel(filepath.Join(dir, "failed"), name)
		ok(t, err)
		all[rel[:strings.LastIndex(rel, "-")]] = string(data)
	}
	return all
}

func TestWhatCannotBePublishedAtCloseIsKeptOnThisMachine(t *testing.T) {
	b := newBucket(t)
	dir := t.TempDir()
	c, tree := b.open(Options{Dir: dir})
	_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755})
	ok(t, err)
	f := create(t, tree, "d/f", false)
	write(t, f, 0, "content")
	g := create(t, tree, "g", false)
	write(t, g, 0, "of g")
	b.faults.Add(fault.Rule{Op: "write", Key: "main/d/*", Err: backend.ErrPermission, Times: fault.Always})
	if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("flush: %v", err)
	}
	f.Close(t.Context())
	if p := c.Pending(); len(p) != 2 || p[0].Path != "d/f" || p[0].State != "failed" || p[0].Bytes != 7 || p[1].State != "dirty" {
		t.Errorf("pending: %+v", p)
	}
	err = c.Close(t.Context())
	if !errors.Is(err, backend.ErrPermission) || !strings.Contains(err.Error(), filepath.Join(dir, "failed", "main", "d", "f-")) {
		t.Errorf("close: %v", err)
	}
	if got := b.get("main/g"); got != "of g" {
		t.Errorf("g: %q", got)
	}
	c, _ = b.open(Options{Dir: dir}) // which does not clean that
	if got := failed(t, dir); len(got) != 1 || got["main/d/f"] != "content" {
		t.Errorf("kept: %q", got)
	}
	if err := g.Flush(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	_ = c
}

func TestAPolicyThatStoresNothingStillLosesNothing(t *testing.T) {
	b := newBucket(t)
	b.opts.Policy = store.Fail
	dir := t.TempDir()
	c, tree := b.open(Options{Dir: dir})
	b.put("main/f", "base")
	f := open(t, tree, "f", store.OpenFlags{Write: true})
	write(t, f, 0, "OURS")
	b.put("main/f", "theirs")
	err := f.Flush(t.Context())
	if !errors.Is(err, store.ErrStale) || !strings.Contains(err.Error(), filepath.Join(dir, "failed", "main", "f-")) {
		t.Errorf("flush: %v", err)
	}
	ok(t, f.Close(t.Context()))
	ok(t, c.Close(t.Context()))
	if got := failed(t, dir); len(got) != 1 || got["main/f"] != "OURS" {
		t.Errorf("kept: %q", got)
	}
}

func TestAChangeOfTheSourceBreaksNoCopy(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, tree store.Tree){
		"removed": func(t *testing.T, tree store.Tree) { ok(t, tree.Remove(t.Context(), path(t, "d/from"))) },
		"renamed": func(t *testing.T, tree store.Tree) {
			ok(t, tree.Rename(t.Context(), path(t, "d/from"), path(t, "x"), store.Replace))
		},
		"moved": func(t *testing.T, tree store.Tree) {
			ok(t, tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace))
		},
		"replaced": func(t *testing.T, tree store.Tree) {
			ok(t, tree.Rename(t.Context(), path(t, "other"), path(t, "d/from"), store.Replace))
		},
		"written": func(t *testing.T, tree store.Tree) {
			f := open(t, tree, "d/from", store.OpenFlags{Write: true, Truncate: true})
			write(t, f, 0, "new")
			closeFile(t, f)
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBucket(t)
			b.put("main/d/from", "content")
			b.put("main/other", "other")
			c, tree := b.open(Options{})
			from, to := open(t, tree, "d/from", store.OpenFlags{}), create(t, tree, "to", false)
			if _, err := to.CopyFrom(t.Context(), from, 0, 0, 7); err != nil {
				t.Fatal(err)
			}
			closeFile(t, from)
			change(t, tree)
			if got := content(t, to); got != "content" {
				t.Errorf("the copy reads %q", got)
			}
			closeFile(t, to)
			if got := b.get("main/to"); got != "content" {
				t.Errorf("the copy is %q", got)
			}
			if len(c.copies) != 0 {
				t.Errorf("%d copies noted still", len(c.copies))
			}
		})
	}
}

func TestAWrittenCopyIsAnOrdinaryFile(t *testing.T) {
	b := newBucket(t)
	b.put("main/from", "content")
	_, tree := b.open(Options{})
	from, to := open(t, tree, "from", store.OpenFlags{}), create(t, tree, "to", false)
	if _, err := to.CopyFrom(t.Context(), from, 0, 0, 7); err != nil {
		t.Fatal(err)
	}
	write(t, to, 0, "C")
	if _, err := to.CopyFrom(t.Context(), from, 0, 0, 7); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("onto content: %v", err)
	}
	if _, err := from.CopyFrom(t.Context(), to, 0, 0, 7); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("onto a file that is only read: %v", err)
	}
	closeFile(t, to)
	closeFile(t, from)
	if got := b.get("main/to"); got != "Content" {
		t.Errorf("object: %q", got)
	}
}
