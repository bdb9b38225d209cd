package fs

import (
	"context"
	"errors"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// maxTarget is the longest target of a symbolic link in bytes.
const maxTarget = 4095

// dirHandle is an open directory. It is a snapshot, taken at the first read and
// again after a rewind, so that offsets are stable and each name comes once,
// whatever changes meanwhile.
//
// go-fuse calls one method at a time, Fsyncdir excepted.
type dirHandle struct {
	d       *dirNode
	entries []fuse.DirEntry // nil before the first read
	next    int
}

// OpendirHandle implements gofs.NodeOpendirHandler.
func (d *dirNode) OpendirHandle(context.Context, uint32) (gofs.FileHandle, uint32, errno) {
	return &dirHandle{d: d}, 0, 0
}

// Readdirent implements gofs.FileReaddirenter.
func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, errno) {
	if h.entries == nil {
		if err := h.load(ctx); err != nil {
			return nil, h.d.errno("readdir", err)
		}
	}
	if h.next >= len(h.entries) {
		return nil, 0
	}
	e := h.entries[h.next]
	h.next++
	e.Off = uint64(h.next)
	return &e, 0
}

// Seekdir implements gofs.FileSeekdirer.
func (h *dirHandle) Seekdir(ctx context.Context, off uint64) errno {
	if off == 0 { // rewinddir(3)
		h.entries, h.next = nil, 0
		return 0
	}
	if h.entries == nil {
		if err := h.load(ctx); err != nil {
			return h.d.errno("readdir", err)
		}
	}
	h.next = int(min(off, uint64(len(h.entries))))
	return 0
}

func (h *dirHandle) load(ctx context.Context) error {
	ctx, done := h.d.m.patient(ctx)
	defer done()
	entries, err := at(ctx, &h.d.node, func(p place) ([]fuse.DirEntry, error) { return h.d.list(ctx, p) })
	if errors.Is(err, errGone) {
		err = store.ErrNotExist
	}
	if err == nil {
		h.entries = entries
	}
	return err
}

// list is the directory at p, with "." and "..".
func (d *dirNode) list(ctx context.Context, p place) ([]fuse.DirEntry, error) {
	list := []fuse.DirEntry{
		{Name: ".", Mode: store.ModeDir, Ino: d.number},
		{Name: "..", Mode: store.ModeDir, Ino: d.m.places.parentNumber(&d.node)},
	}
	hash := p.hash()
	for e, err := range p.tree.List(ctx, p.path) {
		if err != nil {
			return nil, err
		}
		list = append(list, d.listed(hash, e))
	}
	return list, nil
}

// listed is an entry for readdir(3): with the type and number that stat(2)
// shows, or type 0 where that is not known.
func (d *dirNode) listed(hash uint64, e store.Entry) fuse.DirEntry {
	entry := fuse.DirEntry{Name: e.Name, Mode: listedType(e)}
	n := d.member(e.Name)
	if n == nil {
		entry.Ino = d.m.numbers.peek(hashName(hash, e.Name))
		return entry
	}
	entry.Ino = n.base().number
	if entry.Mode == 0 && n.base().isVersion(e.Version) {
		entry.Mode = n.EmbeddedInode().Mode()
	}
	return entry
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
