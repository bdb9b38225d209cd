package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

func list(t testing.TB, tree store.Tree, dir string) []string {
	t.Helper()
	names := []string{}
	for e, err := range tree.List(t.Context(), path(t, dir)) {
		ok(t, err)
		names = append(names, e.Name)
	}
	return names
}

// removeTree is rm -r.
func removeTree(t testing.TB, tree store.Tree, dir string) {
	t.Helper()
	for e, err := range tree.List(t.Context(), path(t, dir)) {
		ok(t, err)
		name := dir + "/" + e.Name
		if e.IsDir() {
			removeTree(t, tree, name)
		} else {
			ok(t, tree.Remove(t.Context(), path(t, name)))
		}
	}
	ok(t, tree.Rmdir(t.Context(), path(t, dir)))
}

func (b *bucket) keys() []string {
	b.t.Helper()
	keys := []string{}
	for info, err := range backend.ListRecursive(context.Background(), b.raw, "") {
		ok(b.t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

func TestRemovalsGoToTheBucketTogether(t *testing.T) {
	for _, conditions := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) { // so that a slow machine gathers as much
			b := newBucket(t)
			b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.CondBatch = conditions }})
			c, tree := b.open(Options{})
			_, err := tree.Mkdir(t.Context(), path(t, "keep"), store.Attr{Mode: store.ModeDir | 0o755}) // the bucket is probed
			ok(t, err)
			for i := range 2000 {
				b.put(fmt.Sprintf("main/d/%02d/%04d", i/100, i), "content")
			}
			list(t, tree, "")
			got := b.requests(func() {
				removeTree(t, tree, "d")
				missing(t, tree, "d/00/0001")
				missing(t, tree, "d")
				ok(t, c.Sync(t.Context()))
			})
			// Three listings by rm, of all there is, and batches for 2,000
			// files and 21 directories. Where those have no conditions, the
			// versions are compared.
			if n := count(got, "DELETEBATCH"); n < 3 || n > 5 || len(got) > 3+10 || len(got) != n+count(got, "LIST ") {
				t.Errorf("rm -r: %s", got)
			}
			if got := b.keys(); !slices.Equal(got, []string{"main/", "main/keep/"}) {
				t.Errorf("there is %q", got)
			}
			ok(t, c.Close(t.Context()))
		})
	}
}

func TestWhatRemovingCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{})
		closeFile(t, create(t, tree, "f", false))
		sync := func() { ok(t, c.Sync(t.Context())) }
		b.golden("a file", func() { ok(t, tree.Remove(t.Context(), path(t, "f"))); sync() }, "DELETE main/f if-match")

		// A directory without a marker lives on, and has one now.
		for _, name := range []string{"1", "2", "3"} {
			b.put("main/d/"+name, "x")
		}
		list(t, tree, "d")
		b.golden("all in a directory", func() {
			for _, name := range []string{"1", "2", "3"} {
				ok(t, tree.Remove(t.Context(), path(t, "d/"+name)))
			}
			sync()
		}, "LIST main/d/", "PUT main/d/ if-absent", "DELETEBATCH")
		if got := b.keys(); !slices.Equal(got, []string{"main/", "main/d/"}) {
			t.Errorf("there is %q", got)
		}

		// Without conditions in batches, they are compared first.
		b = newBucket(t)
		b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.CondBatch = false }})
		c, tree = b.open(Options{})
		for i := range 10 {
			b.put(fmt.Sprint("main/", i), "x")
		}
		list(t, tree, "")
		b.put("main/5", "somebody else's")
		b.golden("ten files", func() {
			for i := range 10 {
				ok(t, tree.Remove(t.Context(), path(t, fmt.Sprint(i))))
			}
			sync()
		}, "LIST main/", "DELETEBATCH")
		if got := b.keys(); !slices.Equal(got, []string{"main/", "main/5"}) {
			t.Errorf("there is %q", got)
		}
		ok(t, c.Close(t.Context()))
	})
}

