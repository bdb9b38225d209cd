package cache

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/store"
)

// A tree as programs see it, whose files this host stored with attributes of
// their own: programDirs directories with programFiles files each.
const (
	programDirs  = 30
	programFiles = 100
)

func programDir(d int) string     { return fmt.Sprintf("tree/d%02d", d) }
func programFile(d, i int) string { return fmt.Sprintf("tree/d%02d/f%03d", d, i) }

// lookups looks up every file in order, and each directory before its files,
// as git status and rsync do. It takes a while, as that of a program.
func lookups(t testing.TB, tree store.Tree) {
	look := func(name string) {
		_, err := tree.Lookup(t.Context(), path(t, name))
		ok(t, err)
		time.Sleep(50 * time.Microsecond)
	}
	look("tree")
	for d := range programDirs {
		look(programDir(d))
		for i := range programFiles {
			look(programFile(d, i))
		}
	}
}

// listings lists every directory, as find does, and with each looks up what
// is in it as well, as ls -lR does.
func listings(t testing.TB, tree store.Tree, dir string, each bool) {
	var below []string
	for e, err := range tree.List(t.Context(), path(t, dir)) {
		ok(t, err)
		name := dir + "/" + e.Name
		if each {
			_, err = tree.Lookup(t.Context(), path(t, name))
			ok(t, err)
		}
		if e.IsDir() {
			below = append(below, name)
		}
		time.Sleep(10 * time.Microsecond)
	}
	for _, name := range below {
		listings(t, tree, name, each)
	}
}

// What programs that know nothing of buckets cost in requests, in a tree of
// 3,000 files that this host has stored: listings of its keys, and few others.
func TestRequestsOfProgramsOverATree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := secondsBucket(t)
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir, WriteBack: true})
		_, err := tree.Mkdir(t.Context(), path(t, "tree"), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
		mode := uint32(0o600)
		for d := range programDirs {
			_, err := tree.Mkdir(t.Context(), path(t, programDir(d)), store.Attr{Mode: store.ModeDir | 0o755})
			ok(t, err)
			for i := range programFiles {
				f := create(t, tree, programFile(d, i), false)
				_, err := f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
				ok(t, err)
				closeFile(t, f)
			}
		}
		time.Sleep(isOld)
		listings(t, tree, "tree", true) // which asks for each once
		ok(t, c.Close(t.Context()))
		// At most: how much is asked for ahead depends on who comes first.
		remounted := func(what string, lists, stats int, fn func()) {
			t.Helper()
			c, tree = b.open(Options{Dir: dir})
			for _, when := range []string{"after a remount", "when all is too old"} {
				got := b.requests(fn)
				asked := 0
				for _, r := range got {
					if strings.HasPrefix(r, "STAT main/") {
						asked++
					}
				}
				if asked > stats || len(got)-asked > lists+1 { // and the record of attributes
					t.Errorf("%s, %s: more than %d listings and %d questions:\n%s", what, when, lists, stats, strings.Join(got, "\n"))
				}
				time.Sleep(10 * time.Second)
			}
			ok(t, c.Close(t.Context()))
		}
		remounted("git status, or rsync", 20, 16, func() { lookups(t, tree) })
		remounted("find", 5, 0, func() { listings(t, tree, "tree", false) })
		remounted("ls -lR", 9, 2, func() { listings(t, tree, "tree", true) })
		remounted("git status, with a search for other files", 22, 16, func() {
			lookups(t, tree)
			listings(t, tree, "tree", false)
		})
	})
}
