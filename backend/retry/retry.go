// Package retry repeats requests that failed for a reason that may pass.
//
// It belongs above the scheduler, retry(sched(provider)), so that backing off
// holds no slot.
package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/keifs/keifs/backend"
)

// Options configures the decorator. The zero value is the default.
type Options struct {
	// MaxElapsed bounds the time from the first attempt to the start of the
	// last one. 0 is two minutes.
	MaxElapsed time.Duration
	// MaxAttempts bounds the attempts, the first included. 0 is 10.
	MaxAttempts int
	// BaseDelay is the longest wait before the second attempt; it doubles
	// with each further one. The wait itself is random between 0 and that, so
	// that many clients do not come back in step. 0 is 100 ms.
	BaseDelay time.Duration
	// MaxDelay bounds one wait. 0 is 15 s.
	MaxDelay time.Duration
	// Logger gets a line for each repeated attempt at debug level. Nil is silence.
	Logger *slog.Logger
}

// Wrap returns b with every request repeated while its error is
// [backend.Retryable], the attempts and the time last, and the context lives.
//
// A change that got no answer (ErrTransient) may have happened. Where a later
// attempt of it is then refused with ErrPrecondition or ErrNotExist, nobody
// can tell here whose doing that was, and the error wraps
// [backend.ErrAmbiguous] as well. Only where nothing is left to delete it is a
// success.
func Wrap(b backend.Backend, opts Options) backend.Backend {
	if opts.MaxElapsed <= 0 {
		opts.MaxElapsed = 2 * time.Minute
	}
	if opts.MaxAttempts <= 0 {
		opts.MaxAttempts = 10
	}
	if opts.BaseDelay <= 0 {
		opts.BaseDelay = 100 * time.Millisecond
	}
	if opts.MaxDelay <= 0 {
		opts.MaxDelay = 15 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return backend.Intercept(b, opts.run)
}

func (o *Options) run(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
	began := time.Now()
	unanswered := false // an attempt failed without an answer
	for attempt := 1; ; attempt++ {
		body := watch(op)
		err := next(ctx)
		if err == nil {
			return nil
		}
		if !backend.Retryable(err) || body.foreign(err) {
			if unanswered {
				return settle(op, err)
			}
			return err
		}
		unanswered = unanswered || op.Write() && errors.Is(err, backend.ErrTransient)

		wait := o.delay(attempt)
		if attempt >= o.MaxAttempts || time.Since(began)+wait > o.MaxElapsed {
			return fmt.Errorf("gave up after %d attempts: %w", attempt, err)
		}
		o.Logger.DebugContext(ctx, "retrying", "op", op.Name, "key", op.Key, "attempt", attempt, "wait", wait, "err", err)
		if cause := sleep(ctx, wait); cause != nil {
			// Only one is wrapped: whoever asks is to see a request that was
			// called off, not a store that failed.
			return fmt.Errorf("%w, after: %v", cause, err)
		}
	}
}

// settle is the error of a change that was refused after an attempt without
// an answer.
func settle(op *backend.Op, err error) error {
	gone := errors.Is(err, backend.ErrNotExist)
	lost := errors.Is(err, backend.ErrPrecondition)
	switch op.Name {
	case "delete", "abort", "discard":
		if gone {
			return nil
		}
	case "complete", "rename":
		lost = lost || gone // the parts, or the source, are used up by a success
	case "put", "copy":
	default:
		return err // can be repeated without end
	}
	if lost {
		return fmt.Errorf("%w (%w)", err, backend.ErrAmbiguous)
	}
	return err
}

// delay is the wait before the attempt after this one.
func (o *Options) delay(attempt int) time.Duration {
	limit := o.BaseDelay
	for i := 1; i < attempt && limit < o.MaxDelay; i++ {
		limit *= 2
	}
	return rand.N(min(limit, o.MaxDelay) + 1)
}

func sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bodyWatch tells a broken body, which a retry may mend, from an error of the
// caller's own callback, which it must not repeat.
type bodyWatch struct {
	io.Reader
	handed bool  // the callback got a body
	err    error // what its Read failed with
}

// watch makes op tell a new bodyWatch of the body of the next attempt.
func watch(op *backend.Op) *bodyWatch {
	w := new(bodyWatch)
	op.Body = func(body io.Reader) io.Reader {
		w.Reader, w.handed = body, true
		return w
	}
	return w
}

func (w *bodyWatch) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// foreign says whether err is the callback's own.
func (w *bodyWatch) foreign(err error) bool {
	return w.handed && (w.err == nil || !errors.Is(err, w.err))
}
