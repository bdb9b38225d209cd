package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/commit"
)

// swept is something whose requests fail in turn.
type swept struct {
	branch  string // that it changes
	prepare func(*client, *prepared)
	run     func(context.Context, *client, *prepared) error
}

// prepared is a bucket with main, of which dev was made, and the commits that
// have to stay as they are.
type prepared struct {
	raw                backend.Backend
	first, dev, second *commit.Manifest
	trees              map[string]map[string]string // by id
}

// TestAFailureAnywhereLosesNothing fails each request in turn of whatever
// changes the history or works by it, once before it is carried out, once
// after, when its answer gets lost, and once so that the client is dead from then
// on. Then nothing is missing, and another client goes on.
func TestAFailureAnywhereLosesNothing(t *testing.T) {
	t.Parallel()
	for name, op := range map[string]swept{
		"commit":          {"main", edit, commitAgain},
		"merge":           {"main", nil, mergeOf(func(p *prepared) *commit.Manifest { return p.dev }, "main")},
		"merge, based":    {"dev", nil, mergeOf(func(p *prepared) *commit.Manifest { return p.second }, "dev")},
		"restore":         {"main", nil, restore},
		"reset, based":    {"dev", nil, resetOf("dev")},
		"materialization": {"dev", edit, materialize},
		"collection":      {"dev", litter, collect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepare(t, op)
			want, _ := p.try(t, name, op, fault.Rule{From: 1 << 20})
			for mode, rule := range map[string]fault.Rule{
				"fails":            {},
				"loses its answer": {Op: "write", After: true},
				"was the last":     {Op: "write", After: true, Times: fault.Always}, // to die before one is to die after the one before
			} {
				rule.Err = backend.ErrTransient
				for rule.From = 1; ; rule.From++ {
					what := fmt.Sprintf("%s: request %d %s", name, rule.From, mode)
					got, fired := p.try(t, what, op, rule)
					if !maps.Equal(got, want) {
						t.Errorf("%s: %v in the end, want %v", what, got, want)
					}
					if !fired {
						t.Logf("%d requests, each of which %s", rule.From-1, mode)
						break
					}
				}
			}
		})
	}
}

// prepare makes the bucket that op begins with.
func prepare(t *testing.T, op swept) *prepared {
	t.Helper()
	p := &prepared{raw: mem.New("b", mem.Options{}), trees: map[string]map[string]string{}}
	c := new(world).client(t, p.raw, "before")
	for _, f := range []string{"a", "b", "d/c", "d/e"} {
		c.put("main/"+f, "1")
	}
	p.first = c.commit("main", "first")
	c.fork("dev", p.first)
	c.put("dev/a", "dev")
	c.put("dev/new", "dev")
	c.delete("dev/d/c")
	p.dev = c.commit("dev", "dev")
	c.put("main/b", "2")
	c.put("main/more", "2")
	p.second = c.commit("main", "second")
	if op.prepare != nil {
		op.prepare(c, p)
	}
	for _, m := range []*commit.Manifest{p.first, p.dev, p.second} {
		p.trees[m.ID] = c.committed(m)
	}
	return p
}

// try has one client fail by the rule, and another look and go on. It returns
// what the branch has in the end, and whether there was a failure.
func (p *prepared) try(t *testing.T, what string, op swept, rule fault.Rule) (tree map[string]string, fired bool) {
	t.Helper()
	w, raw, in := &world{}, mem.Clone(p.raw), fault.New()
	victim, other := w.client(t, in.Wrap(raw), "victim"), w.client(t, raw, "other")
	other.pace.look, other.pace.dead = 0, 0
	in.Add(rule)
	if err := op.run(t.Context(), victim, p); err != nil && (in.Fired() == 0 || !errors.Is(err, backend.ErrTransient)) {
		t.Errorf("%s: %v", what, err)
	}
	if err := w.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := other.Fsck(t.Context(), FsckOptions{})
	for _, problem := range report.Problems {
		if err != nil || problem.Kind != "ref" { // which the next one moves to where its log is
			t.Errorf("%s: fsck: %+v %v", what, problem, err)
		}
	}
	if err := op.run(t.Context(), other, p); err != nil {
		t.Errorf("%s: going on: %v", what, err)
	}
	for id, want := range p.trees {
		if got := other.tree("main@" + id); !maps.Equal(got, want) {
			t.Errorf("%s: a commit changed: %v, was %v", what, got, want)
		}
	}
	if fired := in.Fired() > 0; !fired || rule.Times == 0 && !rule.After {
		other.clean()
	}
	return other.tree(op.branch), in.Fired() > 0
}

// edit leaves changes that are in no commit.
func edit(c *client, _ *prepared) {
	c.put("main/b", "3")
	c.delete("main/more")
	c.put("dev/d/e", "3")
}

// litter leaves a commit that nothing names, and its pin.
func litter(c *client, p *prepared) {
	c.put("dev/a", "lost")
	c.commit("dev", "lost")
	c.put("dev/a", "again")
	if err := c.Reset(c.t.Context(), "dev", p.dev, "reset", RestoreOptions{Force: true}); err != nil {
		c.t.Fatal(err)
	}
}

func commitAgain(ctx context.Context, c *client, _ *prepared) error {
	_, err := c.Commit(ctx, "main", CommitOptions{Message: "again"})
	if errors.Is(err, ErrNothing) {
		return nil // the one that failed had done it
	}
	return err
}

func mergeOf(from func(*prepared) *commit.Manifest, into string) func(context.Context, *client, *prepared) error {
	return func(ctx context.Context, c *client, p *prepared) error {
		_, err := c.Merge(ctx, from(p), into, MergeOptions{})
		if errors.Is(err, ErrUpToDate) {
			return nil
		}
		return err
	}
}

func restore(ctx context.Context, c *client, p *prepared) error {
	_, err := c.Restore(ctx, p.first, "main", nil, RestoreOptions{})
	return err
}

func resetOf(branch string) func(context.Context, *client, *prepared) error {
	return func(ctx context.Context, c *client, p *prepared) error {
		return c.Reset(ctx, branch, p.first, "reset", RestoreOptions{})
	}
}

func materialize(ctx context.Context, c *client, _ *prepared) error {
	_, err := c.Materialize(ctx, "dev", nil)
	return err
}

func collect(ctx context.Context, c *client, _ *prepared) error {
	_, err := c.Collect(ctx, atOnceOld)
	return err
}

func TestTwoCommitsAtOnceAreBothInTheHistory(t *testing.T) {
	t.Parallel()
	w, raw := &world{}, mem.New("b", mem.Options{})
	clients := []*client{w.client(t, raw, "one"), w.client(t, raw, "two")}
	clients[0].put("main/start", "1")
	clients[0].commit("main", "start")
	for round := range 5 {
		var wg sync.WaitGroup
		for i, c := range clients {
			wg.Go(func() {
				c.put(fmt.Sprintf("main/%d-%d", i, round), "x")
				_, err := c.Commit(t.Context(), "main", CommitOptions{Message: fmt.Sprint(i, round)})
				if err != nil && !errors.Is(err, ErrNothing) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		head, err := clients[0].Find(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		if head.Entries != int64(1+2*(round+1)) {
			t.Errorf("round %d: the head has %d entries", round, head.Entries)
		}
		ref, err := clients[0].refs.Load(t.Context(), "main")
		if err != nil || ref.Committing != "" {
			t.Errorf("a mark is left: %+v %v", ref, err)
		}
	}
	clients[0].clean()
}
