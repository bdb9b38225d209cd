package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keifs/keifs/store"
)

// models are random operations against a model of a file system.
func models() []test {
	run := func(seed uint64, steps int) func(e *env) {
		return func(e *env) { runModel(e, seed, steps) }
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("STORETEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	return []test{
		{name: "random operations do what a file system does", run: run(seed, 600)},
		{name: "many random operations do what a file system does", once: true, run: run(seed+1, 4000)},
		{name: "known random operations do what a file system does", once: true, run: run(1, 4000)},
	}
}

// node is a file, link or directory of the model.
type node struct {
	kind    uint32 // type bits
	mode    uint32 // permissions
	uid     uint32
	xattrs  map[string][]byte
	mtime   time.Time // where it was set and not overwritten since
	content []byte    // or the target of a link
	entries map[string]*node
}

func newDir() *node {
	return &node{kind: store.ModeDir, mode: 0o755, entries: map[string]*node{}}
}

// find walks the model. parent is nil where the path cannot be made.
func (n *node) find(path string) (parent, found *node, err error) {
	if path == "" {
		return nil, n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case n == nil:
			return nil, nil, store.ErrNotExist
		case n.kind != store.ModeDir:
			return nil, nil, store.ErrNotDir
		}
		parent, n = n, n.entries[name]
	}
	if n == nil {
		err = store.ErrNotExist
	}
	return parent, n, err
}

func (n *node) resize(size int) {
	n.content = append(n.content[:min(size, len(n.content))], make([]byte, max(0, size-len(n.content)))...)
	n.mtime = time.Time{}
}

func (n *node) write(p string, off int) {
	n.resize(max(len(n.content), off+len(p)))
	copy(n.content[off:], p)
}

// opened is a handle and the file it is of.
type opened struct {
	f     store.File
	n     *node
	write bool
}

// model runs operations on both sides.
type model struct {
	*env
	rnd   *rand.Rand
	attrs bool // the bucket keeps metadata
	root  *node
	open  []opened
	log   []string
}

func runModel(e *env, seed uint64, steps int) {
	m := &model{env: e, rnd: rand.New(rand.NewPCG(seed, 0)), root: newDir(), attrs: e.raw.Caps().Metadata}
	e.t.Logf("STORETEST_SEED=%d", seed)
	defer func() {
		if e.t.Failed() {
			e.t.Logf("seed %d, the last operations:\n%s", seed, strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
		}
	}()
	for i := range steps {
		m.step()
		if i%100 == 99 {
			m.compare()
		}
		if i%300 == 299 {
			m.remount()
		}
		if e.t.Failed() {
			return
		}
	}
	m.remount()
}

func (m *model) name() string { return string(rune('a' + m.rnd.IntN(4))) }

// somewhere is a path, mostly of something that is there.
func (m *model) somewhere() string {
	if m.rnd.IntN(3) > 0 {
		var all []string
		m.root.each("", func(path string, _ *node) { all = append(all, path) })
		if slices.Sort(all); len(all) > 0 {
			return all[m.rnd.IntN(len(all))]
		}
	}
	path := m.name()
	for m.rnd.IntN(2) == 0 && strings.Count(path, "/") < 3 {
		path += "/" + m.name()
	}
	return path
}

func (n *node) each(path string, fn func(string, *node)) {
	for name, child := range n.entries {
		p := strings.TrimPrefix(path+"/"+name, "/")
		fn(p, child)
		child.each(p, fn)
	}
}

func (m *model) bytes() string {
	return strings.Repeat(string(rune('A'+m.rnd.IntN(26))), 1+m.rnd.IntN(300))
}

// logf notes an operation.
func (m *model) logf(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// expect checks the error of an operation; want are those that are right,
// none for success. It says whether the operation happened.
func (m *model) expect(err error, want ...error) bool {
	m.t.Helper()
	if len(want) == 0 && err == nil {
		return true
	}
	for _, w := range want {
		if errors.Is(err, w) || w == store.ErrNotDir && errors.Is(err, store.ErrNotExist) {
			return false
		}
	}
	m.t.Errorf("%s: %v; want one of %v", m.log[len(m.log)-1], err, want)
	return false
}

func (m *model) step() {
	ops := []func(){
		m.create, m.create, m.openAny, m.openAny, m.closeAny, m.closeAny, m.writeAny, m.writeAny, m.writeAny, m.readAny, m.readAny,
		m.truncate, m.punch, m.flushAny, m.remove, m.mkdir, m.mkdir, m.rmdir, m.rename, m.rename, m.lookupAny, m.syncAll, m.overwrite,
	}
	if m.attrs {
		ops = append(ops, m.chmod, m.chmod, m.symlink)
	}
	ops[m.rnd.IntN(len(ops))]()
}

// same compares an entry with the model's.
func (m *model) same(what string, entry store.Entry, n *node) {
	m.t.Helper()
	equal(m.env, what+": type", entry.Mode&store.ModeType, n.kind)
	if n.kind != store.ModeDir {
		equal(m.env, what+": size", entry.Size, int64(len(n.content)))
	}
	if !m.attrs || entry.Partial {
		return
	}
	equal(m.env, what+": mode", entry.Mode&^store.ModeType, n.mode)
	equal(m.env, what+": uid", entry.UID, n.uid)
	equal(m.env, what+": xattrs", showXattrs(entry.Xattrs), showXattrs(n.xattrs))
	if n.kind == store.ModeDir {
		return // a volume may move its time on with its entries
	}
	if !n.mtime.IsZero() && !entry.Mtime.Equal(n.mtime) {
		m.t.Errorf("%s: mtime %v; want %v", what, entry.Mtime, n.mtime)
	}
}

// compare compares everything: all names, attributes and contents, and what
// the handles see.
func (m *model) compare() {
	m.t.Helper()
	m.compareDir("", m.root)
	for i, h := range m.open {
		what := "handle " + strconv.Itoa(i)
		equal(m.env, what, m.content(h.f), string(h.n.content))
		m.same(what, m.stat(h.f), h.n)
	}
}

func (m *model) compareDir(path string, dir *node) {
	m.t.Helper()
	var names []string
	for _, entry := range m.list(m.tree, path) {
		names = append(names, entry.Name)
	}
	equal(m.env, "names in "+path, strings.Join(names, " "), strings.Join(slices.Sorted(maps.Keys(dir.entries)), " "))
	if m.t.Failed() {
		return
	}
	for name, n := range dir.entries {
		p := strings.TrimPrefix(path+"/"+name, "/")
		m.same(p, m.lookup(m.tree, p), n)
		switch n.kind {
		case store.ModeDir:
			m.compareDir(p, n)
		case store.ModeSymlink:
			target, err := m.tree.Readlink(m.ctx, m.path(p))
			m.ok(err)
			equal(m.env, "target of "+p, target, string(n.content))
		default:
			equal(m.env, "content of "+p, m.get0(m.tree, p), string(n.content))
		}
	}
}

// remount goes on with a volume that knows nothing. The old one publishes
// what is not published when it is closed.
func (m *model) remount() {
	m.t.Helper()
	m.logf("remount")
	m.compare()
	m.open = nil
	m.env.remount()
	m.compare()
	m.root.each("", func(path string, n *node) {
		if n.kind != store.ModeDir {
			data, _ := m.object("main/" + path)
			equal(m.env, "object of "+path, data, string(n.content))
		}
	})
}
