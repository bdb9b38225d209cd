package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

var background = context.Background()

func TestWhatABranchWithABaseCosts(t *testing.T) {
	b := fork(t, mem.Options{}, "a", "d/x", "d/y")
	stat := func(key string) func() error {
		return func() error { _, err := b.Stat(background, key); return err }
	}
	info, err := b.Stat(background, "dev/a")
	b.ok(err)
	whiteouts := "LIST .kei/whiteouts/dev/"
	b.cost("a file of the base", stat("dev/a"), "STAT dev/a", whiteouts, "STAT main/a")
	b.cost("its content", func() error {
		return b.Get(background, "dev/a", backend.GetOptions{IfMatch: info.ETag}, discard)
	}, "GET main/a if-match")
	b.cost("creating", func() error { return b.write(b, "dev/new", "1", backend.Cond{IfAbsent: true}) }, "PUT dev/new if-absent")
	b.cost("a plain file", stat("dev/new"), "STAT dev/new")
	b.cost("overwriting", func() error { return b.write(b, "dev/a", "2", backend.Cond{IfMatch: info.ETag}) }, whiteouts, "PUT dev/a if-absent")
	b.cost("deleting a file of the base", func() error { return b.Delete(background, "dev/d/x", backend.Cond{}) },
		"PUT .kei/whiteouts/dev/d/x", "DELETE dev/d/x")
	b.cost("deleting a plain file", func() error { return b.Delete(background, "dev/new", backend.Cond{}) }, "DELETE dev/new")
	b.cost("creating over a whiteout", func() error { return b.write(b, "dev/d/x", "3", backend.Cond{IfAbsent: true}) },
		whiteouts, "PUT dev/d/x if-absent")
	b.cost("listing", func() error { same(t, "names", keys(t, b, "dev/"), "a d/x d/y"); return nil }, "LIST dev/", whiteouts)
	same(t, "main", keys(t, b, "main/"), "a d/x d/y")
	same(t, "a", read(b, "dev/a"), "2")
	same(t, "d/y", read(b, "dev/d/y"), "main's d/y")
}

func discard(backend.Info, io.Reader) error { return nil }

func TestCreatingOverWhatTheBaseShowsIsRefused(t *testing.T) {
	b := fork(t, mem.Options{}, "a")
	err := b.write(b, "dev/a", "mine", backend.Cond{IfAbsent: true})
	if !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("error: %v", err)
	}
	b.ok(b.Delete(background, "dev/a", backend.Cond{}))
	b.ok(b.write(b.client(), "dev/a", "theirs", backend.Cond{IfAbsent: true}))
	if err := b.write(b, "dev/a", "mine", backend.Cond{IfAbsent: true}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("the second: %v", err)
	}
	same(t, "a", read(b, "dev/a"), "theirs")
}

// Somebody removed the file after its version was seen: it does not come back.
func TestAVersionOfTheBaseIsNotReplacedWhereItIsHidden(t *testing.T) {
	b := fork(t, mem.Options{}, "a")
	info, err := b.Stat(background, "dev/a")
	b.ok(err)
	b.ok(b.client().Delete(background, "dev/a", backend.Cond{IfMatch: info.ETag}))
	if err := b.write(b, "dev/a", "mine", backend.Cond{IfMatch: info.ETag}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("error: %v", err)
	}
	if err := b.Delete(background, "dev/a", backend.Cond{IfMatch: info.ETag}); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("deleting it again: %v", err)
	}
	same(t, "names", keys(t, b, "dev/"), "")
}

func TestAWhiteoutOfADirectoryHidesWhatIsBelowIt(t *testing.T) {
	b := fork(t, mem.Options{}, "d", "d.txt", "d/", "d/e/f", "d/x", "dx")
	b.put(".kei/whiteouts/dev/d/", "")
	same(t, "names", keys(t, b, "dev/"), "d d.txt dx")
	b.ok(b.write(b, "dev/d/", "", backend.Cond{IfAbsent: true})) // mkdir brings nothing back
	same(t, "names", keys(t, b, "dev/"), "d d.txt d/ dx")
	same(t, "entries", fmt.Sprint(level(t, b, "dev/")), "[dev/d dev/d.txt dev/d/ dev/dx]")
}

// A marker that goes leaves what is in its directory.
func TestAWhiteoutOfAMarkerHidesNothingElse(t *testing.T) {
	b := fork(t, mem.Options{}, "d/", "d/%!", "d/%!%25!", "d/x")
	b.ok(b.Delete(background, "dev/d/", backend.Cond{}))
	same(t, "names", keys(t, b, "dev/"), "d/%! d/%!%25! d/x")
	b.ok(b.Delete(background, "dev/d/%!", backend.Cond{}))
	same(t, "names", keys(t, b, "dev/"), "d/%!%25! d/x")
}

