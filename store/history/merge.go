package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// Strategy says what becomes of a path that both sides of a merge changed.
type Strategy int

// The strategies.
const (
	Refuse   Strategy = iota // *ConflictError, and nothing is touched
	Ours                     // what the branch has stays
	Theirs                   // what is merged comes
	KeepBoth                 // what is merged comes beside, as NAME.conflict-ID
)

// MergeOptions of Merge. The zero value is usable.
type MergeOptions struct {
	Strategy        Strategy
	Message, Author string
	Progress        func(done int64)
}

// ErrUpToDate means that the branch has all of what was to be merged.
var ErrUpToDate = errors.New("already up to date")

// Merge brings what theirs changed since the common ancestor into a branch, its
// plain objects and its history. Nothing is touched where both changed a path
// (*ConflictError), or the branch has a change of its own there that is in no
// commit (*UncommittedError); where somebody makes one of these while the merge
// is under way, what it brought is taken back. A merge that was broken off is gone
// on with by the same call: what was brought already is found, and left.
func (r *Repo) Merge(ctx context.Context, theirs *commit.Manifest, branch string, opts MergeOptions) (*commit.Manifest, error) {
	// First without a mark, since most that cannot be done shows here.
	ref, err := r.refs.Load(ctx, branch)
	if err != nil {
		return nil, fmt.Errorf("branch %q has no history: commit it first (%w)", branch, err)
	}
	if _, _, err := r.plan(ctx, theirs, ref, opts.Strategy); err != nil {
		return nil, err
	}
	t, err := r.begin(ctx, branch)
	if err != nil {
		return nil, err
	}
	defer func() { t.end(ctx) }()
	if err := r.still(ctx, theirs.ID); err != nil {
		return nil, err
	}
	brought := map[string]step{}
	for range attempts {
		var ours *commit.Manifest
		var steps []step
		ours, steps, err = r.plan(ctx, theirs, t.ref, opts.Strategy)
		if err != nil {
			return nil, errors.Join(err, r.takeBack(ctx, t.ref, brought))
		}
		made, err := r.apply(ctx, branch, steps, opts.Progress)
		note(brought, ours, steps, made)
		if errors.Is(err, store.ErrStale) {
			continue // somebody writes: plan anew, which refuses what is theirs
		}
		if err != nil {
			return nil, err
		}
		m, err := r.joined(ctx, branch, ours, theirs, made, opts)
		if err != nil {
			return nil, err
		}
		err = t.finish(ctx, refs.Ref{Head: m.ID, Rewound: t.ref.Rewound, Why: "merge: " + firstLine(m.Message)})
		if !errors.Is(err, refs.ErrLost) {
			return m, err
		}
	}
	return nil, fmt.Errorf("branch %q: %w", branch, refs.ErrLost)
}

// note keeps, for each step that changed something, the one that takes it back.
func note(brought map[string]step, ours *commit.Manifest, steps []step, made map[string]*commit.Entry) {
	for _, s := range steps {
		e, done := made[s.path]
		if !done || e == s.now {
			continue // it was as it is to be
		}
		back := step{path: s.path, now: e, want: s.now}
		if s.want != nil {
			back.mark = markOf(s.want)
		}
		if s.now != nil {
			back.from = ours.ID
		}
		if before, again := brought[s.path]; again {
			back.want, back.from = before.want, before.from
		}
		brought[s.path] = back
	}
}

// takeBack makes what a merge changed what it was, as far as that is in no
// commit by now, and nobody else has changed it since.
func (r *Repo) takeBack(ctx context.Context, ref *refs.Ref, brought map[string]step) error {
	if len(brought) == 0 {
		return nil
	}
	head, _, err := r.ends(ctx, ref)
	if err != nil {
		return err
	}
	tree := r.commits.Tree(head)
	err = backend.Parallel(ctx, atOnce, slices.Collect(maps.Values(brought)), func(ctx context.Context, s step) error {
		e, ok, err := tree.Lookup(ctx, s.path)
		if err == nil && ok == (s.now != nil) && (!ok || e.Same(s.now)) {
			return nil // somebody has committed it
		}
		if err == nil && s.now != nil {
			// Whoever writes the same content, or changes its attributes, leaves
			// the version as it is, but not the mark.
			var is backend.Info
			is, err = r.raw.Stat(ctx, ref.Branch+"/"+s.path)
			if err == nil && r.raw.Caps().Metadata && is.Metadata[metaMark] != s.mark {
				return nil
			}
		}
		if err == nil {
			_, err = r.applyOne(ctx, ref.Branch, s)
		}
		return gone(err)
	})
	if err != nil {
		err = fmt.Errorf("branch %s has some files of the merge, which could not be taken back (keifs restore does): %w", ref.Branch, err)
	}
	return err
}

