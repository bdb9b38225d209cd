package cache

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

// room is on the local disk. When there is none, writers wait for publications,
// since each gives back what was staged for it.
type room struct {
	mu    sync.Mutex
	busy  int           // what may give some of the disk back, and is under way
	ended chan struct{} // closed and replaced when something of that has ended
	given uint64        // how often it has
}

// begin notes that some of the disk may be given back when end is called, which
// says whether it was.
func (r *room) begin() (end func(given bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy++
	return func(given bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.busy--
		if given {
			r.given++
		}
		close(r.ended)
		r.ended = make(chan struct{})
	}
}

// now is a snapshot: the next end, whether something is under way, and how often
// some of the disk was given back.
func (r *room) now() (ended <-chan struct{}, busy bool, given uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended, r.busy > 0, r.given
}

// enoughWaiting is how often a writer waits for room and gets none of it before
// the disk is full.
const enoughWaiting = 1000

// withRoom runs fn, which changes the file, and again as long as the disk is
// full and there may be more room. fn returns how many bytes it has written.
// Nothing is claimed.
func (c *Cache) withRoom(ctx context.Context, in *inode, fn func() (n int, err error)) error {
	for waits := 0; ; waits++ {
		_, _, given := c.room.now()
		n, err := fn()
		if n > 0 {
			waits = 0
		}
		if !errors.Is(err, store.ErrCacheFull) || waits > enoughWaiting || !c.makeRoom(ctx, in, given, waits > 0) {
			return err
		}
	}
}

// makeRoom returns when there may be more room on the disk than when some had
// been given back so often, for a writer of the file. It waits for publications
// that are under way, or about to be. Where there are none, or a wait before has
// brought nothing, a file goes into the bucket before its time, that of the
// writer first. False where nothing is to be gained.
func (c *Cache) makeRoom(ctx context.Context, in *inode, since uint64, again bool) bool {
	soon := c.uploads.soon() // first: what is not in the queue any more is under way
	ended, busy, given := c.room.now()
	busy = busy || soon
	if given == since && (again || !busy) && (in.spill(ctx) || c.spillOther(ctx, in)) {
		return true
	}
	if busy && given == since {
		return c.await(ctx, ended) == nil
	}
	_, _, given = c.room.now()
	return given != since
}

func (c *Cache) spillOther(ctx context.Context, in *inode) bool {
	for _, other := range c.inodes() {
		if other != in && other.spill(ctx) {
			return true
		}
	}
	return false
}

// spill makes room on the local disk: it publishes a large file as far as it is
// written, as a sync does, and gives up what is staged of it. From then on that
// is read from the bucket, and what comes is a change. False where that gains
// nothing.
func (in *inode) spill(ctx context.Context) (spilled bool) {
	in.mu.Lock()
	worth, size := in.spillableLocked(), in.entry.Size
	in.mu.Unlock()
	if !worth || !in.appendable(ctx, size) {
		return false
	}
	end := in.t.c.room.begin()
	defer func() { end(spilled) }()
	if in.publish(ctx) != nil {
		return false
	}
	// A record that was not ended for certain would be replayed after a crash,
	// with what is given up now as the content. One of a publication after this
	// moment may be such a record.
	in.mu.Lock()
	moves := in.moves
	in.mu.Unlock()
	if in.t.c.endedForCertain(ctx) != nil {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	size = in.entry.Size
	p := in.patch
	if in.moves != moves || in.busy != nil || in.file == nil || in.dirtyLocked() || in.entry.Version == "" || p != nil && p.limit != size {
		return false
	}
	if unix.Fallocate(int(in.file.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size) != nil {
		return false
	}
	in.patch = &patch{limit: size}
	in.moves++
	return true
}

// spillLeast is by how many times less than a file is patched from there may be
// staged of it for that to be worth a publication when the disk is full.
const spillLeast = 8

// spillableLocked says whether enough is staged of the file.
func (in *inode) spillableLocked() bool {
	if in.file == nil || !in.dirtyLocked() {
		return false
	}
	staged := in.entry.Size
	for _, r := range in.patch.missing(store.Range{Len: staged}) {
		staged -= r.Len
	}
	return staged >= in.t.c.opts.patchFrom/spillLeast
}

// appendable says whether a version of that size need not be here for something
// to be added to it.
func (in *inode) appendable(ctx context.Context, size int64) bool {
	plan, ok, err := in.t.store.PlanPatch(ctx, size+1, size, nil)
	return ok && err == nil && plan.Sent() == 1
}
