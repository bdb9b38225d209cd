package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func TestPathLocksLetOnlyWhatConflictsWait(t *testing.T) {
	for _, c := range []struct {
		name     string
		tree     bool
		path     string
		conflict bool
	}{
		{"the path itself", false, "main/a/b", true},
		{"another path", false, "main/a/c", false},
		{"a path below it", false, "main/a/b/c", false},
		{"its parent alone", false, "main/a", false},
		{"the tree of its parent", true, "main/a", true},
		{"the tree of everything", true, "", true},
		{"the tree of a sibling with the same beginning", true, "main/a/bb", false},
		{"a tree below it", true, "main/a/b/c", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l pathLocks
				release, err := l.one(t.Context(), "main/a/b")
				if err != nil {
					t.Fatal(err)
				}
				got := false
				go func() {
					claim := l.one
					if c.tree {
						claim = func(ctx context.Context, p string) (func(), error) { return l.tree(ctx, p) }
					}
					release, err := claim(t.Context(), c.path)
					if err != nil {
						t.Error(err)
						return
					}
					got = true
					release()
				}()
				synctest.Wait()
				if got == c.conflict {
					t.Errorf("claimed at once: %v", got)
				}
				release()
				synctest.Wait()
				if !got {
					t.Error("never claimed")
				}
			})
		})
	}
}

func TestPathLocksAreFairAndEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l pathLocks
		var mu sync.Mutex
		var order []string
		claim := func(ctx context.Context, name, path string) {
			release, err := l.tree(ctx, path)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				order = append(order, name+" gave up")
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			order = append(order, name)
			release()
		}
		ctx, cancel := context.WithCancel(t.Context())
		release, _ := l.one(ctx, "a/b")
		go claim(ctx, "tree", "a")
		synctest.Wait()
		go claim(t.Context(), "late", "a/c") // free, but behind the tree
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("overtaken: %v", order)
		}
		cancel()
		synctest.Wait()
		release()
		synctest.Wait()
		if len(order) != 2 || order[0] != "tree gave up" || order[1] != "late" || len(l.claims) != 0 {
			t.Errorf("%v, %d claims left", order, len(l.claims))
		}
	})
}