func level(t *testing.T, b backend.Backend, prefix string) (names []string) {
	for e, err := range backend.List(background, b, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Key)
	}
	return names
}

func TestPagesOfAMergedListingAreWholeAndInOrder(t *testing.T) {
	for size := 1; size <= 5; size++ {
		b := fork(t, mem.Options{PageSize: size}, "a", "b/", "b/1", "b/2", "c", "e/x", "e/y", "g", "h/i/j", "z")
		for _, key := range []string{"a0", "b/15", "c", "d/q", "e/y", "zz"} {
			b.put("dev/"+key, "")
		}
		for _, key := range []string{"b/2", "e/x", "g", "h/i/j"} {
			b.ok(b.Delete(background, "dev/"+key, backend.Cond{}))
		}
		same(t, "names", keys(t, b, "dev/"), "a a0 b/ b/1 b/15 c d/q e/y z zz")
		same(t, "entries", strings.Join(level(t, b, "dev/"), " "), "dev/a dev/a0 dev/b/ dev/c dev/d/ dev/e/ dev/z dev/zz")
		var paged []string
		for opts := (backend.ListOptions{Prefix: "dev/", Delimited: true, Limit: size}); ; {
			page, err := b.ListPage(background, opts)
			b.ok(err)
			if n := len(page.Objects) + len(page.Prefixes); n > size {
				t.Errorf("a page of %d entries, at most %d", n, size)
			}
			for _, info := range page.Objects {
				paged = append(paged, info.Key)
			}
			paged = append(paged, page.Prefixes...)
			if opts.Token = page.Next; page.Next == "" {
				break
			}
		}
		if len(paged) != 8 {
			t.Errorf("pages of %d: %q", size, paged)
		}
	}
}

func TestMoreWhiteoutsThanAPageAreSeenAll(t *testing.T) {
	var files []string
	for i := range 40 {
		files = append(files, fmt.Sprintf("d%02d/f", i))
	}
	b := fork(t, mem.Options{PageSize: 3}, append(files, "top")...)
	for i := range 20 {
		b.ok(b.Delete(background, fmt.Sprintf("dev/d%02d/f", 2*i), backend.Cond{}))
	}
	b.put(".kei/whiteouts/dev/d39/", "")
	for i := range 40 {
		_, err := b.Stat(background, fmt.Sprintf("dev/d%02d/f", i))
		if gone := i%2 == 0 || i == 39; gone != errors.Is(err, backend.ErrNotExist) {
			t.Errorf("d%02d: %v", i, err)
		}
	}
	if n := len(level(t, b, "dev/")); n != 20 {
		t.Errorf("%d entries", n)
	}
}

// After each number of requests that came through, the tree is the old or the
// new one.
func TestEveryCrashLeavesTheOldOrTheNewTree(t *testing.T) {
	for name, change := range map[string]func(b *bench, c backend.Backend) error{
		"delete":       func(b *bench, c backend.Backend) error { return c.Delete(background, "dev/a", backend.Cond{}) },
		"delete plain": func(b *bench, c backend.Backend) error { return c.Delete(background, "dev/b", backend.Cond{}) },
		"overwrite":    func(b *bench, c backend.Backend) error { return b.write(c, "dev/a", "new", backend.Cond{}) },
		"replace":      func(b *bench, c backend.Backend) error { return b.write(c, "dev/b", "new", backend.Cond{}) },
		"batch": func(b *bench, c backend.Backend) error {
			power, _ := backend.As[backend.BatchDeleter](c)
			errs, err := power.DeleteBatch(background, []backend.Deletion{{Key: "dev/b"}})
			return errors.Join(append(errs, err)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := func(b *bench) string { return read(b.client(), "dev/a") + "; " + read(b.client(), "dev/b") }
			setup := func() *bench {
				b := fork(t, mem.Options{}, "a", "b")
				b.put("dev/b", "dev's b")
				b.commit("dev", id("d"))
				b.ref("dev", map[string]any{"head": id("d"), "base": id("c")})
				return b
			}
			done := setup()
			before := tree(done)
			done.ok(change(done, done.client()))
			after := tree(done)
			if before == after {
				t.Fatalf("nothing changed: %s", before)
			}
			for n := 1; ; n++ {
				b := setup()
				in := fault.New(fault.Rule{From: n, Times: fault.Always, Err: backend.ErrUnreachable})
				err := change(b, overlay.New(in.Wrap(b.raw), overlay.Options{Commits: b.shelf}))
				if got := tree(b); got != before && got != after || err == nil && got != after {
					t.Errorf("after %d requests (%v): %s", n-1, err, got)
				}
				same(t, "the commit", read(b.client(), "main@"+id("c")+"/b")+"; "+read(b.client(), "dev@"+id("d")+"/b"), "main's b; dev's b")
				if err == nil {
					break
				}
			}
		})
	}
}

