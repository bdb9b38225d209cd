package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
)

// step is one change to a working tree: from what it has to what a commit has.
type step struct {
	path string
	now  *commit.Entry // what the working tree has; nil: nothing
	want *commit.Entry // nil: nothing
	from string        // id of the commit that want is of

	source string // path of want in that commit; empty: the same
	mark   string // of now: what it is a copy of
}

// metaMark is the metadata by which a copy says of what it is one. It is gone
// with the next change, since it is the one of an exclusive create, too.
const metaMark = "keifs-nonce"

func markOf(e *commit.Entry) string { return "copy-" + store.ShortHash(overlay.PinKey(e.Key, e.ETag)) }

func (s *step) sourcePath() string {
	if s.source != "" {
		return s.source
	}
	return s.path
}

// atOnce is how many changes of a working tree are on the wire.
const atOnce = 32

// apply makes the changes, in any order: each is one conditional change of one
// object, and one that is made already is left. It returns the entries as the
// branch has them then, by path. store.ErrStale where somebody else was there;
// the other changes are made all the same, so that it is known which were.
func (r *Repo) apply(ctx context.Context, branch string, steps []step, progress func(int64)) (map[string]*commit.Entry, error) {
	var mu sync.Mutex
	var stale error
	made := map[string]*commit.Entry{}
	err := backend.Parallel(ctx, atOnce, steps, func(ctx context.Context, s step) error {
		e, err := r.applyOne(ctx, branch, s)
		switch {
		case errors.Is(err, backend.ErrPrecondition), errors.Is(err, backend.ErrNotExist) && s.now != nil:
			mu.Lock()
			defer mu.Unlock()
			stale = cmp.Or(stale, fmt.Errorf("%s: %w: %w", s.path, store.ErrStale, err))
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", s.path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		made[s.path] = e
		if progress != nil {
			progress(int64(len(made)))
		}
		return nil
	})
	return made, cmp.Or(err, stale)
}

func (r *Repo) applyOne(ctx context.Context, branch string, s step) (*commit.Entry, error) {
	key := branch + "/" + s.path
	if s.want == nil {
		if s.now == nil {
			return nil, nil
		}
		err := r.st.Erase(ctx, key, s.now.ETag)
		if errors.Is(err, backend.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	if s.arrived() {
		return s.now, nil
	}
	opts := backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: metadata(s.want)}
	if s.now != nil {
		opts.Cond = backend.Cond{IfMatch: s.now.ETag}
	}
	opts.Metadata[metaMark] = markOf(s.want)
	src := backend.Info{Key: branch + "@" + s.from + "/" + s.sourcePath(), ETag: s.want.ETag, Size: s.want.Size}
	info, err := r.st.Transfer(ctx, src, key, opts)
	if err != nil {
		return nil, err
	}
	// As the store has it, so that the next commit finds nothing new.
	now, err := r.st.Bucket().Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if now.ETag != info.ETag {
		return nil, backend.Fail("copy", key, backend.ErrPrecondition, nil)
	}
	e := *s.want
	e.Key, e.ETag, e.VersionID, e.Modified = key, now.ETag, now.VersionID, nanoseconds(now.ModTime)
	return &e, nil
}

// present is an object of a working tree.
type present struct {
	entry *commit.Entry
	mark  string
}

// current is what the working tree has at some paths. Of objects that are as
// the head has them, the attributes are as well, whatever the defaults here.
func (r *Repo) current(ctx context.Context, branch string, paths []string, head map[string]*commit.Entry) (map[string]present, error) {
	var mu sync.Mutex
	found := map[string]present{}
	err := backend.Parallel(ctx, atOnce, paths, func(ctx context.Context, path string) error {
		info, err := r.st.Bucket().Stat(ctx, branch+"/"+path)
		if errors.Is(err, backend.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		e := head[path]
		if e == nil || e.ETag != info.ETag || e.Modified != nanoseconds(info.ModTime) {
			now, err := r.entry(ctx, path, info)
			if err != nil {
				return err
			}
			e = &now
		}
		mu.Lock()
		defer mu.Unlock()
		found[path] = present{e, info.Metadata[metaMark]}
		return nil
	})
	return found, err
}

// UncommittedError names paths of a working tree that have changes of their own,
// which would be lost.
type UncommittedError struct {
	Branch string
	Paths  []string
}

func (e *UncommittedError) Error() string {
	return fmt.Sprintf("branch %s has changes that are in no commit: %s", e.Branch, some(e.Paths))
}

// ConflictError names paths that both sides of a merge changed.
type ConflictError struct{ Paths []string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("both changed %s; nothing was merged: choose with --ours, --theirs or --keep-both", some(e.Paths))
}

// some names the first of many.
func some(paths []string) string {
	text := fmt.Sprintf("%q", paths[:min(len(paths), 5)])
	text = text[1 : len(text)-1]
	if n := len(paths) - 5; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func sortedPaths(m map[string]*commit.Entry) []string {
	paths := make([]string, 0, len(m))
	for p := range m {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}
