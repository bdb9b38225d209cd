package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/keifs/keifs/store"
)

func path(t testing.TB, s string) store.Path {
	t.Helper()
	p, err := store.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestClaimsConflictOnlyWhereTheyMeet(t *testing.T) {
	ex := func(s string) claim { return exclusive(path(t, s)) }
	sh := func(s string) claim { return shared(path(t, s)) }
	sub := func(s string) claim { return subtree(path(t, s)) }
	for _, tt := range []struct {
		a, b claim
		want bool
	}{
		{ex("a"), ex("a"), true},
		{ex("a"), ex("b"), false},
		{ex("a"), ex("a/b"), false},
		{sh("a"), sh("a"), false},
		{sh("a"), ex("a"), true},
		{sub("a"), ex("a"), true},
		{sub("a"), ex("a/b/c"), true},
		{sub("a"), sh("a/b"), true},
		{sub("a"), ex("ab"), false},
		{sub("a"), ex(""), false},
		{sub(""), ex("a"), true},
		{sub("a/b"), sub("a"), true},
	} {
		a, b := &ticket{claims: []claim{tt.a}}, &ticket{claims: []claim{tt.b}}
		if a.conflicts(b) != tt.want || b.conflicts(a) != tt.want {
			t.Errorf("%+v and %+v: conflict %v, want %v", tt.a, tt.b, a.conflicts(b), tt.want)
		}
	}
}

func TestClaimsAreGrantedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		var order []string
		first, err := g.take(t.Context(), shared(path(t, "d/f")))
		if err != nil {
			t.Fatal(err)
		}
		take := func(name string, claims ...claim) {
			go func() {
				release, err := g.take(t.Context(), claims...)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, name)
				release()
			}()
			synctest.Wait()
		}
		take("rename", subtree(path(t, "d")), subtree(path(t, "e")))
		take("late reader", shared(path(t, "d/f"))) // would fit, but must not starve the rename
		take("elsewhere", exclusive(path(t, "g")))
		if len(order) != 1 || order[0] != "elsewhere" {
			t.Fatalf("before the release: %q", order)
		}
		first()
		synctest.Wait()
		if len(order) != 3 || order[1] != "rename" || order[2] != "late reader" {
			t.Fatalf("after the release: %q", order)
		}
	})
}

func TestAWaiterThatGivesUpBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		first, _ := g.take(t.Context(), shared(path(t, "f")))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if _, err := g.take(ctx, exclusive(path(t, "f"))); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		second, err := g.take(t.Context(), shared(path(t, "f")))
		if err != nil {
			t.Fatal(err)
		}
		first()
		second()
		if len(g.queue) != 0 {
			t.Errorf("%d claims left", len(g.queue))
		}
	})
}
