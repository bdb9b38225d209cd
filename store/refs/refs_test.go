package refs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

func id(n int) string { return fmt.Sprintf("%064x", n) }

// stores are the kinds of stores that refs work on.
func stores(t *testing.T, test func(t *testing.T, b backend.Backend, opts Options)) {
	for name, caps := range map[string]func(*backend.Caps){
		"all conditions": nil,
		"create only":    func(c *backend.Caps) { c.CondOverwrite, c.CondDelete = false, false },
		"none, a single writer": func(c *backend.Caps) {
			c.CondOverwrite, c.CondDelete, c.CondCreate = false, false, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, mem.New("t", mem.Options{Caps: caps}), Options{Host: "h", SingleWriter: strings.HasPrefix(name, "none")})
		})
	}
}

func TestARefAdvancesAndRemembersWhereItWas(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, b backend.Backend, opts Options) {
		ctx := t.Context()
		now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
		opts.Now = func() time.Time { now = now.Add(time.Hour); return now }
		r := New(b, opts)
		if _, err := r.Load(ctx, "main"); !errors.Is(err, backend.ErrNotExist) {
			t.Fatal(err)
		}
		ref, err := r.Create(ctx, "main", Ref{Head: id(1), Base: id(9), Why: "first"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Create(ctx, "main", Ref{}); !errors.Is(err, ErrExist) {
			t.Fatal(err)
		}
		stale := ref
		for i := 2; i < 6; i++ {
			if ref, err = r.Advance(ctx, ref, Ref{Head: id(i), Why: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Advance(ctx, stale, Ref{Head: id(7)}); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		loaded, err := New(b, opts).Load(ctx, "main")
		if err != nil || loaded.Nonce != ref.Nonce || !loaded.Time.Equal(ref.Time) || loaded.Generation != 5 || loaded.Head != id(5) {
			t.Fatal(loaded, ref, err)
		}
		var heads []string
		for ref, err := range r.Log(ctx, "main") {
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, ref.Head[63:])
		}
		if got := strings.Join(heads, ""); got != "54321" {
			t.Error(got)
		}
		at, err := r.At(ctx, "main", ref.Time.Add(-90*time.Minute))
		if err != nil || at.Head == id(5) {
			t.Error(at, err)
		}
		if _, err := r.At(ctx, "main", now.Add(-1000*time.Hour)); !errors.Is(err, backend.ErrNotExist) {
			t.Error(err)
		}

		if err := r.Delete(ctx, ref, "gone"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Load(ctx, "main"); !errors.Is(err, backend.ErrNotExist) {
			t.Fatal(err)
		}
		again, err := r.Create(ctx, "main", Ref{Head: id(8)})
		if err != nil || again.Generation != 7 {
			t.Fatal(again, err)
		}
	})
}

func TestOfManyWhoAdvanceARefOneWins(t *testing.T) {
	t.Parallel()
	for _, overwrite := range []bool{true, false} {
		b := mem.New("t", mem.Options{Caps: func(c *backend.Caps) { c.CondOverwrite = overwrite }})
		const writers, rounds = 8, 10
		if _, err := New(b, Options{}).Create(t.Context(), "main", Ref{}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				r := New(b, Options{})
				for won := 0; won < rounds; {
					ref, err := r.Load(t.Context(), "main")
					if err != nil {
						t.Error(err)
						return
					}
					_, err = r.Advance(t.Context(), ref, Ref{Why: fmt.Sprint(w)})
					if err == nil {
						won++
					} else if !errors.Is(err, ErrLost) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		r := New(b, Options{})
		ref, err := r.Load(t.Context(), "main")
		if err != nil || ref.Generation != 1+writers*rounds {
			t.Error(overwrite, ref, err)
		}
		counts := map[string]int{}
		for ref, err := range r.Log(t.Context(), "main") {
			if err != nil {
				t.Fatal(err)
			}
			counts[ref.Why]++
		}
		for w := range writers {
			if counts[fmt.Sprint(w)] != rounds {
				t.Error(counts)
			}
		}
	}
}

// broken fails writes: before they are made, or after, so that the answer is lost.
type broken struct {
	backend.Backend
	fail func(key string) (before, after bool)
}

func (b *broken) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	before, after := b.fail(key)
	if before {
		return backend.Info{}, backend.Fail("put", key, backend.ErrTransient, nil)
	}
	info, err := b.Backend.Put(ctx, key, src, opts)
	if err == nil && after {
		return backend.Info{}, backend.Fail("put", key, backend.ErrPrecondition, backend.ErrAmbiguous)
	}
	return info, err
}

func TestWhoDiesBetweenLogAndRefIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, b backend.Backend, opts Options) {
		ctx := t.Context()
		dead := false
		r := New(&broken{b, func(key string) (bool, bool) { return dead && strings.HasPrefix(key, Dir), false }}, opts)
		ref, err := r.Create(ctx, "main", Ref{Head: id(1)})
		if err != nil {
			t.Fatal(err)
		}
		dead = true
		if _, err := r.Advance(ctx, ref, Ref{Head: id(2)}); !errors.Is(err, backend.ErrTransient) {
			t.Fatal(err)
		}
		other := New(b, opts)
		if _, err := other.Advance(ctx, ref, Ref{Head: id(3)}); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		ref, err = other.Load(ctx, "main")
		if err != nil || ref.Head != id(2) {
			t.Fatal(ref, err)
		}
		if _, err := r.Advance(ctx, ref, Ref{Head: id(4)}); !errors.Is(err, backend.ErrTransient) {
			t.Fatal(err)
		}
		if _, err := other.Repair(ctx, "main"); err != nil {
			t.Fatal(err)
		}
		if ref, err = other.Load(ctx, "main"); err != nil || ref.Head != id(4) {
			t.Fatal(ref, err)
		}
		if again, err := other.Repair(ctx, "main"); again || err != nil {
			t.Fatal(again, err)
		}
	})
}

// listed runs a hook once, after a listing.
type listed struct {
	backend.Backend
	after func()
}

func (l *listed) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	page, err := l.Backend.ListPage(ctx, opts)
	if after := l.after; after != nil {
		l.after = nil
		after()
	}
	return page, err
}

