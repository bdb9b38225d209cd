// Package storetest is the suite that every [store.Volume] passes, over
// buckets of all kinds: what package store promises in the comments of Volume,
// Tree and File, as tests.
//
// A volume's own tests call [Run] with a function that opens one.
package storetest

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// Open opens a volume on a store. It is called several times in one test: two
// volumes of one bucket are two hosts, and one opened after another was closed
// is a remount. The suite closes what it opens.
type Open func(t *testing.T, s *store.Store) store.Volume

// Run runs the suite on every kind of bucket.
func Run(t *testing.T, open Open) { RunLazy(t, open, nil) }

// RunLazy is Run for a volume that promises removals on its own disk, and has
// the bucket do them later. settle returns when the bucket has them; the suite
// calls it before it looks at the bucket.
func RunLazy(t *testing.T, open Open, settle func(store.Volume) error) {
	for _, b := range buckets(t) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			b.run(t, open, settle)
		})
	}
}

// RunInMemory runs the suite on the plain bucket in memory only: for further
// settings of a volume that passes Run, or RunLazy, with others.
func RunInMemory(t *testing.T, open Open, settle func(store.Volume) error) {
	for _, b := range buckets(t) {
		if b.name == plain {
			b.run(t, open, settle)
		}
	}
}

// RunOn runs the suite on the bucket of another provider. fresh returns one that
// is empty, for each test. What thousands of requests show is left to buckets
// in memory. What the first test finds out about a bucket, the others know, as
// mounts remember it: the buckets are of one kind.
func RunOn(t *testing.T, fresh func(t *testing.T) backend.Backend, open Open) {
	b := bucket{name: "other", caps: fresh(t).Caps(), make: fresh, probed: new(atomic.Pointer[backend.Caps])}
	b.run(t, open, nil)
}

// bucket is one kind of bucket.
type bucket struct {
	name  string
	caps  backend.Caps
	base  bool        // the branch main has a base
	attrs store.Attrs // as mounts have it
	make  func(t *testing.T) backend.Backend

	probed *atomic.Pointer[backend.Caps] // what all tests know; nil: each asks
}

// plain is the bucket that has everything.
const plain = "mem"

func (b bucket) inMemory() bool { return strings.HasPrefix(b.name, plain) }

func (b bucket) run(t *testing.T, open Open, settle func(store.Volume) error) {
	for _, c := range cases() {
		if c.needs != nil && !c.needs(b.caps) || c.once && b.name != plain && b.name != plain+", with a base" || c.memory && !b.inMemory() || c.prompt && settle != nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, open, settle, b)) })
	}
}

func buckets(t *testing.T) []bucket {
	folder := func(t *testing.T) backend.Backend {
		b, err := file.Open(t.TempDir(), file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	list := []bucket{{name: "file", caps: folder(t).Caps(), make: folder}}
	for name, opts := range map[string]mem.Options{
		plain:            {},
		"mem plain":      {Plain: true, Seconds: true, PageSize: 3},
		"mem versioned":  {Versions: true, PageSize: 7},
		"mem lesser":     {Caps: lesser},
		"mem ignoring":   {Caps: lesser, IgnoreConds: true},
		"mem no nesting": {Caps: func(c *backend.Caps) { c.ObjectPrefix = false }},
	} {
		list = append(list, bucket{name: name, caps: mem.New("", opts).Caps(), make: func(t *testing.T) backend.Backend {
			return mem.New(t.Name(), opts)
		}})
	}
	for _, b := range list[1:] {
		if b.name == plain {
			auto := b
			auto.name, auto.attrs = "mem, attributes as mounts ask for them", store.AttrsAuto
			list = append(list, auto)
		}
		if b.name != "mem versioned" && b.name != "mem ignoring" {
			b.name, b.base = b.name+", with a base", true
			list = append(list, b)
		}
	}
	return list
}

// lesser takes away what the lesser stores do not have.
func lesser(c *backend.Caps) {
	c.CondCreate, c.CondOverwrite, c.CondDelete, c.CondBatch, c.CondCopy, c.CondAssemble = false, false, false, false, false, false
	c.Copy, c.Metadata = false, false
}

// test is one promise.
type test struct {
	name   string
	needs  func(backend.Caps) bool // of the bucket; nil: any will do
	once   bool                    // only over the plain bucket in memory: the bucket makes no difference
	memory bool                    // only over buckets in memory: thousands of requests, and a disk is slow
	prompt bool                    // only for volumes whose removals wait for the bucket
	run    func(e *env)
}

func cases() []test {
	var all []test
	for _, part := range [][]test{
		lookups(), names(), contents(), handles(), creates(), attributes(), links(), directories(), removals(),
		renames(), renamesOpen(), parallels(), hosts(), conflicts(), faults(), models(),
	} {
		all = append(all, part...)
	}
	return all
}

func metadata(c backend.Caps) bool { return c.Metadata }
func conditions(c backend.Caps) bool {
	return c.CondCreate && c.CondOverwrite
}
func nesting(c backend.Caps) bool { return c.ObjectPrefix }

// isConflictCopy says whether key is that of the losing content of path.
func isConflictCopy(key, path string) bool { return strings.HasPrefix(key, path+".conflict-") }
