package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

// plainTree is what lies below a branch's prefix in the bucket.
func plainTree(t *testing.T, raw backend.Backend, branch string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	for info, err := range backend.ListRecursive(t.Context(), raw, branch+"/") {
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := backend.ReadAll(t.Context(), raw, info.Key, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		tree[strings.TrimPrefix(info.Key, branch+"/")] = string(data)
	}
	return tree
}

// based is a branch dev of a commit, some of which was overwritten and deleted
// since, with changes of its own.
func based(t *testing.T, c *client) map[string]string {
	t.Helper()
	for i := range 12 {
		c.put(fmt.Sprintf("main/d%d/f%d", i%3, i), fmt.Sprint("was ", i))
	}
	c.fork("dev", c.commit("main", "first"))
	c.put("main/d0/f0", "later")
	c.delete("main/d1/f1")
	c.put("dev/d2/f2", "own")
	c.put("dev/new", "own")
	c.delete("dev/d0/f3")
	return c.tree("dev")
}

func TestAMaterializedBranchIsPlainObjectsAndWhatItWas(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c, other := w.client(t, raw, "one"), w.client(t, raw, "two")
	want := based(t, c)
	first := c.committed(c.found("dev"))
	n, err := c.Materialize(t.Context(), "dev", nil)
	if err != nil || n != 10 {
		t.Errorf("%d, %v", n, err)
	}
	if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	for _, c := range []*client{c, other} {
		if got := c.tree("dev"); !maps.Equal(got, want) {
			t.Errorf("%v\nwant %v", got, want)
		}
	}
	if got := c.committed(c.found("dev")); !maps.Equal(got, first) {
		t.Errorf("its commit is %v", got)
	}
	if there, err := c.st.Bucket().AnyWhiteout(t.Context(), "dev"); there || err != nil {
		t.Error(there, err)
	}
	if n, err := c.Materialize(t.Context(), "dev", nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	c.commit("dev", "second")
	if got := c.committed(c.found("dev")); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	c.clean()
}

func TestAMaterializationThatDiesAnywhereIsGoneOnWith(t *testing.T) {
	t.Parallel()
	before := mem.New("", mem.Options{})
	want := based(t, new(world).client(t, before, "before"))
	for n := 1; ; n++ {
		inject := fault.New()
		raw := mem.Clone(before)
		w := &world{}
		c := w.client(t, raw, "one")
		c.pace.look, c.pace.dead = 0, 0
		dying := w.client(t, inject.Wrap(raw), "dying")
		inject.Add(fault.Rule{From: n, Times: fault.Always, Err: backend.ErrTransient})
		_, err := dying.Materialize(t.Context(), "dev", nil)
		if got := c.tree("dev"); !maps.Equal(got, want) {
			t.Fatalf("request %d failed: %v\nwant %v", n, got, want)
		}
		if _, err := c.Materialize(t.Context(), "dev", nil); err != nil {
			t.Fatal(n, err)
		}
		if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
			t.Fatalf("request %d failed: %v\nwant %v", n, got, want)
		}
		if err == nil {
			break
		}
	}
}

// One who died between his copy and his look at what is hidden by then.
func TestACopyOfWhatWasDeletedIsTakenAwayByWhoGoesOn(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "one")
	want := based(t, c)
	inject := fault.New()
	inject.Add(fault.Rule{Op: "copy", Key: "dev/d2/f5", Do: func(ctx context.Context, _ *backend.Op) error {
		// Who deletes has looked for a copy before.
		_, err := raw.Put(ctx, ".kei/whiteouts/dev/d2/f5", backend.Bytes(nil), backend.PutOptions{})
		inject.Add(fault.Rule{Times: fault.Always, Err: backend.ErrTransient})
		return err
	}})
	dying := w.client(t, inject.Wrap(raw), "dying")
	if _, err := dying.copyDownAll(t.Context(), "dev"); !errors.Is(err, backend.ErrTransient) {
		t.Fatal(err)
	}
	if there, err := backend.Exists(t.Context(), raw, "dev/d2/f5"); !there || err != nil {
		t.Fatal(there, err)
	}
	// What somebody makes anew over what he deleted stays, even if it is the same.
	c.delete("dev/d0/f9")
	c.put("dev/d0/f9", want["d0/f9"])
	if _, err := c.Materialize(t.Context(), "dev", nil); err != nil {
		t.Fatal(err)
	}
	delete(want, "d2/f5")
	if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// While one copies, another begins; and somebody deletes a file.
func TestTwoWhoMaterializeAtOnceBringNothingBack(t *testing.T) {
	t.Parallel()
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "user")
	want := based(t, c)
	copying, waiting, resume := make(chan struct{}), make(chan struct{}), make(chan struct{})
	one := w.client(t, fault.New(fault.Rule{Op: "copy", Key: "dev/d2/f5", Do: func(context.Context, *backend.Op) error {
		close(copying)
		<-resume
		return nil
	}}).Wrap(raw), "one")
	two := w.client(t, fault.New(fault.Rule{Op: "stat", Key: aloneDir + "*", Do: func(context.Context, *backend.Op) error {
		close(waiting)
		return nil
	}}).Wrap(raw), "two")
	two.pace.look = time.Millisecond
	var wg sync.WaitGroup
	materialize := func(c *client) {
		wg.Go(func() {
			if _, err := c.Materialize(t.Context(), "dev", nil); err != nil {
				t.Error(err)
			}
		})
	}
	materialize(one)
	<-copying
	materialize(two)
	<-waiting
	c.delete("dev/d2/f5")
	c.delete("dev/d0/f6")
	close(resume)
	wg.Wait()
	delete(want, "d2/f5")
	delete(want, "d0/f6")
	if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if left := keys(t, raw, aloneDir); len(left) > 0 {
		t.Error(left)
	}
	c.clean()
}

