package fs

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// kernel tells the kernel what it must ask about again, though the time to live
// of what it was told is not over. It does so on a goroutine of its own: within
// a request the kernel may hold a lock that the telling needs, and wait for the
// answer to that request.
//
// Taking an entry from it (NotifyEntry) also detaches what is mounted over that
// name. The entry of a directory is not taken, unless the directory is gone: who
// works in it would lose the way to it. So entries of directories live for
// dirTTL at most, and what is no longer there by then is found out.
type kernel struct {
	m *mounted

	// epoch counts what was found to be another than it was. An answer that was
	// asked for in an earlier one is good for this moment only.
	epoch atomic.Uint64
	told  atomic.Int64 // names

	inodes  int           // nodes there may be before some are let go; negative: any number
	sweepAt atomic.Uint64 // serial from which on there may be too many
	swept   uint64        // serial of the last one that the kernel was asked to let go
	old     bool          // it cannot do that by inode

	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	changed map[change]struct{}
	all     bool // too many to name them
}

// change is what a name was found to be by now.
type change struct {
	branch  string
	path    store.Path
	gone    bool
	dir     bool
	version string // empty: not known
}

// maxChanges is how many names wait to be told. Beyond them, the kernel is told
// to ask about everything again.
const maxChanges = 10_000

// maxPruned is how many inodes the kernel is asked to let go at once.
const maxPruned = 1000

// dirTTL is for how long the kernel may rely on the entry of a directory at most.
const dirTTL = time.Second

func newKernel(m *mounted, opts Options) *kernel {
	return &kernel{
		m: m, inodes: cmp.Or(opts.Inodes, defaultInodes), old: opts.old,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}), changed: map[change]struct{}{},
	}
}

// notice takes what the volume has found out that somebody else made of a name;
// nil is nothing. It never waits.
func (k *kernel) notice(branch string, p store.Path, e *store.Entry) {
	c := change{branch: branch, path: p, gone: e == nil}
	if e != nil {
		c.dir, c.version = e.IsDir(), e.Version
	}
	k.mu.Lock()
	if len(k.changed) < maxChanges {
		k.changed[c] = struct{}{}
	} else {
		k.all = true
	}
	k.mu.Unlock()
	k.epoch.Add(1)
	k.rouse()
}

func (k *kernel) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run tells the kernel until close.
func (k *kernel) run() {
	defer close(k.ended)
	for {
		select {
		case <-k.wake:
		case <-k.quit:
			return
		}
		k.mu.Lock()
		changed, all := k.changed, k.all
		k.changed, k.all = map[change]struct{}{}, false
		k.mu.Unlock()
		if all {
			k.m.root.forget()
			clear(changed)
		}
		for c := range changed {
			k.tell(c)
		}
		k.sweep()
	}
}

func (k *kernel) close() {
	close(k.quit)
	<-k.ended
}

// date limits an answer to this moment, if it was asked for in an earlier epoch.
func (k *kernel) date(epoch uint64, out *fuse.EntryOut) {
	if k.epoch.Load() != epoch {
		out.SetEntryTimeout(1) // 0 is the default
		out.SetAttrTimeout(1)
	}
}

// tell makes the kernel ask about one name.
func (k *kernel) tell(c change) {
	dir, name := k.m.find(c.branch, c.path)
	if dir == nil {
		return
	}
	n := dir.member(name)
	if n == nil || k.m.ending.Load() {
		return
	}
	f, isFile := n.(*fileNode)
	if c.gone || c.dir != n.base().IsDir() || isFile && f.isOtherThan(c.version) {
		_ = dir.NotifyEntry(name) // an error says that the kernel knows nothing of it
	}
	n.base().askAttr()
	k.told.Add(1)
}

// isOtherThan says whether n is open as another version than that: the name
// needs a node of its own then.
func (n *fileNode) isOtherThan(version string) bool {
	l := n.lineage()
	return l.open && !l.changing && l.version != version
}

// askAttr makes the kernel ask for the attributes of n before it believes
// anything more. No pages: that waits for reads under way.
func (n *node) askAttr() { _ = n.NotifyContent(-1, 0) }

// find returns the directory of a path, and the name in it; nil where the kernel
// does not know the directory.
func (m *mounted) find(branch string, p store.Path) (*dirNode, string) {
	if p.IsRoot() {
		return m.root, branch
	}
	dir := m.root
	if branch != "" {
		dir, _ = dir.member(branch).(*dirNode)
	}
	return dir.find(p)
}

// find returns the directory of a path below d, as mounted.find.
func (d *dirNode) find(p store.Path) (*dirNode, string) {
	if d == nil || p.Dir().IsRoot() {
		return d, p.Name()
	}
	up, name := d.find(p.Dir())
	if up == nil {
		return nil, ""
	}
	dir, _ := up.member(name).(*dirNode)
	return dir, p.Name()
}

// forget makes the kernel ask about n and all below it before it believes
// anything more.
func (d *dirNode) forget() {
	var dirs []*gofs.Inode
	d.forgetBelow(&dirs)
	slices.Reverse(dirs) // a directory that knows others cannot go
	for part := range slices.Chunk(dirs, maxPruned) {
		_ = d.NotifyPrune(part) // older kernels cannot, see dirTTL
	}
}

func (d *dirNode) forgetBelow(dirs *[]*gofs.Inode) {
	d.askAttr()
	*dirs = append(*dirs, d.EmbeddedInode())
	for name := range d.Children() {
		switch n := d.member(name).(type) {
		case nil:
		case *dirNode:
			n.forgetBelow(dirs)
		default:
			d.forgetFile(name, n)
		}
	}
}

// forgetFile is forget for a name of d that is no directory.
func (d *dirNode) forgetFile(name string, n member) {
	if !d.m.ending.Load() {
		_ = d.NotifyEntry(name)
		n.base().askAttr()
	}
}

// Refresh makes the volume and the kernel forget what the bucket said about what
// is at a path of the mount and below it; the path of everything is empty.
// What is not in the bucket yet stays. The error is that of store.SplitPath.
func (s *Server) Refresh(path string) error {
	branch, p, err := store.SplitPath(path)
	if err != nil {
		return err
	}
	if vol, ok := s.m.vol.(store.Refresher); ok {
		vol.Refresh(branch, p)
	}
	s.m.kernel.epoch.Add(1)
	if branch == "" {
		s.m.root.forget()
		return nil
	}
	dir, name := s.m.find(branch, p)
	if dir == nil {
		return nil // the kernel does not know the way to it
	}
	switch n := dir.member(name).(type) {
	case nil:
	case *dirNode:
		n.forget()
	default:
		dir.forgetFile(name, n)
	}
	return nil
}
