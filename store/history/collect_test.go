package history

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/commit"
)

// atOnceOld takes everything for old that is not of this moment.
var atOnceOld = CollectOptions{Grace: time.Nanosecond, KeepLog: time.Nanosecond}

func (c *client) collect(opts CollectOptions) *Collection {
	c.t.Helper()
	out, err := c.Collect(c.t.Context(), opts)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// keys are those below a prefix.
func keys(t testing.TB, b backend.Backend, prefix string) (all []string) {
	t.Helper()
	for info, err := range backend.ListRecursive(t.Context(), b, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.TrimPrefix(info.Key, prefix))
	}
	return all
}

func TestACollectionTakesWhatNothingReachesAndNothingElse(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	raw := mem.New("b", mem.Options{})
	c := new(world).client(t, raw, "h")
	c.put("main/a", "1")
	first := c.commit("main", "first")
	c.put("main/a", "2")
	second := c.commit("main", "second")
	c.put("main/a", "3")
	third := c.commit("main", "third")
	if err := c.Tag(ctx, "v1", first, ""); err != nil {
		t.Fatal(err)
	}
	c.fork("dev", second)
	c.put("dev/a", "dev")
	dev := c.commit("dev", "dev")
	c.put("dev/a", "dev again")
	lost := c.commit("dev", "lost")
	c.put("dev/a", "dev at last")
	want := map[string]map[string]string{}
	for _, m := range []*commit.Manifest{first, second, third, dev} {
		want[m.ID] = c.tree("main@" + m.ID)
	}
	if err := c.Reset(ctx, "dev", dev, "reset", RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if out := c.collect(CollectOptions{}); out.Deleted != (Records{}) {
		t.Errorf("all is young, and yet %+v went", out.Deleted)
	}
	if out := c.collect(CollectOptions{Grace: time.Nanosecond}); out.Deleted.Commits != 0 {
		t.Errorf("the log reaches it, and yet %+v went", out.Deleted)
	}
	dry := atOnceOld
	dry.DryRun = true
	before := keys(t, raw, "")
	planned := c.collect(dry)
	if after := keys(t, raw, ""); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("a dry run changed something")
	}
	out := c.collect(atOnceOld)
	if planned.Deleted != out.Deleted || out.Deleted.Commits != 1 || out.Deleted.Ranges != 1 || out.Deleted.Log == 0 {
		t.Errorf("planned %+v, done %+v", planned.Deleted, out.Deleted)
	}
	if _, err := raw.Stat(ctx, commit.Key(lost.ID)); !errors.Is(err, backend.ErrNotExist) {
		t.Error("the lost commit is there:", err)
	}
	if n := len(keys(t, raw, sweepDir)); n != 0 {
		t.Errorf("%d announcements are left", n)
	}
	other := c.w.client(t, raw, "other")
	for id, want := range want {
		if got := other.tree("main@" + id); !maps.Equal(got, want) {
			t.Errorf("commit %s: %v, want %v", id, got, want)
		}
	}
	other.clean()
	// A branch goes, and with it what only it had; the base is in use.
	ref, err := other.refs.Load(ctx, "dev")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.st.Bucket().Drop(ctx, "dev", ""); err != nil {
		t.Fatal(err)
	}
	if err := other.refs.Delete(ctx, ref, "gone"); err != nil {
		t.Fatal(err)
	}
	out = other.collect(atOnceOld)
	if out.Deleted.Commits != 1 || out.Deleted.Pins == 0 {
		t.Errorf("%+v", out.Deleted)
	}
	if got := other.tree("main@" + second.ID); !maps.Equal(got, want[second.ID]) {
		t.Error(got)
	}
	other.clean()
	if out := other.collect(atOnceOld); out.Deleted != (Records{}) {
		t.Errorf("a second time %+v went", out.Deleted)
	}
	other.fork("dev", third)
	other.clean()
}

