package cache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/store"
)

// fillDir puts n small files into a directory, and returns their names.
func (b *bucket) fillDir(dir string, n int) (names []string) {
	b.t.Helper()
	for i := range n {
		name := fmt.Sprintf("%s/f%03d", dir, i)
		b.put("main/"+name, "content of "+name)
		names = append(names, name)
	}
	return names
}

// readEach reads files one after another, each when nothing is under way any more.
func readEach(t *testing.T, tree store.Tree, names []string) {
	t.Helper()
	for _, name := range names {
		synctest.Wait()
		if _, err := tree.Lookup(t.Context(), path(t, name)); err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, tree, name); got != "content of "+name {
			t.Fatalf("%s: %q", name, got)
		}
	}
}

func count(requests []string, prefix string) (n int) {
	for _, r := range requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func TestRequestsOfReadingADirectoryInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		names := slices.Concat(b.fillDir("a", 100), b.fillDir("b", 100))
		c, tree := b.open(Options{})
		got := b.requests(func() { readEach(t, tree, names) })
		// Of the first files only the attributes are asked for by name, and of
		// the second directory nothing is: it was followed into.
		if gets, stats := count(got, "GET main/"), count(got, "STAT main/"); gets != len(names) || stats > walkAfter+1 {
			t.Errorf("%d GET and %d STAT for %d files", gets, stats, len(names))
		}
		if lists := count(got, "LIST main/"); lists > 3+walkAfter+1 {
			t.Errorf("%d LIST", lists)
		}

		// What is here already is only asked about.
		time.Sleep(time.Minute)
		again := b.requests(func() { readEach(t, tree, names) })
		if gets := count(again, "GET "); gets > 0 {
			t.Errorf("%d GET for files that are here", gets)
		}
		ok(t, c.Close(t.Context()))
	})
}

// cp -r opens files in the order of their inode numbers.
func TestFilesThatAreReadInTheOrderOfTheirNumbersAreFetchedAhead(t *testing.T) {
	for before := range 5 { // files that were read by their names
		synctest.Test(t, func(t *testing.T) {
			b := newBucket(t)
			names := b.fillDir("a", 100)
			c, tree := b.open(Options{})
			readEach(t, tree, names[:before])
			time.Sleep(listLife / 2)
			dir := store.NumberDir("main", "a")
			number := func(name string) uint64 { return store.Number(dir, strings.TrimPrefix(name, "a/")) }
			slices.SortFunc(names, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
			got := b.requests(func() { readEach(t, tree, names) })
			gets, stats := count(got, "GET main/"), count(got, "STAT main/")
			if gets+stats > len(names)+3*turnAfter { // else two each
				t.Errorf("after %d: %d GET and %d STAT for %d files", before, gets, stats, len(names))
			}
			ok(t, c.Close(t.Context()))
		})
	}
}

func TestReadingADirectoryOutOfOrderFetchesNothingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		names := b.fillDir("a", 100)
		c, tree := b.open(Options{})
		var some []string
		for i := range 30 {
			some = append(some, names[i*37%len(names)])
		}
		got := b.requests(func() { readEach(t, tree, some) })
		if gets := count(got, "GET main/"); gets > len(some)+2*firstFiles {
			t.Errorf("%d GET for %d files", gets, len(some))
		}
		ok(t, c.Close(t.Context()))
	})
}

func TestAFileFetchedAheadIsOpenedOnceAndForASecondAtMost(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := newBucket(t)
			names := b.fillDir("a", 20)
			c, tree := b.open(Options{MetadataTTL: ttl})
			readEach(t, tree, names[:walkAfter])
			synctest.Wait()
			next := names[walkAfter]
			b.put("main/"+next, "new")
			if got := b.requests(func() { readFile(t, tree, next) }); count(got, "GET main/"+next) > 0 {
				t.Errorf("it was not fetched ahead: %q", got)
			}
			if got := readFile(t, tree, next); got != "new" {
				t.Errorf("the second open reads %q", got)
			}
			next = names[walkAfter+1]
			b.put("main/"+next, "new")
			time.Sleep(aheadLife)
			if got := readFile(t, tree, next); got != "new" {
				t.Errorf("the open after a second reads %q", got)
			}
			ok(t, c.Close(t.Context()))
		})
	}
}

func TestAFileFetchedAheadAndChangedHereIsReadAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		names := b.fillDir("a", 20)
		c, tree := b.open(Options{})
		readEach(t, tree, names[:walkAfter])
		synctest.Wait()
		changed, removed := names[walkAfter], names[walkAfter+1]
		f := open(t, tree, changed, store.OpenFlags{Write: true, Truncate: true})
		write(t, f, 0, "new")
		closeFile(t, f)
		if got := readFile(t, tree, changed); got != "new" {
			t.Errorf("read %q", got)
		}
		ok(t, tree.Remove(t.Context(), path(t, removed)))
		missing(t, tree, removed)
		if _, err := tree.Open(t.Context(), path(t, removed), store.OpenFlags{}); err == nil {
			t.Error("a removed file was opened")
		}
		ok(t, c.Close(t.Context()))
	})
}

func TestWithoutTimeToLiveNoFileIsFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		names := b.fillDir("a", 20)
		c, tree := b.open(Options{MetadataTTL: -1})
		got := b.requests(func() { readEach(t, tree, names[:10]) })
		if n := count(got, "GET main/"+names[10]); n > 0 {
			t.Errorf("fetched ahead: %q", got)
		}
		ok(t, c.Close(t.Context()))
	})
}
