// Package history is what a branch was: commits of it, differences, merges,
// and the way back, over the records of store/commit and store/refs.
//
// The types to know are [History], which finds and reads commits and is what a
// store needs to show branches with a base and revisions; and [Repo], which
// makes commits and changes working trees. The rules are in store/FORMAT.md.
package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
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

// History finds commits. It implements overlay.Commits. Safe for concurrent use.
type History struct {
	raw     backend.Backend
	opts    Options
	commits *commit.Repo
	refs    *refs.Refs
}

var _ overlay.Commits = (*History)(nil)

// New returns the history of a bucket. It sends no request.
func New(raw backend.Backend, opts Options) *History {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Settle == nil {
		opts.Settle = settle
	}
	h := &History{raw: raw, opts: opts, commits: commit.New(raw, opts.Commit)}
	h.refs = refs.New(raw, refs.Options{Host: opts.Host, SingleWriter: opts.SingleWriter, Now: opts.Now})
	return h
}

// Commits are the commits of the bucket.
func (h *History) Commits() *commit.Repo { return h.commits }

// Refs are the refs of the bucket, to read.
func (h *History) Refs() *refs.Refs { return h.refs }

// Snapshot implements overlay.Commits.
func (h *History) Snapshot(ctx context.Context, id string) (overlay.Snapshot, error) {
	m, err := h.commits.Manifest(ctx, id)
	if err != nil {
		return nil, err
	}
	return snapshot{h.commits.Tree(m)}, nil
}

// snapshot is a tree as a view needs it.
type snapshot struct{ tree *commit.Tree }

func (s snapshot) Lookup(ctx context.Context, rel string) (overlay.Object, bool, error) {
	e, ok, err := s.tree.Lookup(ctx, rel)
	if err != nil || !ok {
		return overlay.Object{}, false, err
	}
	return object(&e), true, nil
}

func (s snapshot) Walk(ctx context.Context, prefix, from string) iter.Seq2[overlay.Object, error] {
	return func(yield func(overlay.Object, error) bool) {
		for e, err := range s.tree.Walk(ctx, prefix, from) {
			if err != nil {
				yield(overlay.Object{}, err)
				return
			}
			if !yield(object(&e), nil) {
				return
			}
		}
	}
}

func object(e *commit.Entry) overlay.Object {
	return overlay.Object{
		Rel: e.Path, Key: e.Key, ETag: e.ETag, VersionID: e.VersionID, Size: e.Size,
		ModTime: time.Unix(0, e.Modified), Metadata: metadata(e),
	}
}

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

// ErrUnknown: a revision that names nothing, or more than one thing. It wraps
// backend.ErrNotExist.
var ErrUnknown = fmt.Errorf("no such revision: %w", backend.ErrNotExist)

// Resolve implements overlay.Commits: what follows the '@' of a branch.
func (h *History) Resolve(ctx context.Context, branch, revision string) (string, error) {
	if commit.ValidID(revision) {
		_, err := h.commits.Manifest(ctx, revision)
		return revision, err
	}
	m, err := h.Find(ctx, branch+"@"+revision)
	if err != nil {
		return "", err
	}
	return m.ID, nil
}

// Find looks a revision up, as package refs reads it: a branch, a tag, the
// beginning of an id, BRANCH~2, BRANCH@TIME. ErrUnknown.
func (h *History) Find(ctx context.Context, revision string) (*commit.Manifest, error) {
	rev, err := refs.ParseRev(revision, h.opts.Now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	id, err := h.lookUp(ctx, rev)
	if err != nil {
		return nil, fmt.Errorf("revision %q: %w", revision, err)
	}
	m, err := h.commits.Manifest(ctx, id)
	for ; err == nil && rev.Back > 0; rev.Back-- {
		if len(m.Parents) == 0 {
			return nil, fmt.Errorf("revision %q: it has no such ancestor: %w", revision, ErrUnknown)
		}
		m, err = h.commits.Manifest(ctx, m.Parents[0])
	}
	return m, err
}

func (h *History) lookUp(ctx context.Context, rev refs.Rev) (string, error) {
	if !rev.When.IsZero() {
		ref, err := h.refs.At(ctx, rev.Name, rev.When)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return headOf(ref)
	}
	names := []string{rev.Name}
	if rev.At != "" {
		names = []string{rev.At}
	} else {
		ref, err := h.refs.Load(ctx, rev.Name)
		if err == nil {
			return headOf(ref)
		}
		if !errors.Is(err, backend.ErrNotExist) {
			return "", err
		}
	}
	tag, err := h.refs.LoadTag(ctx, names[0])
	if err == nil {
		return tag.Commit, nil
	}
	if !errors.Is(err, backend.ErrNotExist) {
		return "", err
	}
	return h.byPrefix(ctx, names[0])
}

func headOf(ref *refs.Ref) (string, error) {
	switch {
	case ref.Head != "":
		return ref.Head, nil
	case ref.Base != "":
		return ref.Base, nil
	}
	return "", fmt.Errorf("branch %q has no commit: %w", ref.Branch, ErrUnknown)
}

// minPrefix is the length of the beginning of an id, at least.
const minPrefix = 4

func (h *History) byPrefix(ctx context.Context, prefix string) (string, error) {
	if len(prefix) < minPrefix || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", ErrUnknown
	}
	page, err := h.raw.ListPage(ctx, backend.ListOptions{Prefix: commit.Dir + "manifest-" + prefix, Limit: 2})
	switch {
	case err != nil:
		return "", err
	case len(page.Objects) == 0:
		return "", ErrUnknown
	case len(page.Objects) > 1:
		return "", fmt.Errorf("more than one commit begins so: %w", ErrUnknown)
	}
	id, ok := commit.IDOfKey(page.Objects[0].Key)
	if !ok {
		return "", ErrUnknown
	}
	return id, nil
}

// Log yields a commit and its ancestors, the newest first, each once. An error
// is yielded last.
func (h *History) Log(ctx context.Context, m *commit.Manifest) iter.Seq2[*commit.Manifest, error] {
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
				parent, err := h.commits.Manifest(ctx, id)
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
func (h *History) Ancestor(ctx context.Context, a, b *commit.Manifest) (*commit.Manifest, error) {
	of := map[string]bool{}
	for m, err := range h.Log(ctx, a) {
		if err != nil {
			return nil, err
		}
		of[m.ID] = true
	}
	for m, err := range h.Log(ctx, b) {
		if err != nil || of[m.ID] {
			return m, err
		}
	}
	return nil, nil
}