func TestWhoFindsAnotherMaterializingIsToldSo(t *testing.T) {
	t.Parallel()
	raw := mem.New("", mem.Options{})
	w := &world{}
	want := based(t, w.client(t, raw, "user"))
	copying, resume := make(chan struct{}), make(chan struct{})
	one := w.client(t, fault.New(fault.Rule{Op: "copy", Key: "dev/d2/f5", Do: func(context.Context, *backend.Op) error {
		close(copying)
		<-resume
		return nil
	}}).Wrap(raw), "one")
	two := w.client(t, raw, "two")
	one.pace.renew, two.pace.look = time.Millisecond, time.Millisecond
	done := make(chan error, 1)
	go func() {
		_, err := one.Materialize(t.Context(), "dev", nil)
		done <- err
	}()
	<-copying
	if _, err := two.Materialize(t.Context(), "dev", nil); !errors.Is(err, errTaken) {
		t.Error(err)
	}
	close(resume)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// A commit that lists the branch while another makes it independent of its base
// and forgets what hid that.
func TestACommitBesideAMaterializationNamesNothingThatWasDeleted(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "one")
	want := based(t, c)
	fired := false
	inject := fault.New()
	slow := w.client(t, inject.Wrap(raw), "slow")
	inject.Add(fault.Rule{Op: "list", Key: "dev/", After: true, Do: func(context.Context, *backend.Op) error {
		fired = true
		if _, err := c.Materialize(t.Context(), "dev", nil); err != nil {
			t.Error(err)
		}
		c.delete("dev/d2/f2") // of which the base has another version
		return nil
	}})
	m, err := slow.Commit(t.Context(), "dev", CommitOptions{})
	if err != nil || !fired {
		t.Fatal(err, fired)
	}
	delete(want, "d2/f2")
	if got := c.committed(m); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	c.clean()
}

