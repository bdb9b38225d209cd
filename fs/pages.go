package fs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// pages is what is known of the open handles and the page cache of a file.
//
// The kernel has one size and one page cache for a node, so all its handles
// read one content, their lineage: a version in the bucket, with what was
// written here since. A version that another host made while the file is open
// here is another lineage and gets a node of its own, as a file that a rename
// puts in the place of an open one does.
type pages struct {
	handles []*handle

	// changes counts the changes of file or attributes through this mount,
	// and changing those under way.
	changes  uint64
	changing int

	// Where known, the page cache holds the content of version, and what was
	// written since: writes counts that, and settled is its value when
	// version was published.
	known   bool
	version string
	writes  uint64
	settled uint64

	strays int   // reads at random that reached this process, since the last push
	next   int64 // where the last read ended
	push   *push // under way, or nil
}

// lineage is what the handles of a node were about at some moment.
type lineage struct {
	n        *fileNode
	open     bool
	version  string
	changes  uint64
	changing bool
}

func (n *fileNode) lineage() lineage {
	n.mu.Lock()
	l := lineage{n: n, changes: n.pages.changes, changing: n.pages.changing > 0}
	n.mu.Unlock()
	e, open, err := n.held(context.Background())
	l.open, l.version = open && err == nil, e.Version
	return l
}

// held is the entry as an open handle has it; false where none is open.
func (n *node) held(ctx context.Context) (e store.Entry, open bool, err error) {
	for {
		h := n.anyHandle(false)
		if h == nil {
			return store.Entry{}, false, nil
		}
		// Perhaps it is closed just now; it is forgotten before.
		if e, err = h.file.Stat(ctx); err == nil || n.anyHandle(false) == h {
			return e, true, err
		}
	}
}

// endedBy says whether e, which the volume said the name is after l was taken,
// is another lineage. A change through this mount may show in the one place
// before the other; so while there is one, it is not.
func (l lineage) endedBy(e store.Entry) bool {
	return l.open && !l.changing && l.version != e.Version && l.n.lineage() == l
}

// change notes the begin of a change, and its result the end.
func (n *node) change() (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pages.changes++
	n.pages.changing++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.pages.changing--
	}
}

// joins says whether f, just opened, is of the lineage of the open handles.
func (n *fileNode) joins(ctx context.Context, f store.File) (store.Entry, bool, error) {
	for {
		before := n.lineage()
		e, err := f.Stat(ctx)
		if err != nil || !before.open {
			return e, true, err
		}
		// A publication changes the version of all handles at once.
		if after := n.lineage(); after.version == before.version {
			return e, !after.open || e.Version == after.version, nil
		}
	}
}

// attach makes a handle of an open file, whose entry is e, and returns it with
// the flags that tell the kernel how to cache it.
func (n *fileNode) attach(f store.File, e store.Entry, flags uint32) (*handle, uint32) {
	h := &handle{n: n, file: f, write: writes(flags)}
	h.append = h.write && flags&openAppend != 0

	n.m.mu.Lock()
	n.m.open[h] = struct{}{}
	n.m.mu.Unlock()

	n.mu.Lock()
	fuseFlags := n.attachLocked(h, e, flags)
	n.mu.Unlock()
	if h.write || fuseFlags&fuse.FOPEN_KEEP_CACHE == 0 {
		n.endPush(nil) // and none begins while there is a writer
	}
	return h, fuseFlags
}

func (n *fileNode) attachLocked(h *handle, e store.Entry, flags uint32) uint32 {
	p := &n.pages
	var fuseFlags uint32
	switch {
	case flags&openTruncate != 0: // the kernel drops all pages
		p.known, p.version = true, e.Version
		p.writes++
	case len(p.handles) > 0 || p.known && p.version == e.Version:
		fuseFlags |= fuse.FOPEN_KEEP_CACHE
	default:
		p.known, p.version, p.settled = true, e.Version, p.writes
	}
	p.handles = append(p.handles, h)
	if !h.write {
		fuseFlags |= fuse.FOPEN_NOFLUSH // there is nothing that its close could lose
	}
	if h.append {
		// Where it really lands, the kernel does not know: it must not put it
		// into a page.
		fuseFlags = fuseFlags&^fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_DIRECT_IO
	}
	return fuseFlags
}

// detach forgets a handle. What it changed after the last publication is
// published at its close, as a version that is not known here.
func (n *fileNode) detach(h *handle) {
	n.m.mu.Lock()
	delete(n.m.open, h)
	n.m.mu.Unlock()

	n.mu.Lock()
	defer n.mu.Unlock()
	p := &n.pages
	for i, other := range p.handles {
		if other == h {
			p.handles = append(p.handles[:i:i], p.handles[i+1:]...)
			break
		}
	}
	if len(p.handles) == 0 && p.writes != p.settled {
		p.known = false
	}
}

// anyHandle returns a handle that is open on n, if need be one to write with.
func (n *node) anyHandle(write bool) *handle {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.pages.handles {
		if h.write || !write {
			return h
		}
	}
	return nil
}

// wrote notes a change of the content.
func (n *fileNode) wrote() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pages.writes++
}

func (n *fileNode) writes() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pages.writes
}

// published notes that the bucket has what the cache holds, up to the given
// count of writes.
func (n *fileNode) published(e store.Entry, writes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := &n.pages; p.known {
		p.version, p.settled = e.Version, writes
	}
}

// lostPages notes that the cache may hold what the bucket will never have.
func (n *fileNode) lostPages() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pages.known = false
}

// refreshAttr makes the kernel ask for the attributes again if what it was told
// is not e any more. It must not touch pages here: that waits for reads, which
// may wait for this request.
func (n *node) refreshAttr(e store.Entry) {
	n.mu.Lock()
	same := n.told.same(stampOf(e)) && n.attr == ownerOf(e)
	n.mu.Unlock()
	if !same && !n.m.ending.Load() {
		_ = n.NotifyContent(-1, 0) // an error says that the kernel knows nothing of it
	}
}
