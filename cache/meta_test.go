package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

func TestAnswersAreGoodForTheirTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		b.put("main/d/f", "x")
		c, tree := b.open(Options{MetadataTTL: 10 * time.Second})
		defer c.Close(context.Background())
		look := func() {
			if _, err := tree.Lookup(t.Context(), path(t, "d/f")); err != nil {
				t.Error(err)
			}
			missing(t, tree, "d/nothing")
			for _, err := range tree.List(t.Context(), path(t, "d")) {
				ok(t, err)
			}
		}
		if n := len(b.requests(look)); n != 3 {
			t.Errorf("at first: %d requests, want 2 for the one, and a listing for the others", n)
		}
		time.Sleep(9 * time.Second)
		if got := b.requests(look); len(got) != 0 {
			t.Errorf("within the time: %q", got)
		}
		time.Sleep(time.Second)
		if n := len(b.requests(look)); n != 3 {
			t.Errorf("after it: %d requests, want the same as at first", n)
		}
		s := c.Stats()
		if s.Hits == 0 || s.NegativeHits == 0 || s.Misses != 3 || s.ListHits != 3 || s.ListMisses != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAListingSparesRequests(t *testing.T) {
	b := newBucket(t)
	b.put("main/d/f", "x")
	b.put("main/d/sub/g", "x")
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	var names []string
	for e, err := range tree.List(t.Context(), path(t, "d")) {
		ok(t, err)
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); got != "f sub" {
		t.Fatalf("names %q", got)
	}
	lookup := func(name string) func() {
		return func() {
			if _, err := tree.Lookup(t.Context(), path(t, name)); err != nil {
				t.Error(err)
			}
		}
	}
	b.golden("a name that is not listed", func() { missing(t, tree, "d/g") })
	b.golden("a file", lookup("d/f"), "STAT main/d/f")
	b.golden("a directory", lookup("d/sub"), "STAT main/d/sub/")
	b.golden("again", func() { lookup("d/f")(); lookup("d/sub")() })
	closeFile(t, create(t, tree, "d/new", false))
	b.golden("a name made here", lookup("d/new"))
	ok(t, tree.Remove(t.Context(), path(t, "d/new")))
	b.golden("a name removed here", func() { missing(t, tree, "d/new") })
	b.golden("the listing, with all that", func() {
		for range tree.List(t.Context(), path(t, "d")) {
		}
	})
}

func TestConcurrentLookupsShareOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		b.put("main/f", "x")
		c, tree := b.open(Options{MetadataTTL: time.Hour})
		defer c.Close(context.Background())
		b.faults.Add(fault.Rule{Op: "read", Times: fault.Always, Delay: time.Second})
		before := c.Stats().Collapsed
		got := b.requests(func() {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if _, err := tree.Lookup(t.Context(), path(t, "f")); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
		if len(got) != 2 {
			t.Errorf("requests: %q", got)
		}
		if n := c.Stats().Collapsed - before; n != 49 {
			t.Errorf("%d shared", n)
		}
	})
}

func TestWithoutTimeToLiveEveryQuestionIsAsked(t *testing.T) {
	b := newBucket(t)
	b.put("main/f", "x")
	_, tree := b.open(Options{MetadataTTL: -1})
	for i := range 3 {
		b.put("main/f", strings.Repeat("x", i))
		e, err := tree.Lookup(t.Context(), path(t, "f"))
		if err != nil || e.Size != int64(i) {
			t.Errorf("size %d, %v", e.Size, err)
		}
	}
}

