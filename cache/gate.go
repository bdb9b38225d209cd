package cache

import (
	"context"
	"slices"
	"sync"

	"github.com/keifs/keifs/store"
)

// gate orders the operations on names of one tree against each other. An
// operation claims every path it is about at once, and holds the claims
// across its requests: that is deliberate, since two changes of one name must
// reach the bucket one after the other, and a rename must not meet a file that
// is just being published. Lookups and listings claim nothing.
//
// Claims are granted in the order in which they were asked for, as far as they
// conflict. Nobody may ask for more while holding some; so there is no
// deadlock, and nobody starves.
type gate struct {
	mu    sync.Mutex
	queue []*ticket // granted and waiting, in order of arrival
}

// claim is on one path, and with subtree also on all below it. Shared claims
// do not conflict with each other.
type claim struct {
	path    store.Path
	subtree bool
	shared  bool
}

func exclusive(p store.Path) claim { return claim{path: p} }
func shared(p store.Path) claim    { return claim{path: p, shared: true} }
func subtree(p store.Path) claim   { return claim{path: p, subtree: true} }

type ticket struct {
	claims  []claim
	granted bool
	ready   chan struct{}
}

// take waits until the claims are granted, and returns what gives them back.
func (g *gate) take(ctx context.Context, claims ...claim) (release func(), err error) {
	t := &ticket{claims: claims, ready: make(chan struct{})}
	g.mu.Lock()
	g.queue = append(g.queue, t)
	g.grantLocked()
	g.mu.Unlock()
	select {
	case <-t.ready:
		return func() { g.leave(t) }, nil
	case <-ctx.Done():
		g.leave(t)
		return nil, ctx.Err()
	}
}

func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = slices.DeleteFunc(g.queue, func(q *ticket) bool { return q == t })
	g.grantLocked()
}

func (g *gate) grantLocked() {
	for i, t := range g.queue {
		if !t.granted && !slices.ContainsFunc(g.queue[:i], t.conflicts) {
			t.granted = true
			close(t.ready)
		}
	}
}

func (t *ticket) conflicts(other *ticket) bool {
	for _, a := range t.claims {
		for _, b := range other.claims {
			if !(a.shared && b.shared) && (a.covers(b.path) || b.covers(a.path)) {
				return true
			}
		}
	}
	return false
}

// covers says whether p is one of the claimed paths.
func (c claim) covers(p store.Path) bool {
	return c.path == p || c.subtree && c.path.Contains(p)
}
