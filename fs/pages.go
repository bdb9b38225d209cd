package fs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// pages is what is known of the kernel's page cache of a file. There is one for
// all its handles, so they may share it only as far as they read one content.
type pages struct {
	handles []*handle

	// Where known, the cache holds nothing but the content of version, and
	// what was written here since: writes counts that, and settled is its
	// value when version was published.
	known   bool
	version string
	writes  uint64
	settled uint64
}

// attach makes a handle of an open file, whose entry is e, and returns it with
// the flags that tell the kernel how to cache it.
func (n *fileNode) attach(f store.File, e store.Entry, flags uint32) (*handle, uint32) {
	h := &handle{n: n, file: f, write: writes(flags)}
	h.append = h.write && flags&openAppend != 0
	var fuseFlags uint32
	if !h.write {
		fuseFlags |= fuse.FOPEN_NOFLUSH // there is nothing that its close could lose
	}
	sharer, others := n.sharer(e.Version)

	n.m.mu.Lock()
	n.m.open[h] = struct{}{}
	n.m.mu.Unlock()

	n.mu.Lock()
	defer n.mu.Unlock()
	p := &n.pages
	p.handles = append(p.handles, h)
	switch {
	case others && !sharer && flags&openTruncate == 0:
		h.apart = true
		fuseFlags |= fuse.FOPEN_DIRECT_IO
	case flags&openTruncate != 0:
		p.known, p.version = true, e.Version // the kernel drops all pages
		p.writes++
	case p.known && p.version == e.Version || sharer:
		fuseFlags |= fuse.FOPEN_KEEP_CACHE
	default:
		p.known, p.version, p.settled = true, e.Version, p.writes
	}
	if h.append {
		// Where it really lands, the kernel does not know: it must not put it
		// into a page.
		fuseFlags = fuseFlags&^fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_DIRECT_IO
	}
	return h, fuseFlags
}

// sharer says whether handles are open that use the page cache, and whether
// one of them is about that version.
func (n *fileNode) sharer(version string) (sharer, others bool) {
	n.mu.Lock()
	var users []*handle
	for _, h := range n.pages.handles {
		if !h.apart {
			users = append(users, h)
		}
	}
	n.mu.Unlock()
	for _, h := range users {
		if e, err := h.file.Stat(context.Background()); err == nil && e.Version == version {
			return true, true
		}
	}
	return false, len(users) > 0
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
func (n *fileNode) published(h *handle, e store.Entry, writes uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := &n.pages; !h.apart && p.known {
		p.version, p.settled = e.Version, writes
	}
}

// lostPages notes that the cache may hold what the bucket will never have.
func (n *fileNode) lostPages() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pages.known = false
}

// refreshAttr makes the kernel ask for size and times again if what it was told
// is not e any more. It must not touch pages here: that waits for reads, which
// may wait for this request.
func (n *node) refreshAttr(e store.Entry) {
	n.mu.Lock()
	same := n.told.same(stampOf(e)) && n.attr.mode == e.Mode
	n.mu.Unlock()
	if !same && !n.m.ending.Load() {
		n.NotifyContent(-1, 0)
	}
}
