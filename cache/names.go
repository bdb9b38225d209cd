package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keifs/keifs/store"
)

// Mkdir implements store.Tree.
func (t *tree) Mkdir(ctx context.Context, p store.Path, attr store.Attr) (store.Entry, error) {
	return t.make(ctx, p, func() (store.Entry, error) { return t.store.Mkdir(ctx, p, attr) })
}

// Mknod implements store.Tree.
func (t *tree) Mknod(ctx context.Context, p store.Path, attr store.Attr, target string) (store.Entry, error) {
	return t.make(ctx, p, func() (store.Entry, error) { return t.store.Mknod(ctx, p, attr, target) })
}

// make makes a new name in the bucket, unless an unpublished file has it.
func (t *tree) make(ctx context.Context, p store.Path, fn func() (store.Entry, error)) (store.Entry, error) {
	if err := t.writable(); err != nil {
		return store.Entry{}, err
	}
	release, err := t.gate.take(ctx, subtree(p)) // nothing comes into a directory before it is noted to be empty
	if err != nil {
		return store.Entry{}, err
	}
	defer release()
	if _, found, err := t.unpublished(p); err != nil {
		return store.Entry{}, err
	} else if found {
		return store.Entry{}, fmt.Errorf("%s: %w", p, store.ErrExist)
	}
	if err := t.removed(p.Dir()); err != nil {
		return store.Entry{}, err
	}
	if err := t.c.removals.settle(ctx, t.Name(), subtree(p)); err != nil {
		return store.Entry{}, err
	}
	at := time.Now()
	e, err := fn()
	if err != nil {
		t.c.meta.forget(t.Name(), p, false)
		return store.Entry{}, err
	}
	if t.Name() == "" { // a branch begins
		t.c.meta.forget(p.Name(), store.Path{}, true)
	}
	t.c.meta.put(t.Name(), p, e)
	if e.IsDir() && t.Name() != "" {
		t.c.meta.empty(t.Name(), p, at)
	}
	t.c.meta.touch(t.Name(), p.Dir())
	return e, nil
}

// Remove implements store.Tree. Once begun, it is not interrupted.
func (t *tree) Remove(ctx context.Context, p store.Path) error {
	if err := t.writable(); err != nil {
		return err
	}
	release, err := t.claim(ctx, exclusive(p))
	if err != nil {
		return err
	}
	defer release()
	in := t.named(p)
	mine, object := false, true // what has to go: an unpublished file here, an object in the bucket
	if in != nil {
		if err := in.keep(ctx); err != nil {
			return err
		}
		in.mu.Lock()
		mine, object = in.dirtyLocked(), in.entry.Version != "" || len(in.tried) > 0
		in.mu.Unlock()
	}
	if object {
		if err := t.c.settleCopies(ctx, t, exclusive(p)); err != nil {
			return err
		}
		ctx, cancel := t.c.detach(ctx)
		defer cancel()
		if err := t.removeObject(ctx, p, in); err != nil && !(mine && errors.Is(err, store.ErrNotExist)) {
			return err
		}
	}
	t.c.meta.touch(t.Name(), p.Dir())
	if in != nil {
		return t.unlink(in)
	}
	return nil
}

// removeObject removes what the bucket has at p, which is claimed; in is the
// open file of that name, or nil.
func (t *tree) removeObject(ctx context.Context, p store.Path, in *inode) error {
	if t.Name() == "" {
		return t.store.Remove(ctx, p) // which refuses
	}
	for range removeAttempts {
		removal, err := t.removal(ctx, p, in)
		if err != nil {
			return err
		}
		g, err := t.c.removals.add(t.Name(), removal)
		if err != nil {
			return err
		}
		t.c.meta.gone(t.Name(), p, false)
		t.c.meta.emptying(t.Name(), p.Dir())
		if !t.c.opts.SyncDeletes {
			return nil
		}
		err = t.c.removals.finish(ctx, g)
		if !errors.Is(err, store.ErrStale) {
			return err
		}
		in = nil // somebody has replaced it, and the name is to go all the same
	}
	return fmt.Errorf("remove %s: it changes all the time: %w", p, store.ErrStale)
}

const removeAttempts = 5

