package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/keifs/keifs/backend"
)

// directTree is one branch, or the root above them: the bucket, and over it
// the files that the bucket does not have yet as this volume has them.
type directTree struct {
	v     *direct
	store *Store
}

func (t *directTree) Name() string { return t.store.CurrentBranch() }

func (t *directTree) full(p Path) string { return fullPath(t.store.CurrentBranch(), p) }

// Sync implements Tree.
func (t *directTree) Sync(ctx context.Context, p Path) error {
	if err := t.v.check(); err != nil {
		return err
	}
	return t.v.publishAll(ctx, func(f *directFile) bool { return f.store.CurrentBranch() == t.Name() && p.Contains(f.path) })
}

// writable refuses at once what could never be published.
func (t *directTree) writable() error {
	if err := t.v.check(); err != nil {
		return err
	}
	if t.store.ReadOnly() {
		return fmt.Errorf("%s: %w", t.store.BackendName(), ErrReadOnly)
	}
	return nil
}

// Lookup implements Tree.
func (t *directTree) Lookup(ctx context.Context, p Path) (Entry, error) {
	if e, found, err := t.unpublished(p); found || err != nil {
		return e, err
	}
	return t.store.Lookup(ctx, p)
}

// unpublished returns the entry at p if this volume has one that the bucket
// does not know yet; ErrNotDir where a parent is such a file.
func (t *directTree) unpublished(p Path) (e Entry, found bool, err error) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	if err := t.v.checkLocked(); err != nil {
		return Entry{}, false, err
	}
	if f := t.v.unpublishedLocked(t.full(p)); f != nil {
		return f.statLocked(), true, nil
	}
	for dir := p; !dir.IsRoot(); {
		dir = dir.Dir()
		if t.v.unpublishedLocked(t.full(dir)) != nil {
			return Entry{}, false, fmt.Errorf("%s: %w", dir, ErrNotDir)
		}
	}
	return Entry{}, false, nil
}

// List implements Tree.
func (t *directTree) List(ctx context.Context, dir Path) iter.Seq2[Entry, error] {
	return Pages(func(from Cursor) (Page, error) { return t.ListPage(ctx, dir, from) })
}

// ListPage implements Tree.
func (t *directTree) ListPage(ctx context.Context, dir Path, from Cursor) (Page, error) {
	_, isFile, err := t.unpublished(dir)
	if isFile {
		err = fmt.Errorf("%s: %w", dir, ErrNotDir)
	}
	if err != nil {
		return Page{}, err
	}
	// Taken before the listing begins: what is published meanwhile is then
	// seen twice rather than not at all.
	over := t.overlay(dir)
	page, err := t.store.ListPage(ctx, dir, from)
	if err != nil {
		return Page{}, err
	}
	return page.Merge(from, over), nil
}

// overlay is what dir has that is not in the bucket, by name.
func (t *directTree) overlay(dir Path) []Entry {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	var list []Entry
	for _, f := range t.v.names {
		if f.dirty() && f.store.CurrentBranch() == t.Name() && f.path.Dir() == dir {
			list = append(list, f.statLocked())
		}
	}
	slices.SortFunc(list, Order)
	return list
}

// Open implements Tree.
func (t *directTree) Open(ctx context.Context, p Path, flags OpenFlags) (File, error) {
	if err := t.v.check(); err != nil {
		return nil, err
	}
	if flags.Write {
		if err := t.changeable(); err != nil {
			return nil, err
		}
	}
	release, err := t.v.locks.one(ctx, t.full(p))
	if err != nil {
		return nil, err
	}
	defer release()
	return t.openClaimed(ctx, p, flags)
}

// changeable says whether files can be written in this tree.
func (t *directTree) changeable() error {
	if t.Name() == "" {
		return ErrOutsideBranch
	}
	return t.writable()
}

// openClaimed opens what is at p now: the file this volume has open, if it has
// changes of its own or is what the bucket has, and else the one in the bucket.
func (t *directTree) openClaimed(ctx context.Context, p Path, flags OpenFlags) (File, error) {
	e, err := t.Lookup(ctx, p)
	if err != nil {
		return nil, err
	}
	switch {
	case e.IsDir():
		return nil, fmt.Errorf("%s: %w", p, ErrIsDir)
	case !e.IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: %w", p, ErrInvalid)
	}
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	if err := t.v.checkLocked(); err != nil {
		return nil, err
	}
	f := t.v.names[t.full(p)]
	switch {
	case f != nil && f.dirty():
	case f != nil && f.base.Version == e.Version:
		f.base, f.attr = e, e.Attr
	default: // a file that is open as an older version keeps its handles, not the name
		f = t.newFileLocked(p, e)
	}
	if flags.Write && flags.Truncate {
		f.truncateLocked()
	}
	return f.handleLocked(flags.Write), nil
}

// newFileLocked makes a clean file that the bucket has as e. The path is claimed.
func (t *directTree) newFileLocked(p Path, e Entry) *directFile {
	f := &directFile{v: t.v, store: t.store, path: p, base: e, attr: e.Attr}
	t.v.names[t.full(p)] = f
	t.v.files[f] = struct{}{}
	return f
}

