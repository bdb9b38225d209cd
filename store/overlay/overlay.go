// Package overlay gives each branch of a bucket its own view of it, as a
// backend over a backend: whoever asks for a key of a branch that has a base
// is answered with the tree of that branch, and what a commit may name is kept
// before it is overwritten or deleted.
//
// The types to know are [Bucket], the backend, and [Snapshot], what it has to
// know of a commit. A key is that of a plain object, "main/docs/a.txt"; its
// first component is the branch. What a key of a branch with a base gives is
// decided by one rule: the object itself, else a whiteout (there is none), else
// what the base has. A branch name with a revision behind it, as in
// "main@3f2a/docs/a.txt", gives the tree of that commit, and cannot be changed.
//
// The layout of refs, whiteouts and pins, and why nothing that is committed
// gets lost, is in FORMAT.md of package store.
package overlay

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/refs"
)

// ErrLost says that a commit names this content, and no object has it any more:
// it was overwritten or deleted by something else than keifs.
var ErrLost = errors.New("the content of a commit is not in the bucket any more")

// Object is one object as a commit names it.
type Object struct {
	Rel       string // key below the branch: "docs/a.txt", or "docs/" for a marker
	Key       string // the whole key that had the content at the commit
	ETag      string
	VersionID string // on a versioned bucket
	Size      int64
	ModTime   time.Time

	// Metadata is nil where the commit does not tell: it is that of the
	// content then.
	Metadata    map[string]string
	ContentType string

	// Inherited, of Bucket.Walk: the branch has no object of its own there,
	// but shows that of its base.
	Inherited bool
}

// Snapshot is the tree of one commit, which never changes. Safe for concurrent
// use.
type Snapshot interface {
	// Lookup returns the object at a key below the branch.
	Lookup(ctx context.Context, rel string) (o Object, ok bool, err error)
	// Walk yields the objects whose keys begin with prefix and are not below
	// from, in ascending byte order. An error is yielded last.
	Walk(ctx context.Context, prefix, from string) iter.Seq2[Object, error]
}

// Commits finds commits. An error of either wraps backend.ErrNotExist where
// there is none.
type Commits interface {
	// Snapshot opens the tree of a commit by its id.
	Snapshot(ctx context.Context, commit string) (Snapshot, error)
	// Resolve returns the id of the commit that a revision of a branch is:
	// what stands behind the '@' of "main@2h".
	Resolve(ctx context.Context, branch, revision string) (commit string, err error)
}

// Options of New. The zero value is usable.
type Options struct {
	Commits Commits // default: those in the bucket
	// Branch says whether a component can be the name of a branch that
	// keifs made; nil: any without '@'.
	Branch func(name string) bool
	Logger *slog.Logger
}

// Bucket is the backend. It has the optional powers of what is below;
// Renamer only helps between branches without history.
type Bucket struct {
	raw  backend.Backend
	refs *refs.Refs
	opts Options
	log  *slog.Logger

	mu        sync.Mutex
	layers    map[string]*layer
	snapshots map[string]Snapshot // by commit
}

// New returns the view of all branches of a bucket. It sends no request.
func New(raw backend.Backend, opts Options) *Bucket {
	if opts.Commits == nil {
		opts.Commits = NewHistory(raw)
	}
	b := &Bucket{raw: raw, refs: refs.New(raw, refs.Options{}), opts: opts, log: opts.Logger, layers: map[string]*layer{}, snapshots: map[string]Snapshot{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	return b
}

// Decorates is what is below, for [backend.As].
func (b *Bucket) Decorates() backend.Backend { return b.raw }

// Caps implements backend.Backend.
func (b *Bucket) Caps() backend.Caps { return b.raw.Caps() }

// Name implements backend.Backend.
func (b *Bucket) Name() string { return b.raw.Name() }

// Close implements backend.Backend.
func (b *Bucket) Close() error { return b.raw.Close() }

const (
	records = ".kei" // what begins so is not of a branch

	maxLayers    = 1024
	maxSnapshots = 64
)

// at returns the layer that a key or a prefix is in, and what of it is below
// the branch. There is none above the branches, nor for records and for
// prefixes that cannot be branches of ours.
func (b *Bucket) at(key string) (l *layer, rel string) {
	name, rel, ok := strings.Cut(key, "/")
	if !ok || name == "" || strings.HasPrefix(name, records) {
		return nil, ""
	}
	branch, revision, at := strings.Cut(name, "@")
	if at && (branch == "" || revision == "") || !at && b.opts.Branch != nil && !b.opts.Branch(name) {
		return nil, ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l = b.layers[name]
	if l == nil {
		if len(b.layers) >= maxLayers {
			clear(b.layers) // they know nothing that cannot be asked again
		}
		l = &layer{Bucket: b, branch: branch, revision: revision, prefix: name + "/", asking: make(chan struct{}, 1)}
		b.layers[name] = l
	}
	return l, rel
}

// Frozen says whether a branch name was found to be that of a revision, whose
// tree cannot be changed. It sends no request: to look at anything of the
// branch finds out.
func (b *Bucket) Frozen(name string) bool {
	if !strings.Contains(name, "@") {
		return false
	}
	l, _ := b.at(name + "/")
	if l == nil {
		return false
	}
	v := l.known.Load()
	return v != nil && v.frozen
}

// Canonical is the name of a branch, and of a revision the one with the id of
// its commit ("main@2h" is another commit an hour later). It may ask the bucket.
func (b *Bucket) Canonical(ctx context.Context, name string) (string, error) {
	l, _ := b.at(name + "/")
	if l == nil || l.revision == "" {
		return name, nil
	}
	v, err := l.view(ctx, resolved)
	if err != nil || !v.frozen {
		return name, err
	}
	return l.branch + "@" + v.commit, nil
}

// snapshot opens the tree of a commit, once.
func (b *Bucket) snapshot(ctx context.Context, commit string) (Snapshot, error) {
	b.mu.Lock()
	s := b.snapshots[commit]
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := b.opts.Commits.Snapshot(ctx, commit)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.snapshots) >= maxSnapshots {
		clear(b.snapshots)
	}
	b.snapshots[commit] = s
	return s, nil
}
