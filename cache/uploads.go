package cache

import (
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

const (
	// quiet is for how long nothing happens to a file before it is uploaded
	// behind the back of its writer: what comes at once, as a rename or the
	// times, then costs no request of its own.
	quiet = 150 * time.Millisecond
	// openFor is for how long a file that is still open for writing is not
	// uploaded, though it was flushed.
	openFor = 5 * time.Second
	// uploadsAtOnce bounds the goroutines; the scheduler decides what is on
	// the wire.
	uploadsAtOnce = 64
)

// uploads publishes files that nobody waits for: those that were acknowledged
// by the journal, and those whose publication failed. One file is tried until
// it is in the bucket, by one goroutine at a time.
type uploads struct {
	c    *Cache
	wake chan struct{}
	room chan struct{}

	mu     sync.Mutex
	queue  dueQueue
	queued map[*inode]struct{}
}

// due is a file and the moment before which it is not tried.
type due struct {
	in   *inode
	at   time.Time
	wait time.Duration // between the last attempts that failed; 0 before the first
	end  func(bool)    // of what next has begun in Cache.room
}

func newUploads(c *Cache) *uploads {
	return &uploads{
		c: c, wake: make(chan struct{}, 1), room: make(chan struct{}, uploadsAtOnce),
		queued: map[*inode]struct{}{},
	}
}

// add sees to it that the file is uploaded, not before wait has passed. It may
// be called with the locks of the file held.
func (u *uploads) add(in *inode, wait time.Duration) { u.push(due{in: in, at: time.Now().Add(wait)}) }

func (u *uploads) push(d due) {
	u.mu.Lock()
	_, there := u.queued[d.in]
	if !there {
		u.queued[d.in] = struct{}{}
		heap.Push(&u.queue, d)
	}
	first := !there && u.queue[0].in == d.in
	u.mu.Unlock()
	if first {
		select {
		case u.wake <- struct{}{}:
		default:
		}
	}
}

// next takes the first that is due, or says for how long none is.
func (u *uploads) next(now time.Time) (d due, wait time.Duration, found bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queue) == 0 {
		return due{}, time.Hour, false
	}
	if wait := u.queue[0].at.Sub(now); wait > 0 {
		return due{}, wait, false
	}
	d = heap.Pop(&u.queue).(due)
	delete(u.queued, d.in)
	d.end = u.c.room.begin()
	return d, 0, true
}

// run starts what is due, until the cache is closed.
func (u *uploads) run() {
	for {
		d, wait, found := u.next(time.Now())
		if found {
			select {
			case u.room <- struct{}{}:
			case <-u.c.quit: // Close makes the last attempt
				d.end(false)
				return
			}
			if u.c.start(func() { u.try(d); <-u.room }) != nil {
				d.end(false)
				return
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-u.wake:
		case <-u.c.quit:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// try makes one attempt, unless more is about to come of the file.
func (u *uploads) try(d due) {
	in := d.in
	defer func() { d.end(!in.dirty()) }()
	if wait := in.unripe(time.Now()); wait > 0 {
		u.push(due{in: in, at: time.Now().Add(wait), wait: d.wait})
		return
	}
	log := u.c.log.With("branch", in.t.Name(), "path", in.where().String())
	if err := in.failure(); err != nil && d.wait == 0 {
		log.Warn("a closed file is not in the bucket yet, and is tried again", "error", err)
		u.push(due{in: in, at: time.Now().Add(firstRetryAfter), wait: firstRetryAfter})
		return
	}
	err := in.publishNow(backend.WithPriority(u.c.ctx, backend.Background))
	switch {
	case in.dirty() && d.wait == 0:
		u.push(due{in: in, at: time.Now()}) // which tells of it
	case in.dirty():
		log.Debug("not yet", "error", err)
		wait := min(2*d.wait, lastRetryAfter)
		u.push(due{in: in, at: time.Now().Add(wait), wait: wait})
	case err == nil && d.wait > 0:
		log.Info("the file is in the bucket now")
	}
	in.t.settle(in)
}

// soon says whether a file is waiting for its first attempt.
func (u *uploads) soon() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(u.queue, func(d due) bool { return d.wait == 0 })
}

// failure is why the file is not in the bucket.
func (in *inode) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.dirtyLocked() {
		return nil
	}
	return in.failed
}

// unripe is for how long an upload would come too early, as more is to be
// expected.
func (in *inode) unripe(now time.Time) time.Duration {
	in.t.mu.Lock()
	defer in.t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case !in.dirtyLocked() || in.record == 0:
		return 0
	case in.writers > 0 && now.Sub(in.since) < openFor:
		return in.since.Add(openFor).Sub(now)
	}
	return in.changed.Add(quiet).Sub(now)
}

// dueQueue is a heap of what is due first.
type dueQueue []due

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q dueQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *dueQueue) Push(x any)        { *q = append(*q, x.(due)) }
func (q *dueQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
