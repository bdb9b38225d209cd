package overlay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/refs"
)

// What keeps committed content: before an object is overwritten or deleted
// that a commit may name, it is copied to its pin. See FORMAT.md for why that
// is enough, also while somebody else commits.

// attempts bounds how often a change is tried again that somebody else's came
// before.
const attempts = 5

// guard runs fn, which overwrites or deletes the plain object under a
// condition. fn may get a stricter one.
func (c *change) guard(ctx context.Context, op string, cond backend.Cond, fn func(context.Context, backend.Cond) error) error {
	if cond.IfAbsent && c.Caps().CondCreate {
		return fn(ctx, cond) // nothing is overwritten
	}
	for range attempts {
		v, err := c.layer.view(ctx, fresh)
		if err != nil {
			return err
		}
		kept, err := c.keep(ctx, v, cond.IfMatch)
		if err != nil {
			return err
		}
		stricter := cond
		if kept != "" && cond == (backend.Cond{}) && c.honours(op) {
			stricter.IfMatch = kept // what was kept, and nothing that came since
		}
		settle := func() { c.settleKept(ctx, v, PinKey(c.key, kept)) }
		if kept == "" {
			var last *view
			last, err = c.watch(ctx, v, func(ctx context.Context, now *view) (bool, error) {
				kept, err := c.keep(ctx, now, cond.IfMatch)
				return kept != "", err
			}, func(ctx context.Context) error { return fn(ctx, stricter) })
			settle = func() { c.settle(ctx, last) }
		} else {
			err = fn(ctx, stricter)
		}
		if stricter != cond && errors.Is(err, backend.ErrPrecondition) {
			continue
		}
		if stricter != cond && errors.Is(err, backend.ErrNotExist) {
			if op == "delete" {
				return nil
			}
			continue
		}
		settle()
		return err
	}
	return backend.Fail(op, c.key, backend.ErrPrecondition, errors.New("it changes all the time"))
}

// honours says whether a condition can be added to an unconditional change.
func (c *change) honours(op string) bool {
	caps := c.Caps()
	switch op {
	case "put":
		return caps.CondOverwrite
	case "delete":
		return caps.CondDelete
	case "copy":
		return caps.CondCopy
	}
	return false
}

