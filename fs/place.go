package fs

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/store"
)

// place is where a node is in the volume.
type place struct {
	*branch
	path  store.Path
	moves uint64 // of the node and the directories above it, so far
}

// branch is the tree of a branch, or of the root.
type branch struct {
	tree store.Tree
	name string
}

func newBranch(t store.Tree) *branch { return &branch{tree: t, name: t.Name()} }

// child is the place of a name in the directory p.
func (p place) child(name string) (store.Path, error) { return p.path.Join(name) }

// places knows where every node is: its parent and name. go-fuse has a tree of
// its own, but changes it only after a request was answered here; this one
// changes together with the volume, and is read as a whole.
type places struct {
	root *branch

	// mu guards parent, name, gone, heir, moving, moves and the pins of all nodes.
	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when a move or a pin ends
}

func newPlaces(root store.Tree) *places {
	return &places{root: newBranch(root), changed: make(chan struct{})}
}

// heir is the name that a node lost to another one by a rename.
type heir struct {
	dir  *dirNode
	name string
}

// locate returns where n is; errGone where it, or a directory above it, has no name.
func (p *places) locate(n *node) (place, error) {
	p.mu.Lock()
	b, names, moves, err := p.walkLocked(n)
	p.mu.Unlock()
	if err != nil {
		return place{}, err
	}
	path, err := store.ParsePath(strings.Join(names, "/"))
	if err != nil {
		return place{}, err
	}
	return place{branch: b, path: path, moves: moves}, nil
}

func (p *places) walkLocked(n *node) (b *branch, names []string, moves uint64, err error) {
	b = p.root
	for ; ; n = &n.parent.node {
		if n.gone {
			return nil, nil, 0, errGone
		}
		if n.branch != nil {
			b = n.branch
			break
		}
		if n.parent == nil {
			break
		}
		names = append(names, n.name)
		moves += n.moves
	}
	slices.Reverse(names)
	return b, names, moves, nil
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

// put says that n has that name from now on.
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

// parent is the directory of n, and the name there; false where it has none any more.
func (p *places) parent(n *node) (dir *dirNode, name string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n.parent, n.name, n.parent != nil && !n.gone
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
	return place{branch: dir.branch, path: path}, err == nil
}

// pin keeps the name of n from being replaced for a moment, from the end of a
// rename that does so just now on. False where it is lost.
func (p *places) pin(ctx context.Context, n *node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n.moving > 0 {
		if p.waitLocked(ctx, nil) != nil {
			return false
		}
	}
	if n.gone {
		return false
	}
	now := time.Now()
	if now.After(n.pinnedUntil) {
		n.pins = 0
	}
	n.pins++
	n.pinnedUntil = now.Add(pinFor)
	return true
}

// unpin ends a pin.
func (p *places) unpin(n *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.pins--; n.pins <= 0 {
		n.pins, n.pinnedUntil = 0, time.Time{}
	}
	p.changedLocked()
}

// waitLocked waits for the next change, or the timer. The lock is not held meanwhile.
func (p *places) waitLocked(ctx context.Context, timer <-chan time.Time) error {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
	case <-timer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (p *places) changedLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// begin marks the node that a rename is about to move, and the one that it will
// replace or exchange; either may be nil. Who does not find them in the volume
// meanwhile waits for the end before believing it.
func (p *places) begin(moved, other *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other != nil {
		for left := time.Until(other.pinnedUntil); left > 0; left = time.Until(other.pinnedUntil) {
			timer := time.NewTimer(left)
			_ = p.waitLocked(context.Background(), timer.C) // nobody ends that context
			timer.Stop()
		}
		other.moving++
	}
	if moved != nil {
		moved.moving++
	}
}

// end ends what begin began. change is nil, or changes the places.
func (p *places) end(moved, other *node, change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range []*node{moved, other} {
		if n != nil {
			n.moving--
			if change != nil {
				n.moves++
			}
		}
	}
	if change != nil {
		change()
	}
	p.changedLocked()
}

// movedFrom waits for renames of n and of the directories above it to end, and
// says whether n was moved since it was located at.
func (p *places) movedFrom(ctx context.Context, n *node, at place) bool {
	p.mu.Lock()
	for {
		moving := false
		for up := n; !moving; up = &up.parent.node {
			moving = up.moving > 0
			if up.parent == nil {
				break
			}
		}
		if !moving {
			break
		}
		if p.waitLocked(ctx, nil) != nil {
			p.mu.Unlock()
			return false
		}
	}
	p.mu.Unlock()
	now, err := p.locate(n)
	return err == nil && now != at
}