// An answer that was on its way while the name changed here must not be
// taken for the truth afterwards.
func TestAnAnswerFromBeforeAChangeIsNotRemembered(t *testing.T) {
	changes := map[string]struct {
		change func(t *testing.T, tree store.Tree)
		check  func(t *testing.T, tree store.Tree)
	}{
		"created": {
			func(t *testing.T, tree store.Tree) {
				_, err := tree.Mknod(t.Context(), path(t, "d/new"), newAttr, "")
				ok(t, err)
			},
			func(t *testing.T, tree store.Tree) {
				if e, err := tree.Lookup(t.Context(), path(t, "d/new")); err != nil || !e.IsRegular() {
					t.Errorf("%+v, %v", e, err)
				}
			},
		},
		"made": {
			func(t *testing.T, tree store.Tree) {
				_, err := tree.Mkdir(t.Context(), path(t, "d/new"), store.Attr{Mode: store.ModeDir | 0o700})
				ok(t, err)
			},
			func(t *testing.T, tree store.Tree) {
				if e, err := tree.Lookup(t.Context(), path(t, "d/new")); err != nil || !e.IsDir() {
					t.Errorf("%+v, %v", e, err)
				}
			},
		},
		"removed": {
			func(t *testing.T, tree store.Tree) { ok(t, tree.Remove(t.Context(), path(t, "d/old"))) },
			func(t *testing.T, tree store.Tree) { missing(t, tree, "d/old") },
		},
		"renamed": {
			func(t *testing.T, tree store.Tree) {
				ok(t, tree.Rename(t.Context(), path(t, "d/old"), path(t, "d/new"), store.Replace))
			},
			func(t *testing.T, tree store.Tree) {
				missing(t, tree, "d/old")
				if _, err := tree.Lookup(t.Context(), path(t, "d/new")); err != nil {
					t.Error(err)
				}
			},
		},
		"changed": {
			func(t *testing.T, tree store.Tree) {
				mode := uint32(0o600)
				_, err := tree.SetAttr(t.Context(), path(t, "d/old"), store.AttrChange{Mode: &mode})
				ok(t, err)
			},
			func(t *testing.T, tree store.Tree) {
				if e, err := tree.Lookup(t.Context(), path(t, "d/old")); err != nil || e.Mode != store.ModeRegular|0o600 {
					t.Errorf("mode %o, %v", e.Mode, err)
				}
			},
		},
	}
	for what, tt := range changes {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBucket(t)
				b.put("main/d/old", "old")
				c, tree := b.open(Options{MetadataTTL: time.Hour})
				defer c.Close(context.Background())
				// The answers to two lookups and a listing are taken from the
				// bucket now, and arrive late.
				held := make(chan struct{})
				var changing atomic.Bool
				b.faults.Add(fault.Rule{Op: "read", Key: "main/d/*", Times: fault.Always, After: true,
					Do: func(context.Context, *backend.Op) error {
						if !changing.Load() {
							<-held
						}
						return nil
					}})
				var asked sync.WaitGroup
				for _, name := range []string{"d/old", "d/new"} {
					asked.Go(func() { tree.Lookup(t.Context(), path(t, name)) })
				}
				asked.Go(func() {
					for range tree.List(t.Context(), path(t, "d")) {
					}
				})
				synctest.Wait()
				changing.Store(true)
				tt.change(t, tree)
				tt.check(t, tree)
				close(held)
				asked.Wait()
				tt.check(t, tree)
				var names []string
				for e, err := range tree.List(t.Context(), path(t, "d")) {
					ok(t, err)
					names = append(names, e.Name)
				}
				want := map[string]string{"created": "new old", "made": "new old", "removed": "", "renamed": "new", "changed": "old"}[what]
				if got := strings.Join(names, " "); got != want {
					t.Errorf("names %q, want %q", got, want)
				}
			})
		})
	}
}

func TestTheMemoryForNamesIsBounded(t *testing.T) {
	b := newBucket(t)
	for i := range 50 {
		b.put(fmt.Sprintf("main/d/f%02d", i), "x")
	}
	c, tree := b.open(Options{MetadataTTL: time.Hour, MetadataEntries: 20})
	for i := range 50 {
		if _, err := tree.Lookup(t.Context(), path(t, fmt.Sprintf("d/f%02d", i))); err != nil {
			t.Error(err)
		}
	}
	n := 0
	for _, err := range tree.List(t.Context(), path(t, "d")) { // bigger than all the room
		ok(t, err)
		n++
	}
	if s := c.Stats(); n != 50 || s.Entries > 20 || s.Evictions < 30 {
		t.Errorf("%d listed, %+v", n, s)
	}
}

func TestADirectoryChangesItsTimeWithItsEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{})
		defer c.Close(context.Background())
		_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
		_, err = tree.Mkdir(t.Context(), path(t, "e"), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
		steps := []struct {
			name string
			do   func()
			dirs string // that change
		}{
			{"create", func() { closeFile(t, create(t, tree, "d/f", false)) }, "d"},
			{"write", func() {
				f := open(t, tree, "d/f", store.OpenFlags{Write: true})
				write(t, f, 0, "x")
				closeFile(t, f)
			}, ""},
			{"rename", func() { ok(t, tree.Rename(t.Context(), path(t, "d/f"), path(t, "e/f"), store.Replace)) }, "d e"},
			{"mkdir", func() {
				_, err := tree.Mkdir(t.Context(), path(t, "e/sub"), store.Attr{Mode: store.ModeDir | 0o755})
				ok(t, err)
			}, "e"},
			{"rmdir", func() { ok(t, tree.Rmdir(t.Context(), path(t, "e/sub"))) }, "e"},
			{"remove", func() { ok(t, tree.Remove(t.Context(), path(t, "e/f"))) }, "e"},
		}
		for _, s := range steps {
			time.Sleep(time.Minute)
			now := time.Now()
			s.do()
			for _, dir := range []string{"d", "e"} {
				e, err := tree.Lookup(t.Context(), path(t, dir))
				ok(t, err)
				if changed := !e.Mtime.Before(now) && !e.Ctime.Before(now); changed != strings.Contains(s.dirs, dir) {
					t.Errorf("%s: %s has mtime %v, ctime %v; it is %v", s.name, dir, e.Mtime, e.Ctime, now)
				}
			}
		}
		when := time.Unix(1e9, 0)
		_, err = tree.SetAttr(t.Context(), path(t, "e"), store.AttrChange{Mtime: &when})
		ok(t, err)
		e, err := tree.Lookup(t.Context(), path(t, "e"))
		if err != nil || !e.Mtime.Equal(when) {
			t.Errorf("set: %v, %v", e.Mtime, err)
		}
	})
}

func TestAFailedQuestionIsAskedAgain(t *testing.T) {
	b := newBucket(t)
	b.put("main/f", "x")
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	b.faults.Add(fault.Rule{Op: "read", Times: fault.Always, Err: backend.ErrTransient})
	if _, err := tree.Lookup(t.Context(), path(t, "f")); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("error %v", err)
	}
	b.faults.Clear()
	if _, err := tree.Lookup(t.Context(), path(t, "f")); err != nil {
		t.Error(err)
	}
}

func TestAFileThatAnotherHostRemovedIsCreatedAnewWhateverAListingSays(t *testing.T) {
	b := newBucket(t)
	b.put("main/d/other", "x")
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	for _, err := range tree.List(t.Context(), path(t, "d")) {
		ok(t, err)
	}
	closeFile(t, create(t, tree, "d/f", false))
	ok(t, b.raw.Delete(t.Context(), "main/d/f", backend.Cond{}))
	b.faults.Add(fault.Rule{Op: "stat", From: 10, Times: fault.Always, Err: errors.New("asked over and over")})
	closeFile(t, create(t, tree, "d/f", false))
	if got := b.get("main/d/f"); got != "" {
		t.Errorf("object %q", got)
	}
}

func TestADirectoryMadeAnewListsNothingOfTheOneBefore(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{MetadataTTL: time.Hour, SyncDeletes: true})
	p, attr := path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755}
	for round := range 2 {
		_, err := tree.Mkdir(t.Context(), p, attr)
		ok(t, err)
		for e, err := range tree.List(t.Context(), p) {
			t.Errorf("round %d: %+v, %v", round, e, err)
		}
		closeFile(t, create(t, tree, "d/f", false))
		ok(t, tree.Remove(t.Context(), path(t, "d/f")))
		b.put("main/d/theirs", "x")
		if err := tree.Rmdir(t.Context(), p); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("rmdir: %v", err)
		}
		for e, err := range tree.List(t.Context(), p) { // what the bucket has, after it has contradicted
			if e.Name != "theirs" || err != nil {
				t.Errorf("round %d: %+v, %v", round, e, err)
			}
		}
		ok(t, b.raw.Delete(t.Context(), "main/d/theirs", backend.Cond{}))
		ok(t, tree.Rmdir(t.Context(), p))
		missing(t, tree, "d")
		for e, err := range tree.List(t.Context(), p) {
			if !errors.Is(err, store.ErrNotExist) {
				t.Errorf("round %d: %+v, %v", round, e, err)
			}
		}
	}
}
