package history

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
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
	if err := other.st.Bucket().Drop(ctx, "dev"); err != nil {
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
