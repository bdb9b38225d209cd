package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/keifs/keifs/store"
)

// node is what all nodes of the tree share.
type node struct {
	gofs.Inode
	m      *mounted
	number uint64 // inode number
	serial uint64
	branch *branch // of the directory of a branch; else nil

	// Guarded by mounted.places.mu.
	parent *dirNode // nil for the root
	name   string
	gone   bool   // has no name any more; parent and name are the last ones
	heir   heir   // what took the name
	moving int    // renames of this name under way
	moves  uint64 // and those done

	pins        int       // who wants no rename to replace the name
	pinnedUntil time.Time // when that ends at the latest

	// mu guards what follows.
	mu    sync.Mutex
	told  stamp
	attr  owner
	pages pages // of files only
}

// stamp is by what a change of a file shows.
type stamp struct {
	version string
	size    int64
	mtime   time.Time
	ctime   time.Time
}

// owner is what decides about rights, as last seen.
type owner struct {
	mode, uid, gid uint32
}

// member is any of the node types.
type member interface {
	gofs.InodeEmbedder
	base() *node
}

func (n *node) base() *node { return n }

func (n *node) isRoot() bool { return n.number == rootNumber }

// linkNode is a symbolic link.
type linkNode struct{ node }

// Readlink implements gofs.NodeReadlinker.
func (n *linkNode) Readlink(ctx context.Context) ([]byte, errno) {
	ctx, done := n.m.patient(ctx)
	defer done()
	arrived := n.m.arriving(ctx)
	target, err := at(ctx, &n.node, func(p place) (string, error) { return p.tree.Readlink(ctx, p.path) })
	err = kindErr(err)
	arrived(err)
	return []byte(target), n.errno("readlink", err)
}

// OnForget implements gofs.NodeOnForgetter.
func (n *node) OnForget() {
	if n.serial != 0 {
		n.m.numbers.release(n.number, n.serial)
	}
}

// at runs fn with the place of n. Where a rename moved n while fn looked at the
// old place, fn runs again with the new one.
func at[T any](ctx context.Context, n *node, fn func(place) (T, error)) (T, error) {
	for {
		p, err := n.m.places.locate(n)
		if err != nil {
			var none T
			return none, err
		}
		v, err := fn(p)
		if errors.Is(err, store.ErrNotExist) && n.m.places.movedFrom(ctx, n, p) {
			continue
		}
		return v, err
	}
}

// atName is at for a name in the directory d.
func atName[T any](ctx context.Context, d *dirNode, name string, fn func(store.Tree, store.Path) (T, error)) (T, error) {
	return at(ctx, &d.node, func(dir place) (T, error) {
		path, err := dir.child(name)
		if err != nil {
			var none T
			return none, err
		}
		return fn(dir.tree, path)
	})
}

// nothing is the result of what only fails or not.
type nothing struct{}

// child returns the inode of name in d, which the volume says is e: the one
// that is there, if it still is that, and else a new one. seen was taken before
// the volume was asked.
func (d *dirNode) child(ctx context.Context, name string, e store.Entry, seen lineage) (*gofs.Inode, error) {
	old := d.member(name)
	if old == nil {
		return d.newChild(ctx, name, e)
	}
	in := old.EmbeddedInode()
	same := in.Mode() == e.Mode&store.ModeType
	if f, ok := old.(*fileNode); ok && same && seen.n == f && seen.endedBy(e) {
		same = false
	}
	if same {
		moved, err := d.moved(ctx, name, old)
		if err != nil || !moved {
			return in, err
		}
	}
	d.m.places.remove(old.base())
	return d.newChild(ctx, name, e)
}

// moved says whether a name of the root is that of another tree than the node
// has: "main@2h" is a later commit by now.
func (d *dirNode) moved(ctx context.Context, name string, old member) (bool, error) {
	b := old.base().branch
	if b == nil || !store.IsRevision(name) {
		return false, nil
	}
	tree, err := d.m.vol.Branch(ctx, name)
	return err == nil && tree.Name() != b.name, err
}

// seen is the lineage of the open file that name in d is, if it is one.
func (d *dirNode) seen(name string) lineage {
	if f, ok := d.member(name).(*fileNode); ok {
		return f.lineage()
	}
	return lineage{}
}

// member returns the node that name in d is, as far as one is known.
func (d *dirNode) member(name string) member {
	in := d.GetChild(name)
	if in == nil {
		return nil
	}
	n, ok := in.Operations().(member)
	if !ok || !d.m.places.holds(n.base(), d, name) {
		return nil
	}
	return n
}

// newChild makes a node for name in d.
func (d *dirNode) newChild(ctx context.Context, name string, e store.Entry) (*gofs.Inode, error) {
	dir, err := d.m.places.locate(&d.node)
	if err != nil {
		return nil, err
	}
	var n member
	switch {
	case e.IsDir():
		n = &dirNode{}
	case e.IsSymlink():
		n = &linkNode{}
	default:
		n = &fileNode{}
	}
	b := n.base()
	b.m = d.m
	if e.IsDir() && d.isRoot() {
		tree, err := d.m.vol.Branch(ctx, name)
		if err != nil {
			return nil, err
		}
		b.branch = newBranch(tree)
	}
	b.number, b.serial = d.m.numbers.claim(store.Number(dir.hash(), name))
	d.m.places.put(b, d, name)
	if b.serial >= d.m.kernel.sweepAt.Load() {
		d.m.kernel.rouse()
	}
	// The serial makes every node another one for go-fuse, whatever its number.
	return d.NewInode(ctx, n, gofs.StableAttr{Mode: e.Mode & store.ModeType, Ino: b.number, Gen: b.serial}), nil
}

// hash begins the hashes of the names in the directory p.
func (p place) hash() uint64 { return store.NumberDir(p.branch.name, p.path.String()) }

// enter fills the answer to a lookup, or to whatever made e.
func (d *dirNode) enter(ctx context.Context, name string, e store.Entry, seen lineage, out *fuse.EntryOut) (*gofs.Inode, error) {
	in, err := d.child(ctx, name, e, seen)
	if err != nil {
		return nil, err
	}
	in.Operations().(member).base().fill(e, &out.Attr)
	if e.IsDir() && d.m.ttl > dirTTL {
		out.SetEntryTimeout(dirTTL)
	}
	return in, nil
}
