// Package history is what a branch was: commits of it, differences, merges,
// and the way back, over the records of store/commit and store/refs.
//
// The type to know is [Repo]. The rules are in store/FORMAT.md.
package history

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// Options of New. The zero value is usable.
type Options struct {
	Host         string // in refs
	SingleWriter bool   // see refs.Options
	Now          func() time.Time
	Commit       commit.Options

	// Settle waits until no mount goes by a ref that it read before; default
	// overlay.Belief of time. A test that can make all forget need not wait.
	Settle func(context.Context) error
}

// Repo finds commits, makes commits, and changes working trees of the branches
// of one bucket. Safe for concurrent use.
type Repo struct {
	raw     backend.Backend
	st      *store.Store
	opts    Options
	commits *commit.Repo
	refs    *refs.Refs
	find    *overlay.History
	pace    pace
}

// pace is how often who works alone says that he is there, how often others look,
// and for how long they take him to be when he says nothing.
type pace struct{ renew, look, dead time.Duration }

// New returns the history of a bucket, and of the store over it. It sends no
// request.
func New(raw backend.Backend, st *store.Store, opts Options) *Repo {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Settle == nil {
		opts.Settle = settle
	}
	return &Repo{
		raw: raw, st: st, opts: opts, commits: commit.New(raw, opts.Commit), find: overlay.NewHistory(raw),
		pace: pace{renew: sweepFor, look: look, dead: sweepDead},
		refs: refs.New(raw, refs.Options{Host: opts.Host, SingleWriter: opts.SingleWriter, Now: opts.Now, Caps: st.Prober}),
	}
}

// Commits are the commits of the bucket.
func (r *Repo) Commits() *commit.Repo { return r.commits }

// Refs are the refs of the bucket.
func (r *Repo) Refs() *refs.Refs { return r.refs }

func metadata(e *commit.Entry) map[string]string {
	return store.Recorded{
		Mode: e.Mode, UID: e.UID, GID: e.GID, Mtime: time.Unix(0, e.Mtime), Target: e.Target, Xattr: e.Xattr,
	}.Metadata()
}

// nanoseconds since 1970, as near as they can be told.
func nanoseconds(t time.Time) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	switch s := t.Unix(); {
	case s >= most:
		return math.MaxInt64
	case s <= -most:
		return math.MinInt64
	}
	return t.UnixNano()
}

// Find looks a revision up, as package refs reads it: a branch, a tag, the
// beginning of an id, BRANCH~2, BRANCH@TIME. Errors as overlay.History.Find.
func (r *Repo) Find(ctx context.Context, revision string) (*commit.Manifest, error) {
	m, _, err := r.FindHeld(ctx, revision)
	return m, err
}

// FindHeld is Find, and says when the ref was read that led to the commit: its
// log names it for LeastKeepLog from then on, whatever becomes of the branch.
// Zero: it was found in another way.
func (r *Repo) FindHeld(ctx context.Context, revision string) (m *commit.Manifest, held time.Time, err error) {
	asked := time.Now()
	id, byRef, err := r.find.FindBy(ctx, revision)
	if err != nil {
		return nil, held, fmt.Errorf("revision %q: %w", revision, err)
	}
	if byRef {
		held = asked
	}
	m, err = r.commits.Manifest(ctx, id)
	return m, held, err
}

// headOf is the commit that a ref stands at.
func headOf(ref *refs.Ref) (string, error) {
	switch {
	case ref.Head != "":
		return ref.Head, nil
	case ref.Base != "":
		return ref.Base, nil
	}
	return "", fmt.Errorf("branch %q has no commit: %w", ref.Branch, backend.ErrNotExist)
}

// Log yields a commit and its ancestors, the newest first, each once. An error
// is yielded last.
func (r *Repo) Log(ctx context.Context, m *commit.Manifest) iter.Seq2[*commit.Manifest, error] {
	return func(yield func(*commit.Manifest, error) bool) {
		seen := map[string]bool{m.ID: true}
		for open := []*commit.Manifest{m}; len(open) > 0; {
			newest := 0
			for i, m := range open {
				if m.Time.After(open[newest].Time) {
					newest = i
				}
			}
			m := open[newest]
			open = append(open[:newest], open[newest+1:]...)
			if !yield(m, nil) {
				return
			}
			for _, id := range m.Parents {
				if seen[id] {
					continue
				}
				seen[id] = true
				parent, err := r.commits.Manifest(ctx, id)
				if err != nil {
					yield(nil, err)
					return
				}
				open = append(open, parent)
			}
		}
	}
}

// Ancestor is the newest commit that both have in their history; nil for none.
func (r *Repo) Ancestor(ctx context.Context, a, b *commit.Manifest) (*commit.Manifest, error) {
	of := map[string]bool{}
	for m, err := range r.Log(ctx, a) {
		if err != nil {
			return nil, err
		}
		of[m.ID] = true
	}
	for m, err := range r.Log(ctx, b) {
		if err != nil || of[m.ID] {
			return m, err
		}
	}
	return nil, nil
}
