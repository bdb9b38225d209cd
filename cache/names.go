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
	release, err := t.gate.take(ctx, exclusive(p))
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
		if err := t.c.noted(); err != nil {
			return err
		}
		err := t.store.Remove(ctx, p)
		switch {
		case errors.Is(err, store.ErrNotExist) && mine: // somebody else was faster
		case errors.Is(err, store.ErrNotExist):
			t.c.meta.gone(t.Name(), p, false)
			return err
		case err != nil:
			t.c.meta.forget(t.Name(), p, false)
			return err
		}
		t.c.meta.gone(t.Name(), p, false)
	}
	t.c.meta.touch(t.Name(), p.Dir())
	if in != nil {
		return t.unlink(in)
	}
	return nil
}

// unlink takes the name from the inode for good; handles keep the content.
func (t *tree) unlink(in *inode) error {
	t.unname(in)
	in.mu.Lock()
	in.removed = true
	record := in.record
	in.forgetPromiseLocked()
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
	release, err := t.gate.take(ctx, subtree(p))
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
	if err := t.store.Rmdir(ctx, p); err != nil {
		t.c.meta.forget(t.Name(), p, false)
		return err
	}
	t.c.meta.gone(t.Name(), p, false)
	t.c.meta.untouch(t.Name(), p)
	t.c.meta.touch(t.Name(), p.Dir())
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
