package sched

import (
	"container/list"
	"context"
	"time"

	"github.com/keifs/keifs/backend"
)

// waiter is one request that waits for a slot.
type waiter struct {
	arrival uint64
	since   time.Time
	granted chan struct{} // closed when the slot is its own
}

// queue holds the waiters of one host and priority, in the order of arrival.
// Cancelling takes one out of the middle.
type queue struct{ list list.List }

func (q *queue) len() int                     { return q.list.Len() }
func (q *queue) push(w *waiter) *list.Element { return q.list.PushBack(w) }
func (q *queue) remove(element *list.Element) { q.list.Remove(element) }

func (q *queue) first() *waiter {
	if e := q.list.Front(); e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

func (q *queue) pop() *waiter {
	return q.list.Remove(q.list.Front()).(*waiter)
}

// acquire returns when the request has a slot, or with the context's error
// and without one.
func (s *Scheduler) acquire(ctx context.Context, h *host) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	// A host with room and a free slot has nobody waiting, or dispatchLocked
	// would have served him: nobody is overtaken here.
	if s.inFlight < s.opts.Slots && h.hasRoom() {
		s.grantLocked(h)
		s.mu.Unlock()
		return nil
	}
	s.arrivals++
	w := &waiter{arrival: s.arrivals, since: time.Now(), granted: make(chan struct{})}
	q := &h.queues[level(ctx)]
	element := q.push(w)
	s.mu.Unlock()

	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.granted: // both happened: the slot is not wanted any more
		s.releaseLocked(h)
	default:
		q.remove(element)
	}
	return ctx.Err()
}

// level is the queue of a request.
func level(ctx context.Context) int {
	return min(max(int(backend.PriorityOf(ctx)), 0), priorities-1)
}

func (s *Scheduler) grantLocked(h *host) {
	s.inFlight++
	h.inFlight++
}

func (s *Scheduler) releaseLocked(h *host) {
	s.inFlight--
	h.inFlight--
	s.dispatchLocked()
}

// dispatchLocked hands free slots to waiters until there is none left of one
// or the other. It must follow everything that frees a slot or widens a window.
func (s *Scheduler) dispatchLocked() {
	for s.inFlight < s.opts.Slots {
		h, p := s.chooseLocked()
		if h == nil {
			return
		}
		s.grantLocked(h)
		close(h.queues[p].pop().granted)
	}
}

// chooseLocked returns the host and the priority whose first waiter is next,
// or nil where nobody can go.
func (s *Scheduler) chooseLocked() (next *host, priority int) {
	var first, aged *waiter // the next by priority, and the longest waiting one of the others
	var agedHost *host
	var agedPriority int
	now := time.Now()
	for p := range priorities {
		for _, h := range s.hosts {
			w := h.queues[p].first()
			if w == nil || !h.hasRoom() {
				continue
			}
			if first == nil || p == priority && w.arrival < first.arrival {
				first, next, priority = w, h, p
			}
			if p > priority && now.Sub(w.since) >= s.opts.Patience && (aged == nil || w.arrival < aged.arrival) {
				aged, agedHost, agedPriority = w, h, p
			}
		}
	}
	if aged == nil {
		return next, priority
	}
	if s.urgent++; s.urgent < share {
		return next, priority
	}
	s.urgent = 0
	return agedHost, agedPriority
}