// joined writes the merge's commit.
func (r *Repo) joined(ctx context.Context, branch string, ours, theirs *commit.Manifest, made map[string]*commit.Entry, opts MergeOptions) (*commit.Manifest, error) {
	ranges, err := r.commits.Edit(ctx, ours, edits(made))
	if err != nil {
		return nil, err
	}
	m := &commit.Manifest{Branch: branch, Message: opts.Message, Author: opts.Author, Time: r.opts.Now(), Parents: []string{theirs.ID}}
	if ours != nil {
		m.Parents = []string{ours.ID, theirs.ID}
	}
	if m.Message == "" {
		m.Message = fmt.Sprintf("merge %s of %s", theirs.ID[:12], theirs.Branch)
	}
	m.SetRanges(ranges)
	return m, r.commits.PutManifest(ctx, m)
}

func edits(made map[string]*commit.Entry) iter.Seq2[commit.Edit, error] {
	return func(yield func(commit.Edit, error) bool) {
		for _, path := range sortedPaths(made) {
			if !yield(commit.Edit{Path: path, Entry: made[path]}, nil) {
				return
			}
		}
	}
}

// plan is what a merge has to change in the working tree. It changes nothing.
func (r *Repo) plan(ctx context.Context, theirs *commit.Manifest, ref *refs.Ref, strategy Strategy) (ours *commit.Manifest, steps []step, err error) {
	ours, _, err = r.ends(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	var base *commit.Manifest
	if ours != nil {
		if base, err = r.Ancestor(ctx, ours, theirs); err != nil {
			return nil, nil, err
		}
		if base != nil && base.ID == theirs.ID {
			return nil, nil, ErrUpToDate
		}
	}
	our := map[string]*commit.Entry{} // at the paths that are to change
	var conflicts []string
	tree := r.commits.Tree(ours)
	add := func(path string, want *commit.Entry) error {
		e, found, err := tree.Lookup(ctx, path)
		if err == nil && found {
			our[path] = &e
		}
		steps = append(steps, step{path: path, want: want, from: theirs.ID})
		return err
	}
	for c, err := range commit.Diff(ctx, r.commits.Tree(base), r.commits.Tree(theirs)) {
		if err != nil {
			return nil, nil, err
		}
		e, found, err := tree.Lookup(ctx, c.Path)
		if err != nil {
			return nil, nil, err
		}
		mine := &e
		if !found {
			mine = nil
		}
		switch {
		case same(mine, c.New):
			continue
		case same(mine, c.Old), strategy == Theirs:
			err = add(c.Path, c.New)
		case strategy == Ours:
		case strategy == KeepBoth && mine == nil:
			err = add(c.Path, c.New)
		case strategy == KeepBoth && (c.New == nil || c.New.IsDir()):
		case strategy == KeepBoth:
			beside := *c.New
			beside.Path += ".conflict-" + theirs.ID[:8]
			err = add(beside.Path, &beside)
			if err == nil {
				steps[len(steps)-1].source = c.Path
			}
		default:
			conflicts = append(conflicts, c.Path)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if len(conflicts) > 0 {
		return nil, nil, &ConflictError{conflicts}
	}
	return ours, steps, r.look(ctx, ref.Branch, our, steps, false)
}

func same(a, b *commit.Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Same(b)
}

// look completes steps by what the working tree has now. *UncommittedError where
// that is neither what the last commit has nor what is to come.
func (r *Repo) look(ctx context.Context, branch string, head map[string]*commit.Entry, steps []step, force bool) error {
	paths := make([]string, len(steps))
	for i := range steps {
		paths[i] = steps[i].path
	}
	now, err := r.current(ctx, branch, paths, head)
	if err != nil {
		return err
	}
	var changed []string
	for i := range steps {
		s := &steps[i]
		s.now, s.mark = now[s.path].entry, now[s.path].mark
		if !force && !same(s.now, head[s.path]) && !s.arrived() {
			changed = append(changed, s.path)
		}
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		return &UncommittedError{branch, changed}
	}
	return nil
}

// arrived says whether what is there is what a broken-off call brought. A copy
// may have another ETag, but it says of what it is one.
func (s *step) arrived() bool {
	if s.now == nil || s.want == nil {
		return s.now == s.want
	}
	other := *s.now
	if s.mark == markOf(s.want) {
		other.ETag = s.want.ETag
	}
	return other.Same(s.want)
}