func TestWalkNamesTheContentWhereItIs(t *testing.T) {
	b := fork(t, mem.Options{PageSize: 2}, "a", "b", "c", "d/x")
	b.ok(b.write(b, "dev/b", "dev's b", backend.Cond{}))
	b.ok(b.Delete(background, "dev/c", backend.Cond{}))
	var got []string
	for o, err := range b.Walk(background, "dev", "") {
		b.ok(err)
		got = append(got, o.Rel+"="+o.Key)
	}
	same(t, "objects", strings.Join(got, " "), "a=main/a b=dev/b d/x=main/d/x")
	got = nil
	for o, err := range b.Walk(background, "main", "d/") {
		b.ok(err)
		got = append(got, o.Rel+"="+o.Key)
	}
	same(t, "objects of main", strings.Join(got, " "), "d/x=main/d/x")
}

func TestARevisionIsReadOnlyAndNeverChanges(t *testing.T) {
	b := fork(t, mem.Options{}, "a", "b", "d/x")
	at := "main@" + id("c") + "/"
	same(t, "names", keys(t, b, at), "a b d/x")
	b.ok(b.write(b, "main/a", "new", backend.Cond{}))
	b.ok(b.Delete(background, "main/b", backend.Cond{}))
	for _, f := range []string{"a", "b", "d/x"} {
		same(t, f, read(b.client(), at+f), "main's "+f)
	}
	same(t, "names", keys(t, b, at), "a b d/x")
	if err := b.write(b, at+"a", "no", backend.Cond{}); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("writing: %v", err)
	}
	if err := b.Delete(background, at+"a", backend.Cond{}); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("deleting: %v", err)
	}
	if !b.Frozen("main@"+id("c")) || b.Frozen("main") || b.Frozen("main@nothing") {
		t.Error("what is frozen")
	}
	b.put("main@nothing/f", "a plain object")
	same(t, "a prefix of that name", read(b.client(), "main@nothing/f"), "a plain object")

	copier, _ := backend.As[backend.Copier](b.Bucket)
	info, err := b.Stat(background, at+"a")
	b.ok(err)
	b.cost("restoring", func() error {
		_, err := copier.Copy(background, at+"a", "main/restored", backend.CopyOptions{SourceETag: info.ETag})
		return err
	}, "COPY main/restored", "COPY main/restored")
	same(t, "restored", read(b, "main/restored"), "main's a")
}

func TestContentThatIsGoneIsSaidToBe(t *testing.T) {
	b := fork(t, mem.Options{}, "a")
	b.put("main/a", "by another tool")
	err := b.Get(background, "dev/a", backend.GetOptions{}, discard)
	if !errors.Is(err, overlay.ErrLost) || errors.Is(err, backend.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
}

func TestAWalkAsksOnceForManyEntries(t *testing.T) {
	b := newBench(t, mem.Options{})
	base := make(tree, 50_000)
	for i := range base {
		rel := fmt.Sprintf("f%05d", i)
		base[i] = overlay.Object{Rel: rel, Key: "main/" + rel, ETag: "e"}
	}
	b.shelf.commits[id("c")] = base
	b.ref("dev", map[string]any{"head": id("c"), "base": id("c")})
	b.put("dev/f25000", "mine")
	b.put(".kei/whiteouts/dev/f49999", "")
	list, whiteouts := "LIST dev/", "LIST .kei/whiteouts/dev/"
	// The plain objects are asked for until the last one was passed.
	b.cost("a walk", func() error {
		at := 0
		for o, err := range b.Walk(background, "dev", "") {
			b.ok(err)
			if o.Rel != base[at].Rel || o.Inherited != (at != 25_000) {
				t.Fatalf("%d: %+v", at, o)
			}
			at++
		}
		if at != len(base)-1 {
			t.Errorf("%d entries", at)
		}
		return nil
	}, list, whiteouts, list, whiteouts, whiteouts)
}
