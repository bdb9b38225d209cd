package refs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keifs/keifs/backend"
)

// Create makes the ref of a branch that has none, with Head, Base and Why of
// first: two requests. ErrExist, ErrNoConditions, ErrBadName.
func (r *Refs) Create(ctx context.Context, branch string, first Ref) (*Ref, error) {
	if err := CheckName(branch); err != nil {
		return nil, err
	}
	caps, err := r.caps(ctx)
	if err != nil {
		return nil, err
	}
	next := r.complete(first, branch, 1)
	winner, err := r.decide(ctx, caps, next)
	if err != nil {
		return nil, err
	}
	if winner.Nonce != next.Nonce {
		// The name had a ref before, or somebody was first.
		last, err := r.last(ctx, branch)
		if err != nil {
			return nil, err
		}
		if last.Deleted {
			next = r.complete(first, branch, last.Generation+1)
			last, err = r.decide(ctx, caps, next)
			if err != nil {
				return nil, err
			}
		}
		winner = last
	}
	ref, err := r.point(ctx, caps, winner, "")
	if err != nil {
		return nil, err
	}
	if winner.Nonce != next.Nonce {
		return nil, fmt.Errorf("branch %q: %w", branch, ErrExist)
	}
	return ref, nil
}

// Advance makes next, with its Head, Base and Why, the generation after old:
// two requests. ErrLost where somebody else did; old must be loaded again then.
// After any other error the ref may have advanced or not; either way it is whole.
func (r *Refs) Advance(ctx context.Context, old *Ref, next Ref) (*Ref, error) {
	caps, err := r.caps(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.pace(ctx, caps.ChangeEvery, old.Time); err != nil {
		return nil, err
	}
	next = r.complete(next, old.Branch, old.Generation+1)
	winner, err := r.decide(ctx, caps, next)
	if err != nil {
		return nil, err
	}
	ref, err := r.point(ctx, caps, winner, old.etag)
	if err != nil {
		return nil, err
	}
	if winner.Nonce != next.Nonce {
		return nil, fmt.Errorf("branch %q: %w", old.Branch, ErrLost)
	}
	return ref, nil
}

// pace waits until the ref, which was changed at a time by whatever host's
// clock, may be changed again.
func (r *Refs) pace(ctx context.Context, every time.Duration, changed time.Time) error {
	wait := min(every-r.opts.Now().Sub(changed), every)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ref: %w", ctx.Err())
	}
}

// Delete ends the ref of a branch. Its log stays, and goes on where a branch of
// that name is made again. ErrLost.
func (r *Refs) Delete(ctx context.Context, old *Ref, why string) error {
	_, err := r.Advance(ctx, old, Ref{Head: old.Head, Base: old.Base, Why: why, Deleted: true})
	return err
}

// decide writes the entry of the log, unless there is one of that generation,
// and returns the one that is there: next, or that of who was first.
func (r *Refs) decide(ctx context.Context, caps backend.Caps, next Ref) (*Ref, error) {
	next.Why = shorten(next.Why)
	if err := next.check(); err != nil {
		return nil, fmt.Errorf("ref: %w: %w", backend.ErrInvalid, err)
	}
	at := logKey(next.Branch, next.Generation)
	data, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	if !caps.CondCreate { // a single writer
		there, err := r.read(ctx, at, next.Branch)
		if err == nil || !errors.Is(err, backend.ErrNotExist) {
			return there, err
		}
	}
	_, err = r.b.Put(ctx, at, backend.Bytes(data), backend.PutOptions{
		Cond: backend.Cond{IfAbsent: caps.CondCreate}, ContentType: "application/json",
	})
	if err == nil {
		return &next, nil
	}
	// Whoever the answer that got lost was for: the entry tells.
	there, readErr := r.read(ctx, at, next.Branch)
	if readErr != nil {
		return nil, err
	}
	return there, nil
}

// point makes the ref's object that of a decided generation. etag is of the
// one it replaces, empty for none.
func (r *Refs) point(ctx context.Context, caps backend.Caps, to *Ref, etag string) (*Ref, error) {
	at := key(to.Branch)
	cond := backend.Cond{IfMatch: etag, IfAbsent: etag == "" && caps.CondCreate}
	if !caps.CondOverwrite {
		cond.IfMatch = ""
		cond.IfAbsent = false // a hint
	}
	data, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	if to.Deleted {
		if cond.IfAbsent || !caps.CondDelete {
			cond = backend.Cond{}
		}
		err = r.b.Delete(ctx, at, cond)
	} else {
		var info backend.Info
		info, err = r.b.Put(ctx, at, backend.Bytes(data), backend.PutOptions{Cond: cond, ContentType: "application/json"})
		if err == nil {
			done := *to
			done.etag = info.ETag
			return &done, nil
		}
	}
	if err == nil {
		return to, nil
	}
	if !errors.Is(err, backend.ErrPrecondition) && !errors.Is(err, backend.ErrNotExist) {
		return nil, err
	}
	// Somebody moved it: there, or further.
	now, readErr := r.read(ctx, at, to.Branch)
	switch {
	case errors.Is(readErr, backend.ErrNotExist):
		return to, nil // deleted since
	case readErr != nil:
		return nil, readErr
	case now.Generation > to.Generation:
		// A collection of garbage may have shortened the log up to a place behind
		// this entry, which nobody has gone by then.
		_, err := r.read(ctx, logKey(to.Branch, to.Generation+1), to.Branch)
		if errors.Is(err, backend.ErrNotExist) {
			err = fmt.Errorf("branch %q: %w", to.Branch, ErrLost)
		}
		if err != nil {
			return nil, err
		}
		done := *to
		return &done, nil
	case now.Generation == to.Generation:
		done := *to
		if now.Nonce == to.Nonce {
			done.etag = now.etag
		}
		return &done, nil
	}
	return nil, fmt.Errorf("%s: %w", at, err)
}
