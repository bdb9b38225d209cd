package overlay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/backend"
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
	refDir      = ".kei/branches/"
	refKind     = ".json"
	whiteoutDir = ".kei/whiteouts/"
	pinDir      = ".kei/pins/"

	maxRef = 64 << 10 // bytes
)

// IsRefCheck says whether a request is one that a client sends by the clock, to
// see whether somebody commits: at most one a branch within half of Belief.
func IsRefCheck(op *backend.Op) bool { return op.Name == "get" && strings.HasPrefix(op.Key, refDir) }

// Ref is what a view needs to know of a branch's ref.
type Ref struct {
	Format     int    `json:"format"`
	Generation uint64 `json:"generation"`
	Head       string `json:"head"`
	Base       string `json:"base"`
	Committing string `json:"committing"` // who is making a commit; empty: nobody
	Rewound    bool   `json:"rewound"`    // set back to an earlier commit, and none was made since
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
	ref    *Ref      // nil: there is none
	base   Snapshot  // nil: there is none
	frozen bool      // nothing but the base
}

// view returns what is known, at most so old.
func (l *layer) view(ctx context.Context, age time.Duration) (*view, error) {
	if v := l.known.Load(); v != nil && time.Since(v.since) <= age {
		return v, nil
	}
	select {
	case l.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.asking }()
	if v := l.known.Load(); v != nil && time.Since(v.since) <= age {
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
	key := refDir + l.branch + refKind
	data, _, err := backend.ReadAll(ctx, l.raw, key, maxRef)
	switch {
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrBadKey):
		return nil
	case err != nil:
		return err
	}
	v.ref = &Ref{}
	if err := json.Unmarshal(data, v.ref); err != nil || v.ref.Format != 1 {
		return backend.Fail("read", key, backend.ErrCorrupt, fmt.Errorf("format %d, %v", v.ref.Format, err))
	}
	if v.ref.Base != "" {
		v.base, err = l.snapshot(ctx, v.ref.Base)
	}
	return err
}

// askRevision resolves a revision. Objects that have such a key count more:
// every top-level prefix is a branch. One that cannot be resolved is a branch
// without objects.
func (l *layer) askRevision(ctx context.Context, v *view) error {
	page, err := l.raw.ListPage(ctx, backend.ListOptions{Prefix: l.prefix, Limit: 1})
	if err != nil || len(page.Objects) > 0 || l.opts.Commits == nil {
		return err
	}
	commit, err := l.opts.Commits.Resolve(ctx, l.branch, l.revision)
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrInvalid) {
		return nil
	}
	if err != nil {
		return err
	}
	v.frozen = true
	v.base, err = l.snapshot(ctx, commit)
	return err
}
