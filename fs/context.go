package fs

import (
	"context"
	"time"
)

// defaultPatience is how long an interrupted request goes on. Interrupts are no wish
// to give up: the Go runtime sends its own threads SIGURG all the time, and
// each becomes one. But whoever is killed must not wait for a dead store for ever.
const defaultPatience = 5 * time.Second

// patient returns the context of a request that only reads: it ends when the
// request was interrupted and is still not done after the patience. The caller
// must call done.
func (m *mounted) patient(ctx context.Context) (inner context.Context, done func()) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(m.patience)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-inner.Done():
		}
	})
	return inner, func() {
		stop()
		cancel()
	}
}

// steadfast returns the context of a request that changes something: a change
// that has begun is finished, whoever waits for it.
func steadfast(ctx context.Context) context.Context {
	return context.WithoutCancel(ctx)
}
