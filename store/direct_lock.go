package store

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// pathLocks lets operations on the same path follow one another, in the order
// in which they came. Unlike a mutex it may be held across requests to the
// bucket: it stops only who wants the same path, and waiting ends with the
// context. The zero value is ready.
type pathLocks struct {
	mu     sync.Mutex
	claims []*pathClaim // held or waiting, in order of arrival
}

// pathClaim is on the paths themselves or, with tree, also on all below them.
type pathClaim struct {
	paths []string
	tree  bool
	done  chan struct{} // closed when it is given up
}

// one claims a path, tree whole subtrees. The function returned gives it up.
func (l *pathLocks) one(ctx context.Context, path string) (func(), error) {
	return l.claim(ctx, &pathClaim{paths: []string{path}})
}

func (l *pathLocks) tree(ctx context.Context, paths ...string) (func(), error) {
	return l.claim(ctx, &pathClaim{paths: paths, tree: true})
}

// claim waits for the earlier claims it conflicts with. As nobody ever waits
// for a later one, there is no deadlock and no starvation.
func (l *pathLocks) claim(ctx context.Context, c *pathClaim) (func(), error) {
	c.done = make(chan struct{})
	l.mu.Lock()
	var earlier []*pathClaim
	for _, o := range l.claims {
		if c.conflicts(o) {
			earlier = append(earlier, o)
		}
	}
	l.claims = append(l.claims, c)
	l.mu.Unlock()

	release := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.Index(l.claims, c)
		l.claims = slices.Delete(l.claims, i, i+1)
		close(c.done)
	}
	for _, o := range earlier {
		select {
		case <-o.done:
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}

func (c *pathClaim) conflicts(o *pathClaim) bool {
	for _, p := range c.paths {
		for _, q := range o.paths {
			if p == q || c.tree && within(p, q) || o.tree && within(q, p) {
				return true
			}
		}
	}
	return false
}

// within says whether the full path p is dir or lies below it.
func within(dir, p string) bool {
	rest, ok := strings.CutPrefix(p, dir)
	return ok && (rest == "" || dir == "" || rest[0] == '/')
}
