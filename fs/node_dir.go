package fs

import (
	"context"
	"errors"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// maxName is the longest component in bytes.
const maxName = 255

// dirNode is a directory: the root, a branch, or one in a branch.
type dirNode struct{ node }

// Lookup implements gofs.NodeLookuper.
func (d *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, errno) {
	ctx, done := d.m.patient(ctx)
	defer done()
	d.pin(ctx, name)
	seen, epoch := d.seen(name), d.m.kernel.epoch.Load()
	e, err := atName(ctx, d, name, func(t store.Tree, p store.Path) (store.Entry, error) { return t.Lookup(ctx, p) })
	if errors.Is(err, store.ErrBadName) {
		err = store.ErrNotExist // what cannot have a name is not there
	}
	if err != nil {
		return nil, d.errno("lookup", err)
	}
	in, err := d.enter(ctx, name, e, seen, out)
	d.m.kernel.date(epoch, out)
	return in, d.errno("lookup", err)
}

// Mkdir implements gofs.NodeMkdirer.
func (d *dirNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, errno) {
	attr := d.newAttr(ctx, store.ModeDir|mode&modeBits)
	return d.makeEntry(ctx, "mkdir", name, out, func(ctx context.Context, t store.Tree, p store.Path) (store.Entry, error) {
		return t.Mkdir(ctx, p, attr)
	})
}

// Mknod implements gofs.NodeMknoder.
func (d *dirNode) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*gofs.Inode, errno) {
	switch mode & store.ModeType {
	case store.ModeFIFO, store.ModeSocket, store.ModeRegular:
	default:
		return nil, d.errno("mknod", errNotPermitted)
	}
	attr := d.newAttr(ctx, mode&(store.ModeType|modeBits))
	return d.makeEntry(ctx, "mknod", name, out, func(ctx context.Context, t store.Tree, p store.Path) (store.Entry, error) {
		return t.Mknod(ctx, p, attr, "")
	})
}

// Symlink implements gofs.NodeSymlinker.
func (d *dirNode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*gofs.Inode, errno) {
	attr := d.newAttr(ctx, store.ModeSymlink|0o777)
	return d.makeEntry(ctx, "symlink", name, out, func(ctx context.Context, t store.Tree, p store.Path) (store.Entry, error) {
		return t.Mknod(ctx, p, attr, target)
	})
}

// Link implements gofs.NodeLinker: an object has one name.
func (d *dirNode) Link(context.Context, gofs.InodeEmbedder, string, *fuse.EntryOut) (*gofs.Inode, errno) {
	return nil, d.errno("link", errNotPermitted)
}

// makeEntry makes a name by fn.
func (d *dirNode) makeEntry(ctx context.Context, op, name string, out *fuse.EntryOut,
	fn func(context.Context, store.Tree, store.Path) (store.Entry, error)) (*gofs.Inode, errno) {
	ctx = steadfast(ctx)
	e, err := atName(ctx, d, name, func(t store.Tree, p store.Path) (store.Entry, error) { return fn(ctx, t, p) })
	if err != nil {
		return nil, d.errno(op, err)
	}
	in, err := d.enter(ctx, name, e, d.seen(name), out)
	return in, d.errno(op, err)
}

// newAttr is the attributes of what the caller makes in d. A set-gid directory
// passes on its group, and to directories the bit.
func (d *dirNode) newAttr(ctx context.Context, mode uint32) store.Attr {
	attr := store.Attr{Mode: mode, UID: d.m.uid, GID: d.m.gid, Mtime: time.Now()}
	if caller, ok := fuse.FromContext(ctx); ok {
		attr.UID, attr.GID = caller.Uid, caller.Gid
	}
	if dir := d.owner(); dir.mode&setGID != 0 {
		attr.GID = dir.gid
		if mode&store.ModeType == store.ModeDir {
			attr.Mode |= setGID
		}
	}
	return attr
}

// Create implements gofs.NodeCreater. The kernel calls it for a name that it
// believes to be free.
func (d *dirNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, errno) {
	ctx = steadfast(ctx)
	attr := d.newAttr(ctx, store.ModeRegular|mode&modeBits)
	f, err := atName(ctx, d, name, func(t store.Tree, p store.Path) (store.File, error) {
		return create(ctx, t, p, attr, flags)
	})
	if err != nil {
		return nil, nil, 0, d.errno("create", err)
	}
	e, err := f.Stat(ctx)
	var in *gofs.Inode
	if err == nil {
		in, err = d.enter(ctx, name, e, d.seen(name), out)
	}
	if err != nil {
		return nil, nil, 0, d.errno("create", errors.Join(err, f.Close(ctx)))
	}
	h, fuseFlags := in.Operations().(*fileNode).attach(f, e, flags)
	return in, h, fuseFlags, 0
}

// create makes and opens a file. Without O_TRUNC what is there must not lose
// its content, and it may be there since a moment ago: so the name is taken
// exclusively, and whoever was first is opened.
func create(ctx context.Context, t store.Tree, p store.Path, attr store.Attr, flags uint32) (store.File, error) {
	exclusive := flags&openExclusive != 0
	f, err := t.Create(ctx, p, attr, exclusive || flags&openTruncate == 0)
	if errors.Is(err, store.ErrExist) && !exclusive {
		return t.Open(ctx, p, store.OpenFlags{Write: writes(flags)})
	}
	return f, err
}

// Unlink implements gofs.NodeUnlinker.
func (d *dirNode) Unlink(ctx context.Context, name string) errno {
	return d.errno("unlink", d.removeEntry(ctx, name, store.Tree.Remove))
}

// Rmdir implements gofs.NodeRmdirer.
func (d *dirNode) Rmdir(ctx context.Context, name string) errno {
	return d.errno("rmdir", d.removeEntry(ctx, name, store.Tree.Rmdir))
}

func (d *dirNode) removeEntry(ctx context.Context, name string, remove func(store.Tree, context.Context, store.Path) error) error {
	ctx = steadfast(ctx)
	_, err := atName(ctx, d, name, func(t store.Tree, p store.Path) (nothing, error) {
		return nothing{}, remove(t, ctx, p)
	})
	if err != nil {
		return err
	}
	if n := d.member(name); n != nil {
		d.m.places.remove(n.base())
	}
	return nil
}
