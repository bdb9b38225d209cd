package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/keifs/keifs/store"
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
	// A page leaves its last key to the next one, which tells whether it is a prefix too.
	if want := (files + 998) / 999; n != files || len(got) != want {
		t.Errorf("%d files, by %d requests, want %d: %q", n, len(got), want, got)
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

// A part of a listing that is asked for again leaves what is known beside it.
func TestANewPartOfAListingReplacesNothingElse(t *testing.T) {
	at := func(n int) store.Cursor { return position(fmt.Sprint(n), store.ModeRegular) }
	part := func(from, to int, mark string) *stretch {
		r := &stretch{from: at(from), to: at(to)}
		for n := from + 1; n <= to; n++ {
			r.base = append(r.base, store.Entry{Name: fmt.Sprint(n), Version: mark, Attr: store.Attr{Mode: store.ModeRegular}})
		}
		return r
	}
	for from := 10; from < 20; from++ {
		for to := from + 1; to < 20; to++ {
			l := &dirList{}
			first := part(10, 15, "old")
			l.add(first)
			l.change("12", nil)
			l.add(part(15, 19, "old"))
			l.add(part(from, to, "new"))
			for n := 11; n < 20; n++ {
				e, found, _, sure := l.find(fmt.Sprint(n), anyAge)
				want := "old"
				if n > from && n <= to {
					want = "new"
				} else if n == 12 {
					want = ""
				}
				if found != (want != "") || e.Version != want || !sure && n != 19 {
					t.Errorf("%d to %d: %d is %q, found %v, sure %v; want %q", from, to, n, e.Version, found, sure, want)
				}
			}
		}
	}
}
