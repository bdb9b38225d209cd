package store

import (
	"context"
	"errors"
	"fmt"
)

// Rename implements Tree. What is not in the bucket is published first, so
// that the bucket can do the rename; then the open files follow.
func (t *directTree) Rename(ctx context.Context, from, to Path, mode RenameMode) error {
	if err := t.writable(); err != nil {
		return err
	}
	if from == to {
		_, err := t.Lookup(ctx, from)
		if err == nil && mode == NoReplace {
			err = fmt.Errorf("%s: %w", to, ErrExist)
		}
		return err
	}
	release, err := t.v.locks.tree(ctx, t.full(from), t.full(to))
	if err != nil {
		return err
	}
	defer release()

	if !from.Contains(to) { // otherwise the bucket refuses below
		for _, f := range t.v.below(t.full(from)) {
			if err := f.publishClaimed(ctx); err != nil {
				return err
			}
		}
	}
	for _, f := range t.v.below(t.full(to)) {
		// One that lost its name to somebody else does not matter here.
		if err := f.publishClaimed(ctx); err != nil && !errors.Is(err, ErrStale) {
			return err
		}
		if mode == Exchange {
			continue
		}
		if err := f.keepClaimed(ctx); err != nil {
			return err
		}
	}

	sources, targets := t.v.below(t.full(from)), t.v.below(t.full(to))
	before := t.bases(sources, targets)
	if err := t.store.Rename(ctx, from, to, mode); err != nil {
		// It may have happened all the same, or half of it.
		t.settle(ctx, sources, from, to, before)
		if mode == Exchange {
			t.settle(ctx, targets, to, from, before)
		}
		return err
	}
	if mode != Exchange {
		t.v.mu.Lock()
		for _, f := range targets {
			f.unlinkLocked()
		}
		t.v.mu.Unlock()
		targets = nil
	}
	t.follow(ctx, sources, from, to, before)
	t.follow(ctx, targets, to, from, before)
	return nil
}

// bases is what the bucket had of the files before they moved.
func (t *directTree) bases(lists ...[]*directFile) map[*directFile]Entry {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	bases := map[*directFile]Entry{}
	for _, list := range lists {
		for _, f := range list {
			bases[f] = f.base
		}
	}
	return bases
}

// settle finds out, after a rename that failed, which files have moved.
func (t *directTree) settle(ctx context.Context, files []*directFile, from, to Path, before map[*directFile]Entry) {
	for _, f := range files {
		if _, err := t.store.Head(ctx, f.path); errors.Is(err, ErrNotExist) {
			if e, err := t.store.Head(ctx, f.path.Rebase(from, to)); err == nil && sameFile(before[f], e) {
				t.moved(f, from, to, e)
			}
		}
	}
}

// follow gives files their new names and the versions they have there.
func (t *directTree) follow(ctx context.Context, files []*directFile, from, to Path, before map[*directFile]Entry) {
	t.v.mu.Lock()
	for _, f := range files { // all names go before the new ones come: an exchange
		if f.namedLocked() {
			delete(t.v.names, f.fullLocked())
		}
	}
	t.v.mu.Unlock()
	for _, f := range files {
		e, err := t.store.Head(ctx, f.path.Rebase(from, to))
		if err != nil || !sameFile(before[f], e) {
			// Not known, or somebody else's already: with the old version
			// nothing of theirs can be read or overwritten.
			e = before[f]
		}
		t.moved(f, from, to, e)
	}
}

func (t *directTree) moved(f *directFile, from, to Path, e Entry) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	if f.namedLocked() {
		delete(t.v.names, f.fullLocked())
	}
	f.path = f.path.Rebase(from, to)
	f.base = e
	if !f.dirty() {
		f.attr = e.Attr
	}
	t.v.names[f.fullLocked()] = f
	f.dropLocked()
}

// sameFile says whether an object found after a rename is the one from before
// it: a copy may have another version, but it has the same size and time.
func sameFile(before, after Entry) bool {
	return before.Version == after.Version || before.Size == after.Size && before.Mtime.Equal(after.Mtime)
}
