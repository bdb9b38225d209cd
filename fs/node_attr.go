package fs

import (
	"context"
	"errors"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

const (
	modeBits  = 0o7777
	setUID    = 0o4000
	setGID    = 0o2000
	groupExec = 0o0010

	// blockSize is what programs are advised to read and write at a time.
	blockSize = 128 << 10
	dirSize   = 4096
)

// fill writes the attributes of e as those of n, and remembers what was told.
func (n *node) fill(e store.Entry, out *fuse.Attr) {
	n.mu.Lock()
	n.told = stampOf(e)
	n.attr = ownerOf(e)
	n.mu.Unlock()

	out.Ino = n.number
	out.Mode = e.Mode
	out.Owner = fuse.Owner{Uid: e.UID, Gid: e.GID}
	// A directory has one link too: more would promise find(1) a count of
	// subdirectories.
	out.Nlink = 1
	if n.m.places.isGone(n) {
		out.Nlink = 0
	}
	out.Size = uint64(e.Size)
	out.Blksize = blockSize
	out.Blocks = (out.Size + 511) / 512
	if e.IsDir() {
		out.Size, out.Blocks = dirSize, 0
	}
	mtime := known(e.Mtime, time.Unix(0, 0))
	if n.isRoot() {
		mtime = n.m.since // no object has its attributes
	}
	atime, ctime := known(e.Atime, mtime), known(e.Ctime, mtime)
	out.SetTimes(&atime, &mtime, &ctime)
}

func known(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

func stampOf(e store.Entry) stamp {
	return stamp{version: e.Version, size: e.Size, mtime: e.Mtime, ctime: e.Ctime}
}

func ownerOf(e store.Entry) owner { return owner{mode: e.Mode, uid: e.UID, gid: e.GID} }

func (s stamp) same(t stamp) bool {
	return s.version == t.version && s.size == t.size && s.mtime.Equal(t.mtime) && s.ctime.Equal(t.ctime)
}

// isVersion says whether that version is the one last seen.
func (n *node) isVersion(version string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return version != "" && n.told.version == version
}

// owner is what was last seen of mode and owner.
func (n *node) owner() owner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attr
}

// Getattr implements gofs.NodeGetattrer.
func (n *node) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) errno {
	ctx, done := n.m.patient(ctx)
	defer done()
	e, err := n.entry(ctx)
	if err != nil {
		var known bool
		if e, known = n.lastDir(); !known {
			return n.errno("getattr", err)
		}
	}
	n.fill(e, &out.Attr)
	return 0
}

// lastDir is what was last seen of a directory that was removed or replaced
// here. Who still has it open, or works in it, may ask for its attributes.
func (n *node) lastDir() (store.Entry, bool) {
	if !n.IsDir() || !n.m.places.isGone(n) {
		return store.Entry{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return store.Entry{Attr: store.Attr{
		Mode: n.attr.mode, UID: n.attr.uid, GID: n.attr.gid, Mtime: n.told.mtime,
	}}, n.attr.mode != 0
}

// entry returns what n is: by an open handle, whose lineage it is, or else by its name.
func (n *node) entry(ctx context.Context) (store.Entry, error) {
	if e, open, err := n.held(ctx); open {
		return e, err
	}
	e, err := at(ctx, n, func(p place) (store.Entry, error) { return p.tree.Lookup(ctx, p.path) })
	err = nodeErr(err)
	switch {
	case err != nil && n.isRoot():
		n.m.log.Warn("attributes of the root", "err", err)
		return store.Entry{Attr: store.Attr{Mode: store.ModeDir | 0o755, UID: n.m.uid, GID: n.m.gid}}, nil
	case err == nil && !n.isRoot() && e.Mode&store.ModeType != n.Mode():
		err = errGone // another host replaced it by something else
	}
	return e, err
}

// Setattr implements gofs.NodeSetattrer.
func (n *node) Setattr(ctx context.Context, fh gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) errno {
	ctx = steadfast(ctx)
	h, _ := fh.(*handle)
	e, err := n.setAttr(ctx, h, n.attrChange(in))
	if err == nil && h == nil {
		// By now the name may be another host's file, whose size is not that
		// of what is open here.
		if held, open, herr := n.held(ctx); open {
			e, err = held, herr
		}
	}
	if err != nil {
		return n.errno("setattr", err)
	}
	n.fill(e, &out.Attr)
	out.SetTimeout(n.m.ttl)
	return 0
}

// attrChange reads a request, and adds that set-uid bits fall where it asks for that.
func (n *node) attrChange(in *fuse.SetAttrIn) store.AttrChange {
	var c store.AttrChange
	if mode, ok := in.GetMode(); ok {
		c.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		c.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		c.GID = &gid
	}
	if mtime, ok := in.GetMTime(); ok {
		c.Mtime = &mtime
	}
	if atime, ok := in.GetATime(); ok {
		c.Atime = &atime
	}
	if size, ok := in.GetSize(); ok {
		signed := int64(size)
		c.Size = &signed
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 && c.Mode == nil {
		if mode := n.owner().mode; mode != withoutPrivileges(mode) {
			mode = withoutPrivileges(mode) & modeBits
			c.Mode = &mode
		}
	}
	return c
}

// withoutPrivileges drops what must not survive a change by somebody else:
// set-uid, and set-gid where it is not the mark for mandatory locks of old.
func withoutPrivileges(mode uint32) uint32 {
	if mode&store.ModeType == store.ModeDir {
		return mode // to which set-gid is no privilege
	}
	mode &^= setUID
	if mode&groupExec != 0 {
		mode &^= setGID
	}
	return mode
}

// setAttr makes a change: of the open file h, where the kernel names one, else
// of the name, and where that is lost by any handle.
func (n *node) setAttr(ctx context.Context, h *handle, c store.AttrChange) (store.Entry, error) {
	if c.Mode == nil && c.UID == nil && c.GID == nil && c.Mtime == nil && c.Atime == nil && c.Size == nil && c.Xattr == nil {
		return n.entry(ctx)
	}
	defer n.change()()
	if c.Size != nil {
		n.endPush(nil) // and none begins during a change
	}
	if h != nil {
		return h.setAttr(ctx, c)
	}
	e, err := at(ctx, n, func(p place) (store.Entry, error) { return p.tree.SetAttr(ctx, p.path, c) })
	err = nodeErr(err)
	if errors.Is(err, errGone) {
		if h := n.anyHandle(c.Size != nil); h != nil {
			e, err = h.setAttr(ctx, c)
		}
	}
	return e, err
}

// Statfs implements gofs.NodeStatfser. A bucket has no end: a petabyte is free.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) errno {
	const (
		block  = 4096
		blocks = 1 << 50 / block
		files  = 1 << 32
	)
	out.Bsize, out.Frsize = block, block
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	out.Files, out.Ffree = files, files
	out.NameLen = maxName
	return 0
}