// Create implements Tree.
func (t *directTree) Create(ctx context.Context, p Path, attr Attr, exclusive bool) (File, error) {
	if err := t.changeable(); err != nil {
		return nil, err
	}
	if p.IsRoot() {
		return nil, fmt.Errorf("the root: %w", ErrExist)
	}
	now := time.Now()
	attr.Mode = attr.Mode&^ModeType | ModeRegular
	attr.Ctime = now
	if attr.Mtime.IsZero() {
		attr.Mtime = now
	}
	release, err := t.v.locks.one(ctx, t.full(p))
	if err != nil {
		return nil, err
	}
	defer release()

	switch _, err := t.Lookup(ctx, p); {
	case err == nil && exclusive:
		return nil, fmt.Errorf("%s: %w", p, ErrExist)
	case err == nil:
		return t.openClaimed(ctx, p, OpenFlags{Write: true, Truncate: true})
	case !errors.Is(err, ErrNotExist):
		return nil, err
	}
	if err := t.parent(ctx, p); err != nil {
		return nil, err
	}
	if err := t.store.CheckNew(p); err != nil {
		return nil, err
	}
	var e Entry
	if exclusive {
		e, err = t.store.Publish(ctx, p, backend.Bytes(nil), PublishOptions{Attr: attr, Exclusive: true})
		if err != nil {
			return nil, err
		}
	}
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	if err := t.v.checkLocked(); err != nil {
		return nil, err
	}
	f := t.newFileLocked(p, e)
	f.loaded = true
	if !exclusive {
		f.attr = attr
		f.changedLocked()
	}
	return f.handleLocked(true), nil
}

// parent returns an error unless the parent of p is a directory.
func (t *directTree) parent(ctx context.Context, p Path) error {
	e, err := t.Lookup(ctx, p.Dir())
	if err != nil {
		return err
	}
	if !e.IsDir() {
		return fmt.Errorf("%s: %w", p.Dir(), ErrNotDir)
	}
	return nil
}

// Mkdir implements Tree.
func (t *directTree) Mkdir(ctx context.Context, p Path, attr Attr) (Entry, error) {
	return t.make(ctx, p, func() (Entry, error) { return t.store.Mkdir(ctx, p, attr) })
}

// Mknod implements Tree.
func (t *directTree) Mknod(ctx context.Context, p Path, attr Attr, target string) (Entry, error) {
	return t.make(ctx, p, func() (Entry, error) { return t.store.Mknod(ctx, p, attr, target) })
}

// make makes a new name in the bucket, unless an unpublished file has it.
func (t *directTree) make(ctx context.Context, p Path, fn func() (Entry, error)) (Entry, error) {
	if err := t.writable(); err != nil {
		return Entry{}, err
	}
	release, err := t.v.locks.one(ctx, t.full(p))
	if err != nil {
		return Entry{}, err
	}
	defer release()
	if _, found, err := t.unpublished(p); err != nil {
		return Entry{}, err
	} else if found {
		return Entry{}, fmt.Errorf("%s: %w", p, ErrExist)
	}
	return fn()
}

// Readlink implements Tree.
func (t *directTree) Readlink(ctx context.Context, p Path) (string, error) {
	if err := t.v.check(); err != nil {
		return "", err
	}
	return t.store.Readlink(ctx, p)
}

// Remove implements Tree.
func (t *directTree) Remove(ctx context.Context, p Path) error {
	if err := t.writable(); err != nil {
		return err
	}
	release, err := t.v.locks.one(ctx, t.full(p))
	if err != nil {
		return err
	}
	defer release()
	t.v.mu.Lock()
	f := t.v.names[t.full(p)]
	t.v.mu.Unlock()
	if f == nil {
		return t.store.Remove(ctx, p)
	}
	if err := f.keepClaimed(ctx); err != nil {
		return err
	}
	t.v.mu.Lock()
	dirty, inBucket := f.dirty(), f.base.Version != "" || f.tried
	t.v.mu.Unlock()
	if inBucket {
		err := t.store.Remove(ctx, p)
		if err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
		if !dirty && err != nil {
			return err
		}
	}
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	f.unlinkLocked()
	return nil
}

// Rmdir implements Tree.
func (t *directTree) Rmdir(ctx context.Context, p Path) error {
	if err := t.writable(); err != nil {
		return err
	}
	release, err := t.v.locks.tree(ctx, t.full(p))
	if err != nil {
		return err
	}
	defer release()
	if _, found, err := t.unpublished(p); err != nil {
		return err
	} else if found {
		return fmt.Errorf("%s: %w", p, ErrNotDir)
	}
	for _, f := range t.v.below(t.full(p)) {
		t.v.mu.Lock()
		dirty := f.dirty()
		t.v.mu.Unlock()
		if dirty {
			return fmt.Errorf("%s: %w", p, ErrNotEmpty)
		}
	}
	return t.store.Rmdir(ctx, p)
}

// SetAttr implements Tree. Where the file is open, it is File.SetAttr.
func (t *directTree) SetAttr(ctx context.Context, p Path, change AttrChange) (Entry, error) {
	if err := t.writable(); err != nil {
		return Entry{}, err
	}
	if change.Size != nil {
		return t.resize(ctx, p, change)
	}
	release, err := t.v.locks.one(ctx, t.full(p))
	if err != nil {
		return Entry{}, err
	}
	defer release()
	t.v.mu.Lock()
	f := t.v.names[t.full(p)]
	t.v.mu.Unlock()
	if f != nil {
		e, err := f.setAttrClaimed(ctx, change)
		if !errors.Is(err, ErrStale) {
			return e, err
		}
		// The name is another file's by now, and that one is meant.
	}
	return t.store.SetAttr(ctx, p, change)
}

// resize changes size and attributes by way of a handle.
func (t *directTree) resize(ctx context.Context, p Path, change AttrChange) (e Entry, err error) {
	f, err := t.Open(ctx, p, OpenFlags{Write: true, Truncate: *change.Size == 0})
	if err != nil {
		return Entry{}, err
	}
	defer func() {
		if cerr := f.Close(ctx); err == nil {
			err = cerr
		}
	}()
	if _, err := f.SetAttr(ctx, change); err != nil {
		return Entry{}, err
	}
	if err := f.Flush(ctx); err != nil {
		return Entry{}, err
	}
	return f.Stat(ctx)
}
