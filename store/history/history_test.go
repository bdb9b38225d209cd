package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
)

// world is a bucket and its clients. Instead of waiting until no client goes by
// an old ref, a commit makes all of them forget it, between their changes.
type world struct {
	mu      sync.RWMutex // held for reading by who changes something
	clients []*client
}

func (w *world) settle(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		c.st.Bucket().Forget()
	}
	return nil
}

// client is one host: a store of its own over a bucket.
type client struct {
	t testing.TB
	*Repo
	w *world
}

// small makes ranges of a few entries.
var small = commit.Options{MinEntries: 4, MaxEntries: 40, CutBits: 3}

func (w *world) client(t testing.TB, raw backend.Backend, host string) *client {
	t.Helper()
	caps := raw.Caps() // nothing to probe
	st, err := store.Open(t.Context(), raw, store.Options{Caps: &caps, Host: host, UID: 1000, GID: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, New(raw, st, Options{Host: host, Commit: small, Settle: w.settle}), w}
	w.clients = append(w.clients, c)
	return c
}

func (c *client) put(key, content string) {
	c.t.Helper()
	c.w.mu.RLock()
	defer c.w.mu.RUnlock()
	if _, err := c.st.Bucket().Put(c.t.Context(), key, backend.Bytes([]byte(content)), backend.PutOptions{}); err != nil {
		c.t.Fatal(key, err)
	}
}

func (c *client) delete(key string) {
	c.t.Helper()
	c.w.mu.RLock()
	defer c.w.mu.RUnlock()
	if err := c.st.Bucket().Delete(c.t.Context(), key, backend.Cond{}); err != nil {
		c.t.Fatal(key, err)
	}
}

func (c *client) commit(branch, message string) *commit.Manifest {
	c.t.Helper()
	m, err := c.Commit(c.t.Context(), branch, CommitOptions{Message: message})
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// tree is what a branch, or a revision, has, by path.
func (c *client) tree(branch string) map[string]string {
	c.t.Helper()
	tree := map[string]string{}
	for info, err := range backend.ListRecursive(c.t.Context(), c.st.Bucket(), branch+"/") {
		if err != nil {
			c.t.Fatal(branch, err)
		}
		tree[strings.TrimPrefix(info.Key, branch+"/")] = c.read(info.Key)
	}
	return tree
}

func (c *client) read(key string) (content string) {
	c.t.Helper()
	err := c.st.Bucket().Get(c.t.Context(), key, backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
		data, err := io.ReadAll(body)
		content = string(data)
		return err
	})
	if err != nil {
		c.t.Fatal(key, err)
	}
	return content
}

func (c *client) clean() {
	c.t.Helper()
	report, err := c.Fsck(c.t.Context(), FsckOptions{})
	if err != nil || len(report.Problems) > 0 {
		c.t.Fatalf("fsck: %+v %v", report, err)
	}
}

func TestACommitIsWhatTheBranchWas(t *testing.T) {
	t.Parallel()
	c := new(world).client(t, mem.New("b", mem.Options{}), "h")
	if _, err := c.Commit(t.Context(), "main", CommitOptions{}); !errors.Is(err, store.ErrNotExist) {
		t.Fatal(err)
	}
	c.put("main/a", "1")
	c.put("main/d/b", "2")
	first := c.commit("main", "first")
	if _, err := c.Commit(t.Context(), "main", CommitOptions{}); !errors.Is(err, ErrNothing) {
		t.Fatal(err)
	}
	c.put("main/a", "changed")
	c.delete("main/d/b")
	c.put("main/new", "3")
	second := c.commit("main", "second")
	c.delete("main/a")
	for rev, want := range map[string]map[string]string{
		"main@" + first.ID:      {"a": "1", "d/b": "2"},
		"main@" + first.ID[:8]:  {"a": "1", "d/b": "2"},
		"main@~1":               {"a": "1", "d/b": "2"},
		"main@" + second.ID[:8]: {"a": "changed", "new": "3"},
		"main":                  {"new": "3"},
	} {
		if got := c.w.client(t, c.raw, "other").tree(rev); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", rev, got, want)
		}
	}
	if second.Parents[0] != first.ID || second.Entries != 2 {
		t.Errorf("%+v", second)
	}
	c.clean()
}

