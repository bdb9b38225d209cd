// Package sched decides how many requests are on the wire, and whose turn it
// is. One [Scheduler] is made for the process and shared by all its stores:
//
//   - the sum of all requests is bounded by Options.Slots;
//   - each host has a window of its own, which halves when the host throttles
//     and grows with success, and which no other host's trouble touches;
//   - what waits is served by priority ([backend.PriorityOf]), first come first
//     served within one, and with a guard so that no priority starves.
//
// A slot is held for one request, the reading of its body included, and never
// while waiting for another slot: retries back off above the scheduler
// (package retry), and an assembly holds nothing between its calls. That is why
// any number of stores can share even one slot without deadlock.
package sched

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// Options configures a Scheduler. The zero value is the default.
type Options struct {
	// Slots bounds the requests of all hosts together. 0 is 128.
	Slots int
	// Window is how many requests one host gets at first; from there on it
	// adapts between 1 and Slots. 0 is 64.
	Window int
	// Cooldown is how long after a cut further throttling does not cut the
	// window again, as one overload shows in many answers. 0 is 500 ms.
	Cooldown time.Duration
	// Patience is how long a request waits before the ageing guard sees it:
	// from then on every eighth slot goes to the one that has waited longest.
	// 0 is 2 s.
	Patience time.Duration
}

// share is the ageing guard's part of the slots: one in so many. It is small
// enough that a long queue of uploads does not slow down who waits at a prompt.
const share = 8

const priorities = int(backend.Background) + 1

// Scheduler hands out slots. It is safe for concurrent use and needs no Close:
// it has no goroutine of its own.
type Scheduler struct {
	opts Options

	mu       sync.Mutex
	hosts    map[string]*host
	inFlight int
	arrivals uint64 // requests that ever waited; orders them
	urgent   int    // slots given since the guard last served an aged request
}

// host is what is known of one host. The scheduler's mu guards it.
type host struct {
	window    float64
	inFlight  int
	lastCut   time.Time
	throttled int64
	queues    [priorities]queue
}

func (h *host) hasRoom() bool { return h.inFlight < int(h.window) }

// New makes a Scheduler.
func New(opts Options) *Scheduler {
	if opts.Slots <= 0 {
		opts.Slots = 128
	}
	if opts.Window <= 0 {
		opts.Window = 64
	}
	opts.Window = min(opts.Window, opts.Slots)
	if opts.Cooldown <= 0 {
		opts.Cooldown = 500 * time.Millisecond
	}
	if opts.Patience <= 0 {
		opts.Patience = 2 * time.Second
	}
	return &Scheduler{opts: opts, hosts: make(map[string]*host)}
}

// Wrap returns b with each of its requests waiting for a slot. Stores that
// talk to the same machine give the same host and share its window.
func (s *Scheduler) Wrap(b backend.Backend, hostname string) backend.Backend {
	s.mu.Lock()
	h := s.hosts[hostname]
	if h == nil {
		h = &host{window: float64(s.opts.Window)}
		s.hosts[hostname] = h
	}
	s.mu.Unlock()
	return backend.Intercept(b, func(ctx context.Context, _ *backend.Op, next func(context.Context) error) error {
		return s.run(ctx, h, next)
	})
}

func (s *Scheduler) run(ctx context.Context, h *host, next func(context.Context) error) (err error) {
	if err := s.acquire(ctx, h); err != nil {
		return err
	}
	began := time.Now()
	answered := false // stays false when next panics
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if answered {
			s.learnLocked(h, began, err)
		}
		s.releaseLocked(h)
	}()
	err = next(ctx)
	answered = true
	return err
}

// learnLocked adapts the window to the outcome of a request.
func (s *Scheduler) learnLocked(h *host, began time.Time, err error) {
	switch {
	case errors.Is(err, backend.ErrThrottled):
		h.throttled++
		// What was sent before the last cut says nothing about the window
		// after it.
		now := time.Now()
		if began.After(h.lastCut) && now.Sub(h.lastCut) >= s.opts.Cooldown {
			h.window = max(1, h.window/2)
			h.lastCut = now
		}
	case backend.Retryable(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Neither an answer nor a complaint.
	default:
		// Grow by one for each window of answers, and only while the window
		// is full: one that was never filled has proved nothing.
		if !h.hasRoom() {
			h.window = min(h.window+1/h.window, float64(s.opts.Slots))
		}
	}
}

// Stats is a snapshot.
type Stats struct {
	Slots    int             // the bound on all requests together
	InFlight int             // requests that hold a slot
	Waiting  [priorities]int // requests that wait, by backend.Priority
	Hosts    map[string]HostStats
}

// HostStats is a snapshot of one host.
type HostStats struct {
	Window    int   // requests it may have on the wire now
	InFlight  int   // requests it has
	Throttled int64 // answers so far that asked for fewer
}

// Stats returns a snapshot.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Slots: s.opts.Slots, InFlight: s.inFlight, Hosts: make(map[string]HostStats, len(s.hosts))}
	for name, h := range s.hosts {
		st.Hosts[name] = HostStats{Window: int(h.window), InFlight: h.inFlight, Throttled: h.throttled}
		for p := range h.queues {
			st.Waiting[p] += h.queues[p].len()
		}
	}
	return st
}
