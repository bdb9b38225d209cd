package history

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/refs"
)

// mends has fsck find what was done to a bucket, and repair it.
func (c *client) mends(kind string, problems int, opts FsckOptions) {
	c.t.Helper()
	for _, repair := range []bool{false, true} {
		opts.Repair = repair
		report, err := c.Fsck(c.t.Context(), opts)
		if err != nil || len(report.Problems) != problems {
			c.t.Fatalf("repair %v: %+v %v", repair, report, err)
		}
		for _, p := range report.Problems {
			if p.Kind != kind || p.Repaired != repair {
				c.t.Errorf("%+v", p)
			}
		}
	}
	opts.Repair = false
	if report, err := c.Fsck(c.t.Context(), opts); err != nil || len(report.Problems) > 0 {
		c.t.Fatalf("after the repair: %+v %v", report, err)
	}
}

func TestFsckTakesAwayTheMarkOfACommitThatDied(t *testing.T) {
	t.Parallel()
	raw := mem.New("", mem.Options{})
	w := &world{}
	c, dead := w.client(t, raw, "one"), w.client(t, raw, "dead")
	c.put("main/a", "1")
	c.commit("main", "first")
	mark, err := dead.begin(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	c.clean() // it may still come to its end
	c.mends("mark", 1, FsckOptions{DeadAfter: time.Nanosecond})
	ref, err := c.refs.Load(t.Context(), "main")
	if err != nil || ref.Committing != "" || !IsMark(ref) {
		t.Errorf("%+v %v", ref, err)
	}
	c.collect(CollectOptions{Grace: time.Nanosecond, Wait: time.Nanosecond}) // which waits for nobody
	if err := mark.finish(t.Context(), refs.Ref{Head: ref.Head}); !errors.Is(err, ErrUnmarked) {
		t.Error("who was taken for dead goes on:", err)
	}
}

func TestFsckMakesEntriesAnewThatTheLogMustHave(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string][]int{"the last": {5}, "the first": {1}, "both": {1, 5}, "all": {1, 2, 3, 4, 5}} {
		t.Run(name, func(t *testing.T) {
			raw := mem.New("", mem.Options{})
			c := new(world).client(t, raw, "one")
			c.put("main/a", "1")
			c.commit("main", "first")
			c.put("main/a", "2")
			second := c.commit("main", "second")
			ref, err := c.refs.Load(t.Context(), "main")
			if err != nil {
				t.Fatal(err)
			}
			if ref, err = c.refs.Advance(t.Context(), ref, refs.Ref{Head: second.ID, Why: "again"}); err != nil || ref.Generation != 5 {
				t.Fatal(ref, err)
			}
			for _, n := range lost {
				if err := raw.Delete(t.Context(), fmt.Sprintf("%smain/%020d.json", refs.LogDir, n), backend.Cond{}); err != nil {
					t.Fatal(err)
				}
			}
			c.mends("ref", min(len(lost), 2), FsckOptions{})
			if _, err := c.refs.Create(t.Context(), "main", refs.Ref{}); !errors.Is(err, refs.ErrExist) {
				t.Error("a second branch of that name:", err)
			}
			if now, err := c.refs.Load(t.Context(), "main"); err != nil || now.Nonce != ref.Nonce {
				t.Error(now, err)
			}
			c.put("main/a", "3")
			c.commit("main", "third")
			c.clean()
		})
	}
}

func TestFsckMakesWhiteoutsAnewThatWereLost(t *testing.T) {
	t.Parallel()
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "one")
	based(t, c)
	c.delete("dev/d1/f4")
	c.put("dev/d1/f4", "again")
	want := c.tree("dev")
	c.commit("dev", "second")
	for _, key := range keys(t, raw, ".kei/whiteouts/dev/") {
		if err := raw.Delete(t.Context(), ".kei/whiteouts/dev/"+key, backend.Cond{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.tree("dev"); maps.Equal(got, want) {
		t.Fatal("nothing came back")
	}
	c.mends("whiteout", 1, FsckOptions{})
	if got := c.tree("dev"); !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}
