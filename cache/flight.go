package cache

import (
	"context"
	"sync"

	"github.com/keifs/keifs/store"
)

// flights lets concurrent askers of one thing share one answer. The work has
// a context of its own, which ends when the last asker has gone: one asker
// that is interrupted does not fail the others.
type flights[K comparable, V any] struct {
	work sync.WaitGroup

	mu      sync.Mutex
	calls   map[K]*flight[V]        // that another asker may share
	running map[*flight[V]]struct{} // all
	closed  bool
}

// flight is one piece of work under way.
type flight[V any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	askers  int  // guarded by flights.mu
	spoiled bool // guarded by flights.mu: what it was asked about has changed since it began

	value V
	err   error
}

// do returns what fn returns, for the call under way or for a new one, and
// whether it was shared. fn is told by fresh, at its end, whether what it
// found may be remembered.
func (g *flights[K, V]) do(ctx context.Context, key K, fn func(ctx context.Context, fresh func() bool) (V, error)) (v V, shared bool, err error) {
	g.mu.Lock()
	f, shared := g.calls[key]
	if !shared {
		if f = g.beginLocked(ctx, key, fn); f == nil {
			g.mu.Unlock()
			return v, false, store.ErrClosed
		}
	}
	f.askers++
	g.mu.Unlock()

	select {
	case <-f.done:
		return f.value, shared, f.err
	case <-ctx.Done():
		g.leave(key, f)
		return v, shared, ctx.Err()
	}
}

// begin begins a call that nobody waits for yet, unless one is under way. It
// goes on without askers.
func (g *flights[K, V]) begin(ctx context.Context, key K, fn func(ctx context.Context, fresh func() bool) (V, error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] != nil {
		return
	}
	if f := g.beginLocked(ctx, key, fn); f != nil {
		f.askers++
	}
}

// beginLocked begins a call; nil after close.
func (g *flights[K, V]) beginLocked(ctx context.Context, key K, fn func(ctx context.Context, fresh func() bool) (V, error)) *flight[V] {
	if g.closed {
		return nil
	}
	if g.calls == nil {
		g.calls, g.running = map[K]*flight[V]{}, map[*flight[V]]struct{}{}
	}
	f := &flight[V]{done: make(chan struct{})}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	g.calls[key], g.running[f] = f, struct{}{}
	g.work.Go(func() { g.run(work, key, f, fn) })
	return f
}

// join waits for the call under way, if there is one, and returns what it found.
func (g *flights[K, V]) join(ctx context.Context, key K) (v V, ok bool) {
	g.mu.Lock()
	f, found := g.calls[key]
	if !found {
		g.mu.Unlock()
		return v, false
	}
	f.askers++
	g.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err == nil
	case <-ctx.Done():
		g.leave(key, f)
		return v, false
	}
}

func (g *flights[K, V]) run(ctx context.Context, key K, f *flight[V], fn func(context.Context, func() bool) (V, error)) {
	defer f.cancel()
	f.value, f.err = fn(ctx, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return !f.spoiled
	})
	g.mu.Lock()
	g.forgetLocked(key, f)
	delete(g.running, f)
	g.mu.Unlock()
	close(f.done)
}

// leave is one asker less; the last one ends the work.
func (g *flights[K, V]) leave(key K, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.askers--
	if f.askers == 0 {
		f.cancel()
		g.forgetLocked(key, f)
	}
}

func (g *flights[K, V]) forgetLocked(key K, f *flight[V]) {
	if g.calls[key] == f {
		delete(g.calls, key)
	}
}

// spoil marks the calls under way whose key matches: those who ask already
// get their answer, which may be from before the change, but nobody else
// does, and it is not remembered.
func (g *flights[K, V]) spoil(match func(K) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, f := range g.calls {
		if match(key) {
			f.spoiled = true
			delete(g.calls, key)
		}
	}
}

// close ends the work under way and waits for it.
func (g *flights[K, V]) close() {
	g.mu.Lock()
	g.closed = true
	for f := range g.running {
		f.cancel()
	}
	g.mu.Unlock()
	g.work.Wait()
}
