package overlay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/refs"
)

// Belief is how long a client goes by a ref that it has read: counted from
// before the request for it was sent, until a change that relies on it has
// been acknowledged. Who commits waits as long, see FORMAT.md.
const Belief = 2 * time.Second

const (
	// fresh is the age up to which a ref is good to begin a change with, so
	// that there is time left for the change.
	fresh = Belief / 2
	// resolved is the age up to which the view of a branch is good for
	// reading.
	resolved = Belief
	// plainly is the same for a branch without ref, which nobody can give a
	// base: only to delete the branch and make it anew can.
	plainly = 30 * time.Second
)

const (
	whiteoutDir = ".kei/whiteouts/"
	// PinDir is where pins lie.
	PinDir = ".kei/pins/"
)

// IsRefCheck says whether a request is one that a client sends by the clock, to
// see whether somebody commits: at most one a branch within half of Belief.
func IsRefCheck(op *backend.Op) bool {
	ref, log := strings.HasPrefix(op.Key, refs.Dir), strings.HasPrefix(op.Key, refs.LogDir)
	return op.Name == "get" && (ref || log) || op.Name == "list" && log
}

// layer is one branch, or one revision of one.
type layer struct {
	*Bucket
	branch   string
	revision string // empty for a branch
	prefix   string // of its keys

	known  atomic.Pointer[view]
	asking chan struct{} // holds one token, for who reads the ref
}

// view is what was known of a layer at one moment. It never changes.
type view struct {
	since  time.Time // before the request was sent
	ref    *refs.Ref // nil: there is none
	base   Snapshot  // nil: there is none
	frozen bool      // nothing but the base
	commit string    // of the base of a revision: the id of the commit, or the moment
}

// baseID is the commit that the branch has as its base; empty for none.
func (v *view) baseID() string {
	if v.ref == nil {
		return ""
	}
	return v.ref.Base
}

// view returns what is known, at most so old.
func (l *layer) view(ctx context.Context, age time.Duration) (*view, error) {
	good := func() *view {
		v := l.known.Load()
		if v != nil && (time.Since(v.since) <= age || v.frozen && v.commit == l.revision) {
			return v
		}
		return nil
	}
	if v := good(); v != nil {
		return v, nil
	}
	select {
	case l.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.asking }()
	if v := good(); v != nil {
		return v, nil
	}
	v := &view{since: time.Now()}
	ask := l.askRef
	if l.revision != "" {
		ask = l.askRevision
	}
	if err := ask(ctx, v); err != nil {
		return nil, err
	}
	l.known.Store(v)
	return v, nil
}

// reading is the view to read by.
func (l *layer) reading(ctx context.Context) (*view, error) {
	if v := l.known.Load(); v != nil && v.ref == nil && v.base == nil && l.revision == "" {
		return l.view(ctx, plainly)
	}
	return l.view(ctx, resolved)
}

// forget makes the next question go to the bucket.
func (l *layer) forget() { l.known.Store(nil) }

func (l *layer) askRef(ctx context.Context, v *view) error {
	ref, err := l.refs.Load(ctx, l.branch)
	switch {
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrBadKey), errors.Is(err, refs.ErrBadName):
		return nil
	case err != nil:
		return err
	}
	v.ref = ref
	if ref.Base != "" {
		v.base, err = l.snapshot(ctx, ref.Base)
	}
	if errors.Is(err, backend.ErrNotExist) { // not the file that somebody asks for
		err = fmt.Errorf("the base of branch %s: %w: %v", l.branch, backend.ErrCorrupt, err)
	}
	return err
}

// askRevision resolves a revision. Objects that have such a key count more:
// every top-level prefix is a branch. One that cannot be resolved is a branch
// without objects.
func (l *layer) askRevision(ctx context.Context, v *view) error {
	page, err := l.raw.ListPage(ctx, backend.ListOptions{Prefix: l.prefix, Limit: 1})
	if err != nil || len(page.Objects) > 0 {
		return err
	}
	if ok, err := l.momentOf(ctx, v); ok || err != nil {
		return err
	}
	commit, err := l.opts.Commits.Resolve(ctx, l.branch, l.revision)
	if err == nil {
		v.base, err = l.snapshot(ctx, commit)
	}
	if unnamed(err) {
		return nil
	}
	v.frozen, v.commit = err == nil, commit
	return err
}

// unnamed says whether an error means that there is no such commit.
func unnamed(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrInvalid) || errors.Is(err, refs.ErrBadName)
}