// removal is the file at p, in the version that was seen last.
func (t *tree) removal(ctx context.Context, p store.Path, in *inode) (store.Removal, error) {
	if in != nil {
		in.mu.Lock()
		version, sure := in.entry.Version, len(in.tried) == 0
		in.mu.Unlock()
		if version != "" && sure {
			return store.Removal{Path: p, Version: version}, nil
		}
	}
	if t.c.removals.covers(t.Name(), p) {
		return store.Removal{}, fmt.Errorf("%s: %w", p, store.ErrNotExist)
	}
	e, known, absent := t.c.meta.recall(t.Name(), p)
	var err error
	if in != nil || !known || absent || !e.IsDir() && e.Version == "" {
		e, err = t.store.Lookup(ctx, p)
	}
	if err != nil {
		return store.Removal{}, fmt.Errorf("%s: %w", p, err)
	}
	if e.IsDir() {
		return store.Removal{}, fmt.Errorf("%s: %w", p, store.ErrIsDir)
	}
	return store.Removal{Path: p, Version: e.Version}, nil
}

// unlink takes the name from the inode for good; handles keep the content.
func (t *tree) unlink(in *inode) error {
	t.unname(in)
	in.mu.Lock()
	// A record that is being written now would stay, as nobody knows it yet.
	// Whoever is busy ends by itself: publications wait for the claim.
	_ = in.idleLocked(context.Background())
	in.removed = true
	record := in.record
	in.forgetPromiseLocked()
	if in.stream != nil {
		in.giveUpLocked()
	}
	in.mu.Unlock()
	err := t.c.withdraw(record)
	t.settle(in)
	return err
}

// Rmdir implements store.Tree.
func (t *tree) Rmdir(ctx context.Context, p store.Path) error {
	if err := t.writable(); err != nil {
		return err
	}
	release, err := t.claim(ctx, subtree(p))
	if err != nil {
		return err
	}
	defer release()
	if _, found, err := t.unpublished(p); err != nil {
		return err
	} else if found {
		return fmt.Errorf("%s: %w", p, store.ErrNotDir)
	}
	if t.Name() == "" && !p.IsRoot() {
		release, err := t.c.claimBranch(ctx, p.Name())
		if err != nil {
			return err
		}
		defer release()
		defer t.c.meta.forget(p.Name(), store.Path{}, true)
	}
	if t.unpublishedBelow(p) {
		return fmt.Errorf("%s: %w", p, store.ErrNotEmpty)
	}
	ctx, cancel := t.c.detach(ctx)
	defer cancel()
	if err := t.removeDir(ctx, p); err != nil {
		t.c.meta.forget(t.Name(), p, false)
		return err
	}
	t.c.meta.untouch(t.Name(), p)
	t.c.meta.touch(t.Name(), p.Dir())
	return nil
}

// removeDir removes the directory p, with all below it claimed, if there is
// nothing in it but what was removed here. What somebody else has just put
// into it keeps it.
func (t *tree) removeDir(ctx context.Context, p store.Path) error {
	if t.Name() == "" {
		if p.Dir().IsRoot() {
			if err := t.c.removals.settle(ctx, p.Name(), subtree(store.Path{})); err != nil {
				return err
			}
		}
		if err := t.store.Rmdir(ctx, p); err != nil {
			return err
		}
		t.c.meta.gone(t.Name(), p, false)
		return nil
	}
	if p.IsRoot() {
		return fmt.Errorf("the root: %w", store.ErrInvalid)
	}
	if t.c.removals.covers(t.Name(), p) {
		return fmt.Errorf("%s: %w", p, store.ErrNotExist)
	}
	gone := t.c.removals.names(t.Name(), p)
	if t.c.opts.SyncDeletes || t.store.Hides(p) || !t.c.meta.recallEmpty(t.Name(), p, gone) {
		if err := t.store.CheckEmpty(ctx, p, func(name string) bool { return gone[name] }); err != nil {
			return err
		}
	}
	g, err := t.c.removals.add(t.Name(), store.Removal{Path: p, Dir: true})
	if err != nil {
		return err
	}
	t.c.meta.gone(t.Name(), p, false)
	t.c.meta.emptying(t.Name(), p.Dir())
	if t.c.opts.SyncDeletes {
		return t.c.removals.finish(ctx, g)
	}
	return nil
}

// unpublishedBelow says whether a file below p is here only.
func (t *tree) unpublishedBelow(p store.Path) bool {
	for _, in := range t.below(p) {
		if t.named(in.where()) == in && in.dirty() {
			return true
		}
	}
	return false
}

// below returns the open files at p and below it, those too whose name
// somebody else has taken since, but not those that were removed here.
func (t *tree) below(p store.Path) []*inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*inode
	for in := range t.inodes {
		if !p.Contains(in.path) {
			continue
		}
		in.mu.Lock()
		if !in.removed {
			all = append(all, in)
		}
		in.mu.Unlock()
	}
	return all
}