func TestACollectionDeletesNothingWhileSomebodyCommits(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	raw := mem.New("b", mem.Options{})
	c := new(world).client(t, raw, "h")
	c.put("main/a", "1")
	first := c.commit("main", "first")
	c.put("main/a", "2")
	lost := c.commit("main", "lost")
	if err := c.Reset(ctx, "main", first, "reset", RestoreOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	other := c.w.client(t, raw, "other")
	mark, err := other.begin(ctx, "main")
	if err != nil {
		t.Fatal(err)
	}
	wait := atOnceOld
	wait.Wait = time.Nanosecond
	before := keys(t, raw, "")
	if _, err := c.Collect(ctx, wait); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if after := keys(t, raw, ""); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("something changed")
	}
	mark.end(ctx)
	c.collect(atOnceOld)
	// Whoever still has it in memory can name it no more.
	if err := other.Tag(ctx, "late", lost, ""); !errors.Is(err, backend.ErrNotExist) {
		t.Error("a tag:", err)
	}
	if err := other.Fork(ctx, "late", lost, time.Time{}); !errors.Is(err, backend.ErrNotExist) {
		t.Error("a branch:", err)
	}
	if err := other.Reset(ctx, "main", lost, "reset", RestoreOptions{}); !errors.Is(err, backend.ErrNotExist) {
		t.Error("a reset:", err)
	}
	if _, err := other.refs.LoadTag(ctx, "late"); !errors.Is(err, backend.ErrNotExist) {
		t.Error("the tag is there:", err)
	}
	c.w.client(t, raw, "third").clean()
}

func TestACommitWaitsForACollectionUntilItIsOverOrDead(t *testing.T) {
	t.Parallel()
	for name, dies := range map[string]bool{"over": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				raw := mem.New("b", mem.Options{})
				c := new(world).client(t, raw, "h")
				c.put("main/a", "1")
				a := c.announcement()
				if err := a.make(t.Context()); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				done := make(chan error, 1)
				go func() {
					_, err := c.Commit(t.Context(), "main", CommitOptions{})
					done <- err
				}()
				// Made anew, it counts from then on.
				time.Sleep(sweepFor)
				if err := a.make(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(sweepDead - time.Second)
				select {
				case err := <-done:
					t.Fatalf("it did not wait: %v", err)
				default:
				}
				if !dies {
					if err := a.takeBack(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); dies && took < sweepFor+sweepDead {
					t.Errorf("after %v it was taken for dead", took)
				}
				if left := keys(t, raw, sweepDir); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
				if dies {
					time.Sleep(time.Second)
					if err := a.make(t.Context()); !errors.Is(err, errLapsed) {
						t.Errorf("the dead goes on: %v", err)
					}
				}
			})
		})
	}
}

// timeless is a store that does not tell the time with its listings.
type timeless struct{ backend.Backend }

func (b timeless) ListPage(ctx context.Context, opts backend.ListOptions) (backend.Page, error) {
	page, err := b.Backend.ListPage(ctx, opts)
	page.Date = time.Time{}
	return page, err
}

func TestACollectionGoesByTheTimeOfTheStoreAlone(t *testing.T) {
	t.Parallel()
	raw := mem.New("b", mem.Options{Plain: true})
	for _, b := range []backend.Backend{raw, timeless{raw}} {
		c := new(world).client(t, b, "h")
		c.opts.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
		c.put("main/a", rand.Text())
		first := c.commit("main", "first")
		c.put("main/a", rand.Text())
		c.commit("main", "lost")
		if err := c.Reset(t.Context(), "main", first, "reset", RestoreOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		before := keys(t, raw, "")
		for _, dry := range []bool{true, false} {
			out, err := c.Collect(t.Context(), CollectOptions{DryRun: dry})
			if b == raw && (err != nil || out.Deleted != (Records{})) {
				t.Errorf("all is of this moment, and yet %+v went: %v", out, err)
			}
			if b != raw && !errors.Is(err, backend.ErrUnsupported) {
				t.Errorf("who does not know the time collects: %v", err)
			}
		}
		if after := keys(t, raw, ""); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Error("something went")
		}
	}
}