// guardAll is guard for several changes by one request without conditions.
func guardAll(ctx context.Context, changes []*change, fn func(context.Context) error) error {
	var mu sync.Mutex
	groups := map[*layer]*group{}
	err := backend.Parallel(ctx, atOnce, changes, func(ctx context.Context, c *change) error {
		if c == nil {
			return nil
		}
		v, err := c.layer.view(ctx, fresh)
		if err != nil {
			return err
		}
		kept, err := c.keep(ctx, v, c.version)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		g := groups[c.layer]
		if g == nil {
			g = &group{v: v}
			groups[c.layer] = g
		}
		if v.since.Before(g.v.since) {
			g.v = v
		}
		if kept != "" {
			g.pins = append(g.pins, PinKey(c.key, kept))
		} else {
			g.loose = append(g.loose, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for l, g := range groups {
		then := fn
		fn = func(ctx context.Context) (err error) {
			g.last, err = l.watch(ctx, g.v, g.keep, then)
			return err
		}
	}
	err = fn(ctx)
	for l, g := range groups {
		l.settle(ctx, g.last)
		l.settleKept(ctx, g.v, g.pins...)
	}
	return err
}

// group is the changes of one branch by one request.
type group struct {
	v     *view     // the oldest that one of them goes by
	last  *view     // by which nobody had begun to commit
	pins  []string  // of what was kept before
	loose []*change // of which nothing was
}

// keep keeps what is to be changed, and says whether all of it was there.
func (g *group) keep(ctx context.Context, v *view) (bool, error) {
	var missed atomic.Bool
	err := backend.Parallel(ctx, atOnce, g.loose, func(ctx context.Context, c *change) error {
		kept, err := c.keep(ctx, v, c.version)
		if kept == "" {
			missed.Store(true)
		}
		return err
	})
	return !missed.Load(), err
}

// keep pins what is there now if a commit may name it, and returns its
// version; empty where nothing had to be kept.
func (c *change) keep(ctx context.Context, v *view, version string) (kept string, err error) {
	switch {
	case v.ref == nil:
		return "", nil
	case exact(v.ref):
		head, err := c.snapshot(ctx, v.ref.Head)
		if errors.Is(err, backend.ErrNotExist) { // not the object that is to be changed
			err = fmt.Errorf("the head of branch %s: %w: %v", c.branch, backend.ErrCorrupt, err)
		}
		if err != nil {
			return "", err
		}
		o, ok, err := head.Lookup(ctx, c.rel)
		if err != nil || !ok || o.Key != c.key || version != "" && version != o.ETag {
			return "", err
		}
		if o.VersionID != "" && c.Caps().Versions {
			now, err := c.raw.Stat(ctx, c.key)
			if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrBadKey) {
				return "", nil
			}
			// The version stays by itself; one that the commit knows by another
			// name, as in a copy of its bucket, would not be found again.
			if err != nil || now.ETag != o.ETag || now.VersionID == o.VersionID {
				return "", err
			}
		}
		version = o.ETag
	case version == "" || c.Caps().Versions:
		now, err := c.raw.Stat(ctx, c.key)
		if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrBadKey) {
			return "", nil
		}
		if err != nil || now.VersionID != "" { // which stays by itself
			return "", err
		}
		if version == "" {
			version = now.ETag
		}
	}
	there, err := c.pin(ctx, c.key, version)
	if err != nil || !there {
		return "", err
	}
	return version, nil
}

// exact says whether the head names every object of the branch that a commit
// names: not while the next one is being made, nor after the branch was set
// back to an earlier one.
func exact(r *refs.Ref) bool { return r.Committing == "" && !r.Rewound && r.Head != "" }

// settle finds out whether a change that nothing was kept for ended before
// anybody could begin to list the branch for a commit. v is what watch returned.
func (l *layer) settle(ctx context.Context, v *view) {
	if v == nil || time.Since(v.since) < Belief {
		return
	}
	now, err := l.view(ctx, 0)
	if err == nil && now.same(v) {
		return // nobody had begun when the change was through
	}
	l.tooLong(v, err)
}

// settleKept is settle for what was kept. Who collects garbage may have taken a
// pin of an object that nothing named yet, as long as the change was through
// before somebody began to list the branch for a commit.
func (l *layer) settleKept(ctx context.Context, v *view, pins ...string) {
	if time.Since(v.since) < Belief || len(pins) == 0 {
		return
	}
	now, err := l.view(ctx, 0)
	if err == nil && now.same(v) && v.ref.Committing == "" {
		return
	}
	missing := errors.New("a pin was collected")
	err = backend.Parallel(ctx, atOnce, pins, func(ctx context.Context, pin string) error {
		there, err := backend.Exists(ctx, l.raw, pin)
		if err == nil && !there {
			err = missing
		}
		return err
	})
	if err != nil {
		l.tooLong(v, err)
	}
}

func (l *layer) tooLong(v *view, err error) {
	l.log.Error("a change took so long that a commit made meanwhile may name what it replaced",
		"store", l.raw.Name(), "branch", l.branch, "took", time.Since(v.since), "err", err)
}

// same says whether no commit was begun between two views.
func (v *view) same(o *view) bool {
	if v.ref == nil || o.ref == nil {
		return v.ref == o.ref
	}
	return v.ref.Generation == o.ref.Generation
}

// pin copies a version of an object to its pin. there is false where the
// object has another version by now, or is gone.
func (b *Bucket) pin(ctx context.Context, key, version string) (there bool, err error) {
	dst := PinKey(key, version)
	copier, ok := backend.As[backend.Copier](b.raw)
	if !ok || !b.Caps().Copy {
		return b.pinSlowly(ctx, key, version, dst)
	}
	opts := backend.CopyOptions{SourceETag: version}
	if b.Caps().CondCopy {
		opts.Cond.IfAbsent = true // the first one has the attributes of the commit
	}
	_, err = copier.Copy(ctx, key, dst, opts)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, backend.ErrNotExist):
		return false, nil
	case errors.Is(err, backend.ErrPrecondition):
		now, err := b.raw.Stat(ctx, key)
		if errors.Is(err, backend.ErrNotExist) {
			return false, nil
		}
		return err == nil && now.ETag == version, err
	case errors.Is(err, backend.ErrTooLarge):
		return b.pinSlowly(ctx, key, version, dst)
	}
	return false, err
}
