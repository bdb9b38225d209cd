package cache

import (
	"fmt"
	"testing"
	"time"
)

// A directory larger than what may be remembered comes page by page, and
// leaves no more behind than that.
func TestALargeDirectoryIsListedInLittleMemory(t *testing.T) {
	const files, room = 20_000, 5000
	b := newBucket(t)
	for i := range files {
		b.put(fmt.Sprintf("main/d/%06d", i), "")
	}
	c, tree := b.open(Options{MetadataEntries: room, MetadataTTL: time.Hour})
	n := 0
	got := b.requests(func() {
		for e, err := range tree.List(t.Context(), path(t, "d")) {
			ok(t, err)
			if want := fmt.Sprintf("%06d", n); e.Name != want {
				t.Fatalf("%s where %s belongs", e.Name, want)
			}
			if n++; n%1000 == 0 && c.Stats().Entries > room {
				t.Fatalf("%d entries are remembered", c.Stats().Entries)
			}
		}
	})
	if n != files || len(got) > files/999*3/2 { // with next to no room, a page asked for ahead may be lost
		t.Errorf("%d files, by %d requests: %q", n, len(got), got)
	}
}

func TestTheFirstEntriesOfADirectoryComeByOneRequest(t *testing.T) {
	b := newBucket(t)
	for i := range 3000 {
		b.put(fmt.Sprintf("main/d/%06d", i), "")
	}
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	b.golden("the first page", func() {
		for _, err := range tree.List(t.Context(), path(t, "d")) {
			ok(t, err)
			break
		}
	}, "LIST main/d/")
}
