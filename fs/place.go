package fs

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/keifs/keifs/store"
)

// place is where a node is in the volume.
type place struct {
	tree   store.Tree
	branch string // name of the tree
	path   store.Path
}

func (p place) same(q place) bool { return p.branch == q.branch && p.path == q.path }

// child is the place of a name in the directory p.
func (p place) child(name string) (store.Path, error) { return p.path.Join(name) }

// places knows where every node is: its parent and name. go-fuse has a tree of
// its own, but changes it only after a request was answered here; this one
// changes together with the volume, and is read as a whole.
type places struct {
	root store.Tree

	// mu guards parent, name, gone, heir and moving of all nodes.
	mu    sync.Mutex
	moved chan struct{} // closed, and replaced, when a move ends
}

func newPlaces(root store.Tree) *places {
	return &places{root: root, moved: make(chan struct{})}
}

// heir is the name that a node lost to another one by a rename.
type heir struct {
	dir  *dirNode
	name string
}

// locate returns where n is; errGone where it, or a directory above it, has no name.
func (p *places) locate(n *node) (place, error) {
	p.mu.Lock()
	tree, names, err := p.walkLocked(n)
	p.mu.Unlock()
	if err != nil {
		return place{}, err
	}
	path, err := store.ParsePath(strings.Join(names, "/"))
	if err != nil {
		return place{}, err
	}
	return place{tree: tree, branch: tree.Name(), path: path}, nil
}

func (p *places) walkLocked(n *node) (store.Tree, []string, error) {
	var names []string
	tree := p.root
	for ; ; n = &n.parent.node {
		if n.gone {
			return nil, nil, errGone
		}
		if n.branch != nil {
			tree = n.branch
			break
		}
		if n.parent == nil {
			break
		}
		names = append(names, n.name)
	}
	slices.Reverse(names)
	return tree, names, nil
}

// name is the path of n in the mount, for logs.
func (p *places) name(n *node) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for ; n.parent != nil; n = &n.parent.node {
		names = append(names, n.name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// put says that n has that name from now on. What had it before is gone.
func (p *places) put(n *node, dir *dirNode, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.parent, n.name, n.gone = dir, name, false
}

// remove says that n has no name any more; it is remembered for logs.
func (p *places) remove(n *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.gone = true
}

// holds says whether n is what dir has under name.
func (p *places) holds(n *node, dir *dirNode, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !n.gone && n.parent == dir && n.name == name
}

// isGone says whether n lost its name.
func (p *places) isGone(n *node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n.gone
}

// parentNumber is the inode number of "..".
func (p *places) parentNumber(n *node) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.parent == nil {
		return n.number
	}
	return n.parent.number
}

// successor returns where the node is that took the name of n by a rename.
func (p *places) successor(n *node) (place, bool) {
	p.mu.Lock()
	h := n.heir
	p.mu.Unlock()
	if h.dir == nil {
		return place{}, false
	}
	dir, err := p.locate(&h.dir.node)
	if err != nil {
		return place{}, false
	}
	path, err := dir.child(h.name)
	return place{tree: dir.tree, branch: dir.branch, path: path}, err == nil
}

// begin marks nodes whose names a rename is about to change: who does not find
// them in the volume meanwhile waits for the end before believing it.
func (p *places) begin(nodes ...*node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if n != nil {
			n.moving++
		}
	}
}

// end ends what begin began. change is nil, or changes the places.
func (p *places) end(change func(), nodes ...*node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if change != nil {
		change()
	}
	for _, n := range nodes {
		if n != nil {
			n.moving--
		}
	}
	close(p.moved)
	p.moved = make(chan struct{})
}

// movedFrom waits for renames of n and of the directories above it to end, and
// says whether n is somewhere else now than at.
func (p *places) movedFrom(ctx context.Context, n *node, at place) bool {
	for {
		p.mu.Lock()
		moving, wait := false, p.moved
		for up := n; !moving; up = &up.parent.node {
			moving = up.moving > 0
			if up.parent == nil {
				break
			}
		}
		p.mu.Unlock()
		if !moving {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
	now, err := p.locate(n)
	return err == nil && !now.same(at)
}
