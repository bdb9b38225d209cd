package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// RestoreOptions of Restore and Reset. The zero value is usable.
type RestoreOptions struct {
	// Force goes over changes that are in no commit, which are lost.
	Force    bool
	Progress func(done int64)
}

// Restore makes paths of a branch's working tree (none: all of it) what they
// were in a commit; those it did not have are removed. The history stays. It
// says how many objects changed. *UncommittedError, and store.ErrNotExist for
// a path that neither has.
func (r *Repo) Restore(ctx context.Context, to *commit.Manifest, branch string, paths []string, opts RestoreOptions) (int, error) {
	ref, err := r.refs.Load(ctx, branch)
	if errors.Is(err, backend.ErrNotExist) {
		ref, err = &refs.Ref{Branch: branch}, nil
	}
	if err != nil {
		return 0, err
	}
	made, err := r.bring(ctx, ref, to, paths, opts)
	return len(made), err
}

// landed is the commit that a branch stands at after bring: to itself, or,
// where copies have other ETags than what they are copies of, one that follows
// it and names the copies.
func (r *Repo) landed(ctx context.Context, to *commit.Manifest, branch, why string, made map[string]*commit.Entry) (*commit.Manifest, error) {
	tree, exact := r.commits.Tree(to), true
	for path, e := range made {
		was, ok, err := tree.Lookup(ctx, path)
		if err != nil {
			return nil, err
		}
		exact = exact && ok == (e != nil) && (e == nil || e.Same(&was))
	}
	if exact {
		return to, nil
	}
	ranges, err := r.commits.Edit(ctx, to, edits(made))
	if err != nil {
		return nil, err
	}
	m := &commit.Manifest{Branch: branch, Message: why, Author: to.Author, Time: r.opts.Now(), Parents: []string{to.ID}}
	m.SetRanges(ranges)
	return m, r.commits.PutManifest(ctx, m)
}

func (r *Repo) bring(ctx context.Context, ref *refs.Ref, to *commit.Manifest, paths []string, opts RestoreOptions) (made map[string]*commit.Entry, err error) {
	head, base, err := r.ends(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		paths = []string{""}
	}
	var steps []step
	our := map[string]*commit.Entry{}
	headTree := r.commits.Tree(head)
	for _, path := range paths {
		known := []*commit.Manifest{head, base, to}
		skip := func(string) {}
		now := below(r.Working(ctx, ref.Branch, path, known, skip), path)
		want := below(r.commits.Tree(to).Walk(ctx, path, ""), path)
		found := path == ""
		for c, err := range Difference(counted(now, &found), counted(want, &found)) {
			if err != nil {
				return nil, err
			}
			e, ok, err := headTree.Lookup(ctx, c.Path)
			if err != nil {
				return nil, err
			}
			if ok {
				our[c.Path] = &e
			}
			steps = append(steps, step{path: c.Path, want: c.New, from: to.ID})
		}
		if !found {
			return nil, fmt.Errorf("%s: neither in the commit nor in the branch: %w", path, store.ErrNotExist)
		}
	}
	if err := r.look(ctx, ref.Branch, our, steps, opts.Force); err != nil {
		return nil, err
	}
	return r.apply(ctx, ref.Branch, steps, opts.Progress)
}

// below keeps what is path, or below it as a directory, of what begins so.
func below(entries iter.Seq2[commit.Entry, error], path string) iter.Seq2[commit.Entry, error] {
	return func(yield func(commit.Entry, error) bool) {
		for e, err := range entries {
			rest := strings.TrimPrefix(e.Path, path)
			if err == nil && path != "" && rest != "" && rest[0] != '/' && !strings.HasSuffix(path, "/") {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// counted notes whether there was anything.
func counted(entries iter.Seq2[commit.Entry, error], found *bool) iter.Seq2[commit.Entry, error] {
	return func(yield func(commit.Entry, error) bool) {
		for e, err := range entries {
			*found = true
			if !yield(e, err) {
				return
			}
		}
	}
}

// Reset makes a branch, its working tree and its history, end at a commit. It
// can be gone on with by the same call, as a merge.
func (r *Repo) Reset(ctx context.Context, branch string, to *commit.Manifest, why string, opts RestoreOptions) error {
	if _, err := r.refs.Load(ctx, branch); err != nil {
		return err
	}
	t, err := r.begin(ctx, branch)
	if err != nil {
		return err
	}
	defer func() { t.end(ctx) }()
	if err := r.still(ctx, to.ID); err != nil {
		return err
	}
	for range attempts {
		made, err := r.bring(ctx, t.ref, to, nil, opts)
		if err != nil {
			return err
		}
		m, err := r.landed(ctx, to, branch, why, made)
		if err != nil {
			return err
		}
		err = t.finish(ctx, refs.Ref{Head: m.ID, Rewound: true, Why: why})
		if !errors.Is(err, refs.ErrLost) {
			return err
		}
	}
	return fmt.Errorf("branch %q: %w", branch, refs.ErrLost)
}

// ErrNoUndo means that there is nothing to go back to.
var ErrNoUndo = errors.New("nothing to undo")

// Undo takes back what advanced a branch last: a commit, so that its changes are
// in no commit again; a merge or a reset with what it did to the working tree.
// It returns the generation that is taken back.
func (r *Repo) Undo(ctx context.Context, branch string, opts RestoreOptions) (*refs.Ref, error) {
	var last, before *refs.Ref
	for ref, err := range r.refs.Log(ctx, branch) {
		if err != nil {
			return nil, err
		}
		if last == nil || ref.Head == last.Head {
			last = ref // the oldest with the head of now
			continue
		}
		before = ref
		break
	}
	if before == nil || before.Head == "" && before.Base == "" && !strings.HasPrefix(last.Why, "commit") {
		return nil, fmt.Errorf("branch %q: %w", branch, ErrNoUndo)
	}
	why := "undo " + last.Why
	if strings.HasPrefix(last.Why, "merge") || strings.HasPrefix(last.Why, "reset") || strings.HasPrefix(last.Why, "undo") {
		id, err := headOf(before)
		if err != nil {
			return nil, err
		}
		to, err := r.commits.Manifest(ctx, id)
		if err != nil {
			return nil, err
		}
		return last, r.Reset(ctx, branch, to, why, opts)
	}
	t, err := r.begin(ctx, branch)
	if err != nil {
		return nil, err
	}
	defer func() { t.end(ctx) }()
	if before.Head != "" {
		if err := r.still(ctx, before.Head); err != nil {
			return nil, err
		}
	}
	if t.ref.Head != last.Head {
		return nil, fmt.Errorf("branch %q: %w", branch, refs.ErrLost)
	}
	return last, t.finish(ctx, refs.Ref{Head: before.Head, Why: why, Rewound: true})
}

// Tag names a commit. refs.ErrExist, refs.ErrBadName.
func (r *Repo) Tag(ctx context.Context, name string, m *commit.Manifest, message string) error {
	if _, err := r.refs.CreateTag(ctx, name, m.ID, message); err != nil {
		return err
	}
	return r.namedNow(ctx, m.ID, func(ctx context.Context) error { return r.refs.DeleteTag(ctx, name) })
}