// What is deleted at the very moment in which it is copied must not come back.
func TestAFileDeletedWhileItsBranchMaterializesStaysDeleted(t *testing.T) {
	for _, when := range []string{"before the copy", "after the copy"} {
		raw := mem.New("", mem.Options{})
		w := &world{}
		c := w.client(t, raw, "one")
		want := based(t, c)
		const key = "dev/d2/f5"
		// The other one has looked, and is about to make the whiteout.
		hook := &hooked{Backend: raw}
		other := w.client(t, hook, "two")
		info, err := other.st.Bucket().Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		hook.before = func(name string) {
			if when == "before the copy" && strings.HasPrefix(name, "put .kei/whiteouts/") || when == "after the copy" && name == "stat "+key {
				hook.before = nil
				if _, err := c.copyDownAll(t.Context(), "dev"); err != nil {
					t.Error(err)
				}
			}
		}
		w.mark(t, c, "dev")
		if err := other.st.Bucket().Delete(t.Context(), key, backend.Cond{IfMatch: info.ETag}); err != nil {
			t.Fatal(when, err)
		}
		if hook.before != nil {
			t.Fatal("nothing came in between")
		}
		if _, err := c.Materialize(t.Context(), "dev", nil); err != nil {
			t.Fatal(err)
		}
		delete(want, "d2/f5")
		if got := plainTree(t, raw, "dev"); !maps.Equal(got, want) {
			t.Errorf("%s: %v\nwant %v", when, got, want)
		}
	}
}

// mark sets the mark that a materialization sets first.
func (w *world) mark(t *testing.T, c *client, branch string) {
	t.Helper()
	if _, err := c.begin(t.Context(), branch); err != nil {
		t.Fatal(err)
	}
}

// copyDownAll makes the copies of a materialization, and no more.
func (c *client) copyDownAll(ctx context.Context, branch string) (int64, error) {
	ref, err := c.refs.Load(ctx, branch)
	if err != nil {
		return 0, err
	}
	var objects []overlay.Object
	for o, err := range c.st.Bucket().Walk(ctx, branch, "") {
		if err != nil {
			return 0, err
		}
		if o.Inherited {
			objects = append(objects, o)
		}
	}
	m := &materialization{r: c.Repo, plain: c.st.Plain(), branch: branch, base: ref.Base}
	return m.copyDown(ctx, objects)
}

// hooked calls before ahead of each stat and put.
type hooked struct {
	backend.Backend
	before func(name string)
}

func (h *hooked) Decorates() backend.Backend { return h.Backend }

func (h *hooked) Stat(ctx context.Context, key string) (backend.Info, error) {
	if h.before != nil {
		h.before("stat " + key)
	}
	return h.Backend.Stat(ctx, key)
}

func (h *hooked) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if h.before != nil {
		h.before("put " + key)
	}
	return h.Backend.Put(ctx, key, src, opts)
}

func TestAPinnedCommitOutlivesWhatOtherToolsDestroy(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "one")
	c.put("main/a", "1")
	c.put("main/d/b", "2")
	loose := c.commit("main", "loose")
	c.put("main/a", "3")
	pinned, err := c.Commit(t.Context(), "main", CommitOptions{Message: "pinned", Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"main/a", "main/d/b"} { // past keifs
		if err := raw.Delete(t.Context(), key, backend.Cond{}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := c.committed(pinned), map[string]string{"a": "3", "d/b": "2"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := c.committed(loose), map[string]string{"a": "1", "d/b": "2"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestACommitThatLosesEveryRaceIsParkedOnABranch(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c, fast := w.client(t, raw, "slow:host"), w.client(t, raw, "fast")
	c.put("main/a", "1")
	n := 0
	hook := &hooked{Backend: raw}
	slow := w.client(t, hook, "slow@host")
	hook.before = func(name string) {
		if strings.HasPrefix(name, "put .kei/commits/") {
			n++
			fast.put("main/b", fmt.Sprint(n))
			fast.commit("main", fmt.Sprint("fast ", n))
		}
	}
	_, err := slow.Commit(t.Context(), "main", CommitOptions{Message: "slow", Empty: true})
	hook.before = nil
	parked, ok := errors.AsType[*ParkedError](err)
	if !ok {
		t.Fatal(err)
	}
	if !strings.HasPrefix(parked.Branch, "conflict-slow-host-") {
		t.Errorf("it is on %q", parked.Branch)
	}
	if m := c.found(parked.Branch); m.Message != "slow" {
		t.Errorf("%+v", m)
	}
	if got := c.tree(parked.Branch)["a"]; got != "1" {
		t.Errorf("%q", got)
	}
	c.clean()
}