func TestWhatSomebodyElseWroteIsNotRemoved(t *testing.T) {
	for name, opts := range map[string]mem.Options{
		"conditions": {}, "single conditions": {Caps: func(c *backend.Caps) { c.CondBatch = false }},
		"no conditions": {Caps: func(c *backend.Caps) { c.CondBatch, c.CondDelete = false, false }}, "no batches": {Plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t)
			b.raw = mem.New(t.Name(), opts)
			c, tree := b.open(Options{})
			for _, name := range []string{"d/1", "d/2", "d/3", "d/4", "d/5", "e/1"} {
				b.put("main/"+name, "old")
			}
			list(t, tree, "d")
			list(t, tree, "e")
			b.put("main/d/2", "theirs")
			for i := range 5 {
				ok(t, tree.Remove(t.Context(), path(t, fmt.Sprint("d/", i+1))))
			}
			b.put("main/e/theirs", "theirs")
			removeTree(t, tree, "e")
			ok(t, tree.Sync(t.Context(), path(t, "d")))
			ok(t, c.Sync(t.Context()))
			if got := readFile(t, tree, "d/2"); got != "theirs" {
				t.Errorf("d/2 is %q", got)
			}
			got := slices.DeleteFunc(b.keys(), func(key string) bool { return slices.Contains([]string{"main/", "main/d/", "main/e/"}, key) })
			if !slices.Equal(got, []string{"main/d/2", "main/e/theirs"}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

// What the bucket does not take is gone here all the same, stays so over a
// remount, and goes as soon as the bucket takes it.
func TestARemovalOutlivesItsVolume(t *testing.T) {
	b := newBucket(t)
	caps := b.raw.Caps()
	b.opts.Caps = &caps // a probe would leave something behind
	dir := t.TempDir()
	c, tree := b.open(Options{Dir: dir})
	_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755})
	ok(t, err)
	for _, name := range []string{"d/1", "d/2", "f", "stays"} {
		closeFile(t, create(t, tree, name, false))
	}
	refuse := func() {
		for _, op := range []string{"delete", "deletebatch"} {
			b.faults.Add(fault.Rule{Op: op, Err: backend.ErrPermission, Times: fault.Always})
		}
	}
	refuse()
	removeTree(t, tree, "d")
	ok(t, tree.Remove(t.Context(), path(t, "f")))
	look := func() {
		t.Helper()
		if got := list(t, tree, ""); !slices.Equal(got, []string{"stays"}) {
			t.Errorf("there is %q", got)
		}
		missing(t, tree, "f")
		missing(t, tree, "d")
		missing(t, tree, "d/1")
		if _, err := tree.Open(t.Context(), path(t, "f"), store.OpenFlags{}); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("open: %v", err)
		}
	}
	look()
	if err := tree.Sync(t.Context(), path(t, "")); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("fsync of the directory: %v", err)
	}
	if p := c.Pending(); len(p) != 1 || p[0].State != "removing" || p[0].Names != 4 || p[0].Err == "" {
		t.Errorf("pending: %+v", p)
	}
	if err := c.Close(t.Context()); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("close: %v", err)
	}
	c, tree = b.open(Options{Dir: dir})
	look()
	b.faults.Clear()
	ok(t, c.Sync(t.Context()))
	look()
	if got := b.keys(); !slices.Equal(got, []string{"main/", "main/stays"}) {
		t.Errorf("the bucket has %q", got)
	}

	// A name that is made anew is not taken by a removal from before.
	refuse()
	ok(t, tree.Remove(t.Context(), path(t, "stays")))
	f := create(t, tree, "stays", false)
	if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("flush: %v", err)
	}
	b.faults.Clear()
	closeFile(t, f)
	ok(t, c.Close(t.Context()))
	_, tree = b.open(Options{Dir: dir})
	if got := list(t, tree, ""); !slices.Equal(got, []string{"stays"}) {
		t.Errorf("there is %q", got)
	}
}

// refusing is a bucket that does not delete some keys.
type refusing struct {
	backend.Backend
	keys []string
}

func (r *refusing) Delete(ctx context.Context, key string, cond backend.Cond) error {
	errs, err := r.DeleteBatch(ctx, []backend.Deletion{{Key: key, IfMatch: cond.IfMatch}})
	return errors.Join(err, errs[0])
}

