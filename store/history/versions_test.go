package history

import (
	"maps"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

func TestAVersionedBucketKeepsCommitsByItself(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	raw := mem.New("b", mem.Options{Versions: true, Seconds: true})
	w := new(world)
	c := w.client(t, raw, "h")
	c.put("main/a", "one")
	c.put("main/b", "one")
	first := c.commit("main", "first")
	want := c.tree("main")
	c.put("main/a", "two")
	c.delete("main/b")
	c.put("main/c", "new")
	second := c.commit("main", "second")
	c.fork("dev", first)
	c.put("dev/a", "dev")
	c.delete("dev/b")
	c.commit("dev", "dev")
	if pins := keys(t, raw, overlay.PinDir); len(pins) > 0 {
		t.Errorf("pinned: %q", pins)
	}
	other := w.client(t, raw, "other")
	if got := other.tree("main@" + first.ID); !maps.Equal(got, want) {
		t.Errorf("the first commit is %v, want %v", got, want)
	}
	other.clean()
	if err := other.Reset(ctx, "main", first, "back", RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := other.tree("main"); !maps.Equal(got, want) {
		t.Errorf("reset to %v, want %v", got, want)
	}
	if got := other.tree("main@" + second.ID); got["a"] != "two" || got["c"] != "new" {
		t.Errorf("the second commit is %v", got)
	}
	other.collect(atOnceOld)
	other.clean()
	if pins := keys(t, raw, overlay.PinDir); len(pins) > 0 {
		t.Errorf("pinned: %q", pins)
	}
}

func TestACommitOfAVersionedBucketAsksForWhatChangedAlone(t *testing.T) {
	t.Parallel()
	record := fault.New()
	raw := record.Wrap(mem.New("b", mem.Options{Versions: true}))
	c := new(world).client(t, raw, "h")
	for _, key := range []string{"main/a", "main/b", "main/c"} {
		c.put(key, "one")
	}
	c.commit("main", "first")
	c.put("main/b", "two")
	record.ResetRequests()
	c.commit("main", "second")
	if n := record.Count("stat"); n != 1 {
		t.Errorf("%d questions: %q", n, record.Requests())
	}
}

func TestAPinnedCommitOutlivesTheVersionsOfItsBucket(t *testing.T) {
	t.Parallel()
	raw := mem.New("b", mem.Options{Versions: true})
	c := new(world).client(t, raw, "h")
	c.put("main/a", "one")
	m, err := c.Commit(t.Context(), "main", CommitOptions{Message: "pinned", Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	if pins := keys(t, raw, overlay.PinDir); len(pins) != 1 {
		t.Fatalf("pins: %q", pins)
	}
	// The versions expire: as if the bucket had only what is current.
	bare := mem.New("b", mem.Options{})
	c.delete("main/a")
	for info, err := range backend.ListRecursive(t.Context(), raw, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, now, err := backend.ReadAll(t.Context(), raw, info.Key, 1<<20)
		if err == nil {
			_, err = bare.Put(t.Context(), info.Key, backend.Bytes(data), backend.PutOptions{Metadata: now.Metadata})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := new(world).client(t, bare, "h").tree("main@" + m.ID); got["a"] != "one" {
		t.Errorf("the commit is %v", got)
	}
}

func TestABranchIsPinnedWhoseOriginMovedOn(t *testing.T) {
	t.Parallel()
	for _, opts := range []mem.Options{{}, {Versions: true}} {
		raw := mem.New("b", opts)
		c := new(world).client(t, raw, "h")
		c.put("main/a", "one")
		c.fork("dev", c.commit("main", "first"))
		c.put("main/a", "two")
		c.put("dev/b", "dev")
		if _, err := c.Commit(t.Context(), "dev", CommitOptions{Pin: true}); err != nil {
			t.Fatal(err)
		}
		pins := map[string]bool{}
		for _, pin := range keys(t, raw, overlay.PinDir) {
			data, _, err := backend.ReadAll(t.Context(), raw, overlay.PinDir+pin, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			pins[string(data)] = true
		}
		if want := map[string]bool{"one": true, "dev": true}; !maps.Equal(pins, want) {
			t.Errorf("pinned: %v, want %v", pins, want)
		}
	}
}

func TestFsckNamesVersionsThatABucketDoesNotKeepAnyMore(t *testing.T) {
	t.Parallel()
	raw := mem.New("b", mem.Options{Versions: true})
	c := new(world).client(t, raw, "h")
	c.put("main/a", "one")
	c.commit("main", "first")
	c.delete("main/a")
	bare := mem.New("b", mem.Options{})
	for info, err := range backend.ListRecursive(t.Context(), raw, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := backend.ReadAll(t.Context(), raw, info.Key, 1<<20)
		if err == nil {
			_, err = bare.Put(t.Context(), info.Key, backend.Bytes(data), backend.PutOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := new(world).client(t, bare, "h").Fsck(t.Context(), FsckOptions{})
	if err != nil || len(report.Problems) != 1 || report.Problems[0].Kind != "content" {
		t.Errorf("%+v %v", report, err)
	}
}
