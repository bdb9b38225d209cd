package httpio

import (
	"context"
	"errors"
	"time"
)

var errStalled = errors.New("the store does not answer")

// Watch ends a request that makes no progress.
type Watch struct {
	timer   *time.Timer
	timeout time.Duration
	ctx     context.Context // of the request
	cancel  context.CancelCauseFunc
}

// NewWatch returns the context of a request, and what watches it; to be
// stopped when the request is over.
func NewWatch(ctx context.Context, timeout time.Duration) (context.Context, *Watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &Watch{timeout: timeout, ctx: ctx, cancel: cancel}
	w.timer = time.AfterFunc(timeout, func() { cancel(errStalled) })
	return ctx, w
}

// Progress gives the request its whole time again.
func (w *Watch) Progress() { w.timer.Reset(w.timeout) }

// Pause stops the clock until the next progress.
func (w *Watch) Pause() { w.timer.Stop() }

// Stop ends the request's context.
func (w *Watch) Stop() {
	w.timer.Stop()
	w.cancel(nil)
}