func TestAMergeBringsWhatChangedAndRefusesWhatBothChanged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := new(world).client(t, mem.New("b", mem.Options{}), "h")
	for _, name := range []string{"kept", "ours", "theirs", "both", "gone"} {
		c.put("main/"+name, name)
	}
	base := c.commit("main", "base")
	c.fork("dev", base)
	c.put("dev/theirs", "dev's")
	c.put("dev/both", "dev's")
	c.put("dev/added", "dev's")
	c.delete("dev/gone")
	theirs := c.commit("dev", "dev")
	c.put("main/ours", "main's")
	c.put("main/both", "main's")
	c.commit("main", "main")

	before := c.tree("main")
	_, err := c.Merge(ctx, theirs, "main", MergeOptions{})
	if e, ok := errors.AsType[*ConflictError](err); !ok || !slices.Equal(e.Paths, []string{"both"}) {
		t.Fatal(err)
	}
	c.put("main/theirs", "not committed")
	_, err = c.Merge(ctx, theirs, "main", MergeOptions{Strategy: Theirs})
	if e, ok := errors.AsType[*UncommittedError](err); !ok || !slices.Equal(e.Paths, []string{"theirs"}) {
		t.Fatal(err)
	}
	c.put("main/theirs", "theirs")
	if !maps.Equal(c.tree("main"), before) {
		t.Fatal("a refused merge touched something")
	}
	c.commit("main", "again") // its time changed
	m, err := c.Merge(ctx, theirs, "main", MergeOptions{Strategy: KeepBoth})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"kept": "kept", "ours": "main's", "theirs": "theirs", "both": "main's", "added": "dev's",
		"both.conflict-" + theirs.ID[:8]: "dev's", "theirs.conflict-" + theirs.ID[:8]: "dev's",
	}
	if got := c.tree("main"); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := c.tree("main@" + m.ID); !maps.Equal(got, want) {
		t.Errorf("commit: %v, want %v", got, want)
	}
	if _, err := c.Commit(ctx, "main", CommitOptions{}); !errors.Is(err, ErrNothing) {
		t.Error("after a merge there is something to commit:", err)
	}
	if _, err := c.Merge(ctx, theirs, "main", MergeOptions{}); !errors.Is(err, ErrUpToDate) {
		t.Error(err)
	}
	if _, err := c.Undo(ctx, "main", RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := c.tree("main"); !maps.Equal(got, before) {
		t.Errorf("undone: %v, want %v", got, before)
	}
	c.clean()
}

// While a merge is under way, another host changes a file that it was to bring.
func TestAMergeThatIsRefusedHalfWayTakesBackWhatItBrought(t *testing.T) {
	t.Parallel()
	raw := mem.New("b", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "other")
	for _, name := range []string{"changed", "both", "gone", "kept"} {
		c.put("main/"+name, name)
	}
	c.fork("dev", c.commit("main", "base"))
	c.put("dev/changed", "dev's")
	c.put("dev/both", "dev's")
	c.put("dev/added", "dev's")
	c.delete("dev/gone")
	theirs := c.commit("dev", "dev")

	var others sync.WaitGroup // steps
	others.Add(3)
	in := fault.New()
	for key, op := range map[string]string{"changed": "copy", "added": "copy", "gone": "delete"} {
		in.Add(fault.Rule{Op: op, Key: "main/" + key, After: true, Do: func(context.Context, *backend.Op) error {
			others.Done()
			return nil
		}})
	}
	in.Add(fault.Rule{Op: "copy", Key: "main/both", Do: func(context.Context, *backend.Op) error {
		others.Wait()
		c.put("main/both", "main's")
		return nil
	}})
	_, err := w.client(t, in.Wrap(raw), "merging").Merge(t.Context(), theirs, "main", MergeOptions{})
	if e, ok := errors.AsType[*UncommittedError](err); !ok || !slices.Equal(e.Paths, []string{"both"}) {
		t.Fatal(err)
	}
	want := map[string]string{"changed": "changed", "both": "main's", "gone": "gone", "kept": "kept"}
	if got := c.tree("main"); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.commit("main", "mine")
	if _, err := c.Merge(t.Context(), theirs, "main", MergeOptions{Strategy: Ours}); err != nil {
		t.Error(err)
	}
	want = map[string]string{"changed": "dev's", "both": "main's", "kept": "kept", "added": "dev's"}
	if got := c.tree("main"); !maps.Equal(got, want) {
		t.Errorf("in the end: %v, want %v", got, want)
	}
	c.clean()
}

