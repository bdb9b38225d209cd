package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// retries sees to it that a second walk finds. A file or link that was replaced
// by a rename between the kernel's lookup and its open cannot always be opened
// by the old node; the open is answered with ESTALE, and the kernel walks the
// path once more, but never again. So what this second lookup finds is pinned:
// no rename replaces it until it is opened.
type retries struct {
	mu   sync.Mutex
	told map[uint32]*retry // by thread
}

type retry struct {
	since  time.Time
	pinned *node
}

// pinFor is how long a rename waits for the open at most: one that never comes,
// as its program was killed. A busy machine may take long for one that does.
const pinFor = 2 * time.Second

// begin notes that the thread is about to walk again.
func (r *retries) begin(thread uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.told == nil {
		r.told = map[uint32]*retry{}
	}
	for other, t := range r.told { // threads that went elsewhere
		if now.Sub(t.since) > time.Minute {
			delete(r.told, other)
		}
	}
	r.told[thread] = &retry{since: now}
}

// walks says whether the thread is about to walk again.
func (r *retries) walks(thread uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[thread] != nil
}

// pinned notes what was pinned for the thread; false where that is too late.
func (r *retries) pinned(thread uint32, n *node) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told[thread]
	if t == nil || t.pinned != nil {
		return false
	}
	t.pinned = n
	return true
}

// end notes that the thread opens, and returns what was pinned for it.
func (r *retries) end(thread uint32) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told[thread]
	if t == nil {
		return nil
	}
	delete(r.told, thread)
	return t.pinned
}

// pin pins name for a caller that walks once more.
func (d *dirNode) pin(ctx context.Context, name string) {
	caller, ok := fuse.FromContext(ctx)
	if !ok || !d.m.retries.walks(caller.Pid) {
		return
	}
	for ctx.Err() == nil {
		n := d.member(name)
		if n == nil || n.EmbeddedInode().IsDir() {
			return
		}
		if !d.m.places.pin(ctx, n.base()) {
			continue // replaced meanwhile
		}
		if !d.m.retries.pinned(caller.Pid, n.base()) {
			d.m.places.unpin(n.base())
		}
		return
	}
}

// arriving says that the caller opens what it looked up; the result is to be
// called with how that went.
func (m *mounted) arriving(ctx context.Context) (arrived func(error)) {
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return func(error) {}
	}
	pinned := m.retries.end(caller.Pid)
	return func(err error) {
		if pinned != nil {
			m.places.unpin(pinned)
		}
		if errors.Is(err, errGone) {
			m.retries.begin(caller.Pid)
		}
	}
}