// Who repairs has seen the log end with the deletion, and then the ref of the
// branch that somebody made anew.
func TestARepairLeavesABranchThatIsMadeAnewMeanwhile(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, b backend.Backend, opts Options) {
		ctx := t.Context()
		r := New(b, opts)
		ref, err := r.Create(ctx, "main", Ref{Head: id(1)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Delete(ctx, ref, "gone"); err != nil {
			t.Fatal(err)
		}
		hook := &listed{Backend: b, after: func() {
			if _, err := r.Create(ctx, "main", Ref{Head: id(2)}); err != nil {
				t.Error(err)
			}
		}}
		if repaired, err := New(hook, opts).Repair(ctx, "main"); repaired || err != nil {
			t.Errorf("repaired %v, %v", repaired, err)
		}
		if there, err := backend.Exists(ctx, b, key("main")); err != nil || !there {
			t.Errorf("the ref is there: %v, %v", there, err)
		}
		if ref, err := r.Load(ctx, "main"); err != nil || ref.Head != id(2) {
			t.Error(ref, err)
		}
	})
}

func TestAnAnswerThatGotLostIsNoLostRace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := mem.New("t", mem.Options{})
	r := New(&broken{b, func(string) (bool, bool) { return false, true }}, Options{})
	ref, err := r.Create(ctx, "main", Ref{Head: id(1)})
	if err != nil {
		t.Fatal(err)
	}
	if ref, err = r.Advance(ctx, ref, Ref{Head: id(2)}); err != nil {
		t.Fatal(err)
	}
	if ref, err = r.Advance(ctx, ref, Ref{Head: id(3)}); err != nil || ref.Generation != 3 {
		t.Fatal(ref, err)
	}
	if _, err := r.CreateTag(ctx, "v1", id(3), ""); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreWithoutConditionsIsRefusedUnlessAlone(t *testing.T) {
	t.Parallel()
	b := mem.New("t", mem.Options{Caps: func(c *backend.Caps) { c.CondCreate, c.CondOverwrite = false, false }})
	if _, err := New(b, Options{}).Create(t.Context(), "main", Ref{}); !errors.Is(err, ErrNoConditions) {
		t.Error(err)
	}
}

func TestTagsAreMadeOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := New(mem.New("t", mem.Options{}), Options{})
	if _, err := r.CreateTag(ctx, "v1", id(1), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateTag(ctx, "v1", id(2), ""); !errors.Is(err, ErrExist) {
		t.Error(err)
	}
	tag, err := r.LoadTag(ctx, "v1")
	if err != nil || tag.Commit != id(1) {
		t.Error(tag, err)
	}
	if err := r.DeleteTag(ctx, "v1"); err != nil {
		t.Error(err)
	}
	if _, err := r.LoadTag(ctx, "v1"); !errors.Is(err, backend.ErrNotExist) {
		t.Error(err)
	}
}

func TestRevisionsAreReadAsWritten(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.FixedZone("", 3600))
	for s, want := range map[string]Rev{
		"main":                   {Name: "main"},
		"main~2":                 {Name: "main", Back: 2},
		"main@~2":                {Name: "main", Back: 2},
		"main@2h":                {Name: "main", When: now.Add(-2 * time.Hour)},
		"main@2h~1":              {Name: "main", When: now.Add(-2 * time.Hour), Back: 1},
		"main@yesterday":         {Name: "main", When: now.Add(-24 * time.Hour)},
		"main@2026-11-19":        {Name: "main", When: time.Date(2026, 11, 19, 0, 0, 0, 0, now.Location())},
		"main@2026-11-20T10:00":  {Name: "main", When: now.Add(-2 * time.Hour)},
		"main@2026-11-20T10:00Z": {Name: "main", When: now.Add(-time.Hour)},
		"main@3f2a":              {Name: "main", At: "3f2a"},
		"main@v1.0":              {Name: "main", At: "v1.0"},
		"a~b":                    {Name: "a~b"},
	} {
		got, err := ParseRev(s, now)
		if err != nil || got.Name != want.Name || got.At != want.At || got.Back != want.Back || !got.When.Equal(want.When) {
			t.Errorf("%q: %+v %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "@", "@2h", "main@", "a/b", "main@x/y", "main@x@y", ".kei", "..", "~2"} {
		if _, err := ParseRev(s, now); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"branch":"main","generation":1,"nonce":"n","head":"","base":"","time":"2026-11-20T10:00:00Z","host":"h"}`))
	f.Add([]byte(`{"format":1,"name":"v1","commit":"` + id(3) + `","time":"2026-11-20T10:00:00Z","host":"h"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ref, err := Parse(data)
		if err == nil && (CheckName(ref.Branch) != nil || ref.Head != "" && !validID(ref.Head)) {
			t.Error(ref)
		}
		tag, tagErr := ParseTag(data)
		if tagErr == nil && CheckName(tag.Name) != nil {
			t.Error(tag)
		}
		for _, err := range []error{err, tagErr} {
			if err != nil && !errors.Is(err, backend.ErrCorrupt) {
				t.Error(err)
			}
		}
	})
}

func FuzzParseRev(f *testing.F) {
	f.Add("main@2h~3")
	f.Add("main@../x")
	f.Fuzz(func(t *testing.T, s string) {
		rev, err := ParseRev(s, time.Unix(0, 0))
		if err == nil && (CheckName(rev.Name) != nil || strings.ContainsAny(rev.At, "/\x00")) {
			t.Errorf("%q: %+v", s, rev)
		}
	})
}

func TestARefIsNotChangedMoreOftenThanTheStoreTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		b := mem.New("t", mem.Options{Caps: func(c *backend.Caps) { c.ChangeEvery = time.Second }})
		r := New(b, Options{Host: "h"})
		ref, err := r.Create(ctx, "main", Ref{Head: id(1)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Create(ctx, "other", Ref{Head: id(1)}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i := range 3 {
			if ref, err = r.Advance(ctx, ref, Ref{Head: id(i + 2)}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("three changes at once took %v", took)
		}
		time.Sleep(time.Minute)
		began = time.Now()
		if ref, err = r.Advance(ctx, ref, Ref{Head: id(7)}); err != nil || time.Since(began) != 0 {
			t.Errorf("a change after a minute waited %v; %v", time.Since(began), err)
		}
		// A host whose clock is ahead makes nobody wait longer.
		ahead := *ref
		ahead.Time = ahead.Time.Add(time.Hour)
		if ref, err = r.Advance(ctx, &ahead, Ref{Head: id(8)}); err != nil || time.Since(began) != time.Second {
			t.Errorf("waited %v; %v", time.Since(began), err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := r.Advance(cancelled, ref, Ref{Head: id(9)}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
