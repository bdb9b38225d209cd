package fs

import (
	"context"
	"errors"
	"slices"
	"sort"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// maxTarget is the longest target of a symbolic link in bytes.
const maxTarget = 4095

// dirHandle is an open directory. It is read page by page, in a fixed order, so
// that the first names of a large one come at once, and only a few pages are in
// memory. Offsets count the entries that this handle has given. What changes
// meanwhile neither hides nor repeats another name.
//
// go-fuse calls one method at a time, Fsyncdir excepted.
type dirHandle struct {
	d     *dirNode
	pages []dirPage // those still in memory, without gaps; empty before the first read
	past  []dirMark // where those began that were dropped
	next  uint64    // offset of the entry to give next
}

// dirPage is a part of a directory.
type dirPage struct {
	dirMark
	entries []fuse.DirEntry
	to      store.Cursor
	end     bool
}

// dirMark is where a page begins.
type dirMark struct {
	offset uint64
	from   store.Cursor
}

// maxDirEntries is how many entries a handle keeps for who seeks back. Beyond
// that, seekdir(3) lists again, and may repeat some names where the directory has
// changed.
const maxDirEntries = 20_000

// OpendirHandle implements gofs.NodeOpendirHandler. The kernel keeps no pages of
// a listing (FOPEN_CACHE_DIR): they would outlive what other hosts do, and one
// handle would be asked for offsets of another.
func (d *dirNode) OpendirHandle(context.Context, uint32) (gofs.FileHandle, uint32, errno) {
	return &dirHandle{d: d}, 0, 0
}

// Readdirent implements gofs.FileReaddirenter.
func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, errno) {
	for {
		p, err := h.page(ctx)
		if err != nil {
			return nil, h.d.errno("readdir", err)
		}
		if i := h.next - p.offset; i < uint64(len(p.entries)) {
			h.next++
			e := p.entries[i]
			e.Off = h.next
			return &e, 0
		}
		if p.end {
			return nil, 0
		}
	}
}

// Lookup implements gofs.FileLookuper: the attributes that go along with a
// listing are those that are known. The kernel asks for others when somebody
// wants them.
func (h *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, errno) {
	p, err := h.d.m.places.locate(&h.d.node)
	if err != nil {
		return nil, notTold
	}
	tree, ok := p.tree.(store.Recaller)
	if !ok {
		return nil, notTold
	}
	path, err := p.child(name)
	if err != nil {
		return nil, notTold
	}
	seen, epoch := h.d.seen(name), h.d.m.kernel.epoch.Load()
	e, ok := tree.Recall(path)
	if !ok {
		return nil, notTold
	}
	in, err := h.d.enter(ctx, name, e, seen, out)
	h.d.m.kernel.date(epoch, out)
	if err != nil {
		return nil, notTold
	}
	return in, 0
}

// Seekdir implements gofs.FileSeekdirer.
func (h *dirHandle) Seekdir(_ context.Context, off uint64) errno {
	h.next = off
	if off == 0 { // rewinddir(3)
		h.pages, h.past = nil, nil
	}
	return 0
}

// page is the one with the next entry, or the last one.
func (h *dirHandle) page(ctx context.Context) (*dirPage, error) {
	if len(h.pages) > 0 && h.next < h.pages[0].offset {
		i := sort.Search(len(h.past), func(i int) bool { return h.past[i].offset > h.next }) - 1
		mark := h.past[i]
		h.pages, h.past = nil, h.past[:i]
		if err := h.load(ctx, mark); err != nil {
			return nil, err
		}
	}
	if len(h.pages) == 0 {
		if err := h.load(ctx, dirMark{}); err != nil {
			return nil, err
		}
	}
	for i := range h.pages {
		p := &h.pages[i]
		if p.end || h.next < p.offset+uint64(len(p.entries)) {
			return p, nil
		}
	}
	last := &h.pages[len(h.pages)-1]
	if err := h.load(ctx, dirMark{last.offset + uint64(len(last.entries)), last.to}); err != nil {
		return nil, err
	}
	return &h.pages[len(h.pages)-1], nil
}

// load reads one more page.
func (h *dirHandle) load(ctx context.Context, mark dirMark) error {
	ctx, done := h.d.m.patient(ctx)
	defer done()
	p, err := at(ctx, &h.d.node, func(p place) (dirPage, error) { return h.d.list(ctx, p, mark) })
	if errors.Is(err, errGone) {
		err = store.ErrNotExist
	}
	if err != nil {
		return err
	}
	h.pages = append(h.pages, p)
	kept := 0
	for _, p := range h.pages {
		kept += len(p.entries)
	}
	for kept > maxDirEntries && len(h.pages) > 2 {
		kept -= len(h.pages[0].entries)
		h.past = append(h.past, h.pages[0].dirMark)
		h.pages = slices.Delete(h.pages, 0, 1)
	}
	return nil
}

// list is a page of the directory at p, the first one with "." and "..".
func (d *dirNode) list(ctx context.Context, p place, mark dirMark) (dirPage, error) {
	out := dirPage{dirMark: mark}
	if mark.from.IsStart() {
		out.entries = []fuse.DirEntry{
			{Name: ".", Mode: store.ModeDir, Ino: d.number},
			{Name: "..", Mode: store.ModeDir, Ino: d.m.places.parentNumber(&d.node)},
		}
	}
	page, err := p.tree.ListPage(ctx, p.path, mark.from)
	if err != nil {
		return dirPage{}, err
	}
	hash := p.hash()
	for _, e := range page.Entries {
		out.entries = append(out.entries, d.listed(p, hash, e))
	}
	out.to, out.end = page.Next, page.Done
	return out, nil
}

// listed is an entry for readdir(3): with the type and number that stat(2)
// shows, or type 0 where that is not known.
func (d *dirNode) listed(p place, hash uint64, e store.Entry) fuse.DirEntry {
	entry := fuse.DirEntry{Name: e.Name, Mode: listedType(e)}
	if entry.Mode == 0 {
		// As Lookup does for the same entry, so that the type does not depend
		// on whether the kernel asks for attributes as well.
		entry.Mode = recalledType(p, e)
	}
	n := d.member(e.Name)
	if n == nil {
		entry.Ino = d.m.numbers.peek(store.Number(hash, e.Name))
		return entry
	}
	entry.Ino = n.base().number
	if entry.Mode == 0 && n.base().isVersion(e.Version) {
		entry.Mode = n.EmbeddedInode().Mode()
	}
	return entry
}

// recalledType is the type that is remembered of a listed file, or 0.
func recalledType(p place, e store.Entry) uint32 {
	tree, ok := p.tree.(store.Recaller)
	if !ok {
		return 0
	}
	path, err := p.child(e.Name)
	if err != nil {
		return 0
	}
	known, ok := tree.Recall(path)
	if !ok {
		return 0
	}
	return known.Mode & store.ModeType
}

// listedType is the type that a listing tells, or 0: a small file may as well be
// a symbolic link.
func listedType(e store.Entry) uint32 {
	if e.Partial && !e.IsDir() && e.Size <= maxTarget {
		return 0
	}
	return e.Mode & store.ModeType
}

// Fsyncdir implements gofs.FileFsyncdirer: names made are in the bucket when
// the call that did so returns, except of files still to be published; names
// that were removed may wait.
func (h *dirHandle) Fsyncdir(ctx context.Context, _ uint32) errno {
	p, err := h.d.m.places.locate(&h.d.node)
	if err != nil {
		return 0 // a directory that is gone keeps nothing
	}
	return h.d.errno("fsync", p.tree.Sync(steadfast(ctx), p.path))
}