func TestRestoreBringsBackAndGoesOverNothingUnasked(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := new(world).client(t, mem.New("b", mem.Options{}), "h")
	c.put("main/a", "1")
	c.put("main/d/b", "1")
	c.put("main/dx", "1")
	first := c.commit("main", "first")
	c.put("main/a", "2")
	c.put("main/d/b", "2")
	c.put("main/d/c", "2")
	c.commit("main", "second")
	if n, err := c.Restore(ctx, first, "main", []string{"d"}, RestoreOptions{}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if got := c.tree("main"); !maps.Equal(got, map[string]string{"a": "2", "d/b": "1", "dx": "1"}) {
		t.Error(got)
	}
	c.put("main/a", "3")
	if _, err := c.Restore(ctx, first, "main", []string{"a"}, RestoreOptions{}); errors.As(err, new(*UncommittedError)) == false {
		t.Error(err)
	}
	if _, err := c.Restore(ctx, first, "main", []string{"none"}, RestoreOptions{}); !errors.Is(err, store.ErrNotExist) {
		t.Error(err)
	}
	if _, err := c.Restore(ctx, first, "main", []string{"a"}, RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.read("main/a"); got != "1" {
		t.Error(got)
	}
	if err := c.Reset(ctx, "main", first, "reset", RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.tree("main"); !maps.Equal(got, map[string]string{"a": "1", "d/b": "1", "dx": "1"}) {
		t.Error(got)
	}
	c.clean()
}

// fork makes a branch of a commit.
func (c *client) fork(name string, from *commit.Manifest) {
	c.t.Helper()
	if err := c.Fork(c.t.Context(), name, from, time.Time{}); err != nil {
		c.t.Fatal(err)
	}
	if err := c.w.settle(c.t.Context()); err != nil { // that there is no such branch
		c.t.Fatal(err)
	}
}

// TestNoCommitEverChanges makes random changes, commits, merges, resets, restores,
// materializations and collections of garbage by two clients, some of them while
// the other commits. Longer, or once more: KEIFS_TEST_STEPS, KEIFS_TEST_SEED.
func TestNoCommitEverChanges(t *testing.T) {
	t.Parallel()
	steps, seed := 2000, rand.Uint64()
	for name, value := range map[string]any{"KEIFS_TEST_STEPS": &steps, "KEIFS_TEST_SEED": &seed} {
		if s := os.Getenv(name); s != "" {
			if _, err := fmt.Sscan(s, value); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	t.Logf("seed %d, %d steps", seed, steps)
	rnd := rand.New(rand.NewPCG(seed, 3))
	raw := mem.New("b", mem.Options{})
	w := &world{}
	clients := []*client{w.client(t, raw, "one"), w.client(t, raw, "two")}
	branches := []string{"main"}
	model := map[string]map[string]string{"main": {}}
	commits := map[string]map[string]string{} // by id
	ids := []string{}
	note := func(m *commit.Manifest, tree map[string]string) {
		if _, ok := commits[m.ID]; !ok {
			ids = append(ids, m.ID)
		}
		commits[m.ID] = maps.Clone(tree)
	}
	change := func(c *client, branch string, step int) {
		path := fmt.Sprintf("d%d/f%d", rnd.IntN(4), rnd.IntN(10))
		if rnd.IntN(3) == 0 {
			c.delete(branch + "/" + path)
			delete(model[branch], path)
			return
		}
		content := fmt.Sprint(step)
		c.put(branch+"/"+path, content)
		model[branch][path] = content
	}
	for range 5 {
		change(clients[0], "main", -1)
	}
	clients[0].put("main/always", "there")
	model["main"]["always"] = "there"
	for step := range steps {
		c, other := clients[step%2], clients[1-step%2]
		branch := branches[rnd.IntN(len(branches))]
		switch n := rnd.IntN(64); {
		case n < 53:
			change(c, branch, step)
		case n < 55:
			m, err := c.Commit(t.Context(), branch, CommitOptions{Message: fmt.Sprint(step)})
			if err == nil {
				note(m, model[branch])
			} else if !errors.Is(err, ErrNothing) {
				t.Fatal(step, err)
			}
		case n < 57: // while the other changes something
			var m *commit.Manifest
			var err error
			var wg sync.WaitGroup
			wg.Go(func() { m, err = c.Commit(t.Context(), branch, CommitOptions{Message: fmt.Sprint(step)}) })
			for range rnd.IntN(4) {
				change(other, branch, step)
			}
			wg.Wait()
			if err == nil {
				note(m, c.committed(m))
			} else if !errors.Is(err, ErrNothing) {
				t.Fatal(step, err)
			}
		case n == 57 && len(ids) > 0 && len(branches) < 5:
			name := fmt.Sprintf("b%d", step)
			id := ids[rnd.IntN(len(ids))]
			m, err := c.commits.Manifest(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			c.fork(name, m)
			branches = append(branches, name)
			model[name] = maps.Clone(commits[id])
		case n == 58 && len(ids) > 0:
			m, err := c.commits.Manifest(t.Context(), ids[rnd.IntN(len(ids))])
			if err != nil {
				t.Fatal(err)
			}
			merged, err := c.Merge(t.Context(), m, branch, MergeOptions{Strategy: Strategy(rnd.IntN(4))})
			switch {
			case err == nil:
				model[branch] = other.tree(branch)
				note(merged, other.committed(merged))
			case errors.Is(err, ErrUpToDate), errors.Is(err, backend.ErrNotExist),
				errors.As(err, new(*ConflictError)), errors.As(err, new(*UncommittedError)):
			default:
				t.Fatal(step, err)
			}
		case n == 59 && len(ids) > 0:
			id := ids[rnd.IntN(len(ids))]
			m, err := c.commits.Manifest(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Reset(t.Context(), branch, m, "reset", RestoreOptions{Force: true})
			if err == nil {
				model[branch] = maps.Clone(commits[id])
			} else if !errors.Is(err, backend.ErrNotExist) {
				t.Fatal(step, err)
			}
		case n == 62 && len(ids) > 0: // a restore of one path, a directory, or all
			id := ids[rnd.IntN(len(ids))]
			m, err := c.commits.Manifest(t.Context(), id)
			if err != nil {
				t.Fatal(step, err)
			}
			path := []string{"", fmt.Sprintf("d%d", rnd.IntN(4)), fmt.Sprintf("d%d/f%d", rnd.IntN(4), rnd.IntN(10))}[rnd.IntN(3)]
			paths := []string{path}
			if path == "" {
				paths = nil
			}
			want := maps.Clone(model[branch])
			within := func(p string, _ string) bool { return path == "" || p == path || strings.HasPrefix(p, path+"/") }
			maps.DeleteFunc(want, within)
			for p, content := range commits[id] {
				if within(p, content) {
					want[p] = content
				}
			}
			force := rnd.IntN(2) == 0
			_, err = c.Restore(t.Context(), m, branch, paths, RestoreOptions{Force: force})
			switch {
			case err == nil:
				model[branch] = want
			case errors.Is(err, store.ErrNotExist) && maps.Equal(want, model[branch]):
			case !force && errors.As(err, new(*UncommittedError)):
			default:
				t.Fatal(step, err)
			}
		case n == 63 && rnd.IntN(16) == 0: // one branch without its base
			if _, err := c.Materialize(t.Context(), branch, nil); err != nil {
				t.Fatal(step, err)
			}
		case n == 60: // what no branch reaches may go, and only that
			reached := c.reachable(branches)
			c.collect(atOnceOld)
			ids = slices.DeleteFunc(ids, func(id string) bool {
				there, err := backend.Exists(t.Context(), raw, commit.Key(id))
				if err != nil || !there && reached[id] {
					t.Fatalf("step %d: commit %s is in use, and was deleted (%v)", step, id, err)
				}
				if !there {
					delete(commits, id)
				}
				return !there
			})
		case n == 61 && step%2 == 0: // while the other commits, and changes what it commits
			var m *commit.Manifest
			var err, gcErr error
			var wg sync.WaitGroup
			wg.Go(func() { m, err = other.Commit(t.Context(), branch, CommitOptions{Message: fmt.Sprint(step)}) })
			wg.Go(func() { _, gcErr = c.Collect(t.Context(), CollectOptions{Grace: time.Nanosecond}) })
			for range rnd.IntN(4) {
				change(other, branch, step)
			}
			wg.Wait()
			if gcErr != nil {
				t.Fatal(step, gcErr)
			}
			if err == nil {
				note(m, c.committed(m))
			} else if !errors.Is(err, ErrNothing) {
				t.Fatal(step, err)
			}
		}
	}
	last := w.client(t, raw, "three")
	for _, b := range branches {
		if got := last.tree(b); !maps.Equal(got, model[b]) {
			t.Errorf("branch %s: %v, want %v", b, got, model[b])
		}
	}
	for id, want := range commits {
		if got := last.tree("main@" + id); !maps.Equal(got, want) {
			t.Errorf("commit %s: %v, want %v", id, got, want)
		}
	}
	t.Logf("%d commits, %d branches", len(commits), len(branches))
	last.clean()
}

// reachable are the commits that branches are made of.
func (c *client) reachable(branches []string) map[string]bool {
	c.t.Helper()
	reached := map[string]bool{}
	for _, b := range branches {
		ref, err := c.refs.Load(c.t.Context(), b)
		if errors.Is(err, backend.ErrNotExist) {
			continue
		}
		if err != nil {
			c.t.Fatal(err)
		}
		for _, id := range named(ref) {
			m, err := c.commits.Manifest(c.t.Context(), id)
			if err != nil {
				c.t.Fatal(err)
			}
			for m, err := range c.Log(c.t.Context(), m) {
				if err != nil {
					c.t.Fatal(err)
				}
				reached[m.ID] = true
			}
		}
	}
	return reached
}

// committed is the tree of a commit.
func (c *client) committed(m *commit.Manifest) map[string]string { return c.tree("main@" + m.ID) }

func TestAheadAndBehindCountTheCommitsOfEachSide(t *testing.T) {
	w := &world{}
	c := w.client(t, mem.New("", mem.Options{}), "a")
	c.put("main/a", "1")
	c.commit("main", "first")
	c.put("main/a", "2")
	c.fork("dev", c.commit("main", "second"))
	c.fork("idle", c.found("main"))
	c.put("main/b", "3")
	c.commit("main", "third")
	for _, n := range []string{"1", "2", "3"} {
		c.put("dev/"+n, n)
		c.commit("dev", n)
	}
	c.put("plain/x", "x")
	want := func(name string, s Standing) {
		t.Helper()
		all, err := c.Standings(t.Context(), []string{"main", "dev", "idle", "plain", "nothing"})
		if err != nil {
			t.Fatal(err)
		}
		got, there := all[name]
		got.Head = ""
		if got != s || there != (name != "plain") {
			t.Errorf("%s: %+v, want %+v", name, got, s)
		}
	}
	want("main", Standing{})
	want("plain", Standing{})
	want("dev", Standing{Origin: "main", Ahead: 3, Behind: 1})
	want("idle", Standing{Origin: "main", Behind: 1})
	if _, err := c.Merge(t.Context(), c.found("main"), "dev", MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	want("dev", Standing{Origin: "main", Ahead: 4})
	if _, err := c.Merge(t.Context(), c.found("dev"), "main", MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	want("dev", Standing{Origin: "main", Behind: 1})
	want("idle", Standing{Origin: "main", Behind: 6})
}

func (c *client) found(revision string) *commit.Manifest {
	c.t.Helper()
	m, err := c.Find(c.t.Context(), revision)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}
