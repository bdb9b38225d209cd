package history

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
)

// TestWhoDiesAnywhereLosesNothing ends a client at each write of a commit, a
// merge, a restore, a reset and a collection of garbage in turn.
func TestWhoDiesAnywhereLosesNothing(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(c *client) error{
		"commit": func(c *client) error {
			_, err := c.Commit(c.t.Context(), "main", CommitOptions{Message: "again"})
			if errors.Is(err, ErrNothing) {
				return nil // the one that died had done it
			}
			return err
		},
		"merge": func(c *client) error {
			theirs, err := c.Find(c.t.Context(), "dev")
			if err != nil {
				return err
			}
			if _, err := c.Merge(c.t.Context(), theirs, "main", MergeOptions{}); !errors.Is(err, ErrUpToDate) {
				return err
			}
			return nil
		},
		"restore": func(c *client) error {
			to, err := c.Find(c.t.Context(), "first")
			if err != nil {
				return err
			}
			_, err = c.Restore(c.t.Context(), to, "main", nil, RestoreOptions{})
			return err
		},
		"reset": func(c *client) error {
			to, err := c.Find(c.t.Context(), "first")
			if err != nil {
				return err
			}
			return c.Reset(c.t.Context(), "main", to, "reset", RestoreOptions{})
		},
		"gc": func(c *client) error {
			_, err := c.Collect(c.t.Context(), atOnceOld)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := scenario(t, name, run, fault.Rule{From: 1 << 20}, nil)
			for n := 1; ; n++ {
				fired := false
				// To die before a write is to die after the one before it.
				dies := fault.Rule{Op: "write", From: n, Times: fault.Always, Err: backend.ErrTransient, After: true}
				scenario(t, fmt.Sprintf("%s, write %d", name, n), run, dies, func(in *fault.Injector, got map[string]string) {
					fired = in.Fired() > 0
					if !maps.Equal(got, want) {
						t.Errorf("%s dies after write %d: %v in the end, want %v", name, n, got, want)
					}
				})
				if !fired {
					t.Logf("%d writes", n-1)
					return
				}
			}
		})
	}
}

// scenario has one client die by a rule, and another look and go on. It returns
// what the branch has in the end.
func scenario(t *testing.T, name string, run func(*client) error, rule fault.Rule, check func(*fault.Injector, map[string]string)) map[string]string {
	t.Helper()
	w, raw := &world{}, mem.New("b", mem.Options{})
	in := fault.New()
	victim, other := w.client(t, in.Wrap(raw), "victim"), w.client(t, raw, "other")
	for _, f := range []string{"a", "b", "d/c", "d/e"} {
		other.put("main/"+f, "1")
	}
	first := other.commit("main", "first")
	if err := other.Tag(t.Context(), "first", first, ""); err != nil {
		t.Fatal(err)
	}
	other.fork("dev", first)
	other.put("dev/a", "dev")
	other.put("dev/new", "dev")
	other.delete("dev/d/c")
	dev := other.commit("dev", "dev")
	other.put("main/b", "2")
	other.put("main/more", "2")
	second := other.commit("main", "second")
	if name[0] == 'c' {
		other.put("main/b", "3")
		other.delete("main/more")
	}
	if strings.HasPrefix(name, "gc") {
		other.put("dev/a", "lost")
		other.commit("dev", "lost")
		other.put("dev/a", "again")
		if err := other.Reset(t.Context(), "dev", dev, "reset", RestoreOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]map[string]string{}
	for _, id := range []string{first.ID, dev.ID, second.ID} {
		before[id] = other.tree("main@" + id)
	}
	in.Add(rule)
	err := run(victim)
	if err != nil && rule.Err != nil && !errors.Is(err, rule.Err) {
		t.Logf("%s: %v", name, err)
	}
	if err := w.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Where the ref is not what its log says, the next one moves it.
	report, err := other.Fsck(t.Context(), FsckOptions{Repair: len(name)%2 == 0})
	for _, p := range report.Problems {
		if err != nil || p.Kind != "ref" {
			t.Errorf("%s: fsck: %+v %v", name, p, err)
		}
	}
	for id, want := range before {
		if got := other.tree("main@" + id); !maps.Equal(got, want) {
			t.Errorf("%s: a commit changed: %v, was %v", name, got, want)
		}
	}
	if err := run(other); err != nil {
		t.Errorf("%s: going on: %v", name, err)
	}
	other.clean()
	got := other.tree("main")
	if check != nil {
		check(in, got)
	}
	return got
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