func (r *refusing) DeleteBatch(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	errs := make([]error, len(objects))
	for i, o := range objects {
		if errs[i] = backend.ErrPermission; !slices.Contains(r.keys, o.Key) {
			errs[i] = r.Backend.Delete(ctx, o.Key, backend.Cond{IfMatch: o.IfMatch})
		}
	}
	return errs, nil
}

// Whatever part of a batch fails, no directory that was removed comes back
// with the removal of what was in it.
func TestADirectoryDoesNotComeBackWhenOnlyAPartIsRemovedAtFirst(t *testing.T) {
	for _, keys := range [][]string{{"main/d/1"}, {"main/d/a/2"}, {"main/d/a/"}, {"main/d/"}, {"main/d/1", "main/d/a/"}} {
		b := newBucket(t)
		caps := b.raw.Caps()
		b.opts.Caps = &caps
		raw := &refusing{Backend: b.raw, keys: keys}
		b.raw = raw
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir})
		for _, key := range []string{"d/", "d/1", "d/2", "d/3", "d/a/", "d/a/1", "d/a/2", "d/a/3"} {
			b.put("main/"+key, "")
		}
		removeTree(t, tree, "d")
		if err := c.Close(t.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%q: %v", keys, err)
		}
		raw.keys = nil
		c, tree = b.open(Options{Dir: dir}) // which knows what is left
		missing(t, tree, "d")
		ok(t, c.Sync(t.Context()))
		if got := b.keys(); !slices.Equal(got, []string{"main/"}) {
			t.Errorf("without %q first, there is %q", keys, got)
		}
		ok(t, c.Close(t.Context()))
	}
}

func TestASyncedRemovalThatFailsLeavesTheName(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{SyncDeletes: true})
	closeFile(t, create(t, tree, "f", false))
	b.faults.Add(fault.Rule{Op: "delete", Err: backend.ErrPermission})
	if err := tree.Remove(t.Context(), path(t, "f")); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("remove: %v", err)
	}
	readFile(t, tree, "f")
	b.put("main/f", "somebody else's")
	ok(t, tree.Remove(t.Context(), path(t, "f")))
	if got := b.keys(); !slices.Equal(got, []string{"main/"}) {
		t.Errorf("the bucket has %q", got)
	}
}

// Nothing that nobody removed vanishes, whatever two volumes remove and rename
// against each other, and nothing that was removed comes back by itself.
func TestTwoVolumesThatRenameAndRemoveLoseNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := newBucket(t)
	c1, one := b.open(Options{MetadataTTL: time.Millisecond})
	c2, two := b.open(Options{MetadataTTL: time.Millisecond})
	const files = 120
	for i := range files {
		b.put(fmt.Sprintf("main/%d/%d", i%3, i), fmt.Sprint("content ", i))
	}
	var mu sync.Mutex
	removed := map[string]bool{} // contents that somebody removed, or may have
	var wg sync.WaitGroup
	for n, tree := range []store.Tree{one, two} {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(n)))
			dir := func() string { return fmt.Sprint(rnd.IntN(5)) }
			for range 150 {
				from := dir()
				var names []string
				for e, err := range tree.List(t.Context(), path(t, from)) {
					if err == nil {
						names = append(names, e.Name)
					}
				}
				if len(names) == 0 {
					continue
				}
				name := names[rnd.IntN(len(names))]
				p := path(t, from+"/"+name)
				var err error
				switch rnd.IntN(4) {
				case 0:
					mu.Lock()
					removed["content "+name] = true
					mu.Unlock()
					err = tree.Remove(t.Context(), p)
				case 1:
					err = tree.Rename(t.Context(), path(t, from), path(t, dir()), store.NoReplace)
				default:
					err = tree.Rename(t.Context(), p, path(t, dir()+"/"+name), store.NoReplace)
				}
				if err != nil && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, store.ErrStale) {
					ok(t, expected(err))
				}
			}
		})
	}
	wg.Wait()
	ok(t, c1.Sync(t.Context()))
	ok(t, c2.Sync(t.Context()))
	found := map[string]bool{}
	for _, key := range b.keys() {
		found[b.get(key)] = true
	}
	for i := range files {
		if content := fmt.Sprint("content ", i); !removed[content] && !found[content] {
			t.Errorf("seed %d: %s is lost; there is %q", seed, content, b.keys())
		}
	}
}
