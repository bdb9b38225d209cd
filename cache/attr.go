package cache

import (
	"context"
	"errors"
	"time"

	"github.com/keifs/keifs/store"
)

// setAttr is File.SetAttr.
func (in *inode) setAttr(ctx context.Context, change store.AttrChange) (store.Entry, error) {
	if change.Size != nil {
		if err := in.truncate(ctx, *change.Size); err != nil {
			return store.Entry{}, err
		}
		change.Size = nil
		if change == (store.AttrChange{}) {
			return in.stat(), nil
		}
	}
	if e, held, err := in.holdAttr(ctx, in.where(), change); held || err != nil {
		return e, err
	}
	path, release, err := in.claim(ctx)
	if err != nil {
		return store.Entry{}, err
	}
	defer release()
	return in.setAttrClaimed(ctx, path, change)
}

// holdAttr makes the change here, if a publication will take it along or the
// file has no name any more.
func (in *inode) holdAttr(ctx context.Context, path store.Path, change store.AttrChange) (e store.Entry, held bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.idleLocked(ctx); err != nil {
		return e, false, err
	}
	if in.stale != nil {
		return e, false, in.stale
	}
	if !in.dirtyLocked() && !in.fresh && !in.removed {
		return e, false, nil
	}
	attr, err := change.Apply(in.entry.Attr)
	if err == nil && !in.removed {
		err = in.t.store.CheckAttr(attr)
	}
	if err != nil {
		return e, false, err
	}
	in.unsavedLocked(time.Now())
	in.entry.Attr, in.attrs = attr, true
	if in.stream != nil {
		in.stream.touched = true
	}
	if in.record != 0 { // what was acknowledged once is so with all that comes later
		err = in.promiseLocked(in.where, 0)
	}
	return in.statLocked(path), true, err
}

// setAttrClaimed changes the attributes of the inode's object at once, where
// they are not held. The path is claimed. The content goes on to be that of
// the version, whatever it is called afterwards.
func (in *inode) setAttrClaimed(ctx context.Context, path store.Path, change store.AttrChange) (store.Entry, error) {
	if e, held, err := in.holdAttr(ctx, path, change); held || err != nil {
		return e, err
	}
	t := in.t
	in.mu.Lock()
	change.Base = in.entry.Version
	in.mu.Unlock()
	e, err := t.setObjectAttr(ctx, path, change)
	if err != nil {
		return store.Entry{}, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.base = e
	in.moves++
	if in.dirtyLocked() { // changed meanwhile, and that is not in the bucket yet
		before := in.entry
		if attr, err := change.Apply(before.Attr); err == nil {
			e.Attr = attr
		} else {
			e.Attr = before.Attr
		}
		e.Size, e.Mtime, e.Ctime, e.Atime = before.Size, before.Mtime, before.Ctime, before.Atime
	}
	in.entry = e
	return in.statLocked(path), nil
}

// setObjectAttr changes the attributes in the bucket. The path is claimed.
func (t *tree) setObjectAttr(ctx context.Context, p store.Path, change store.AttrChange) (store.Entry, error) {
	if err := t.c.settleCopies(ctx, t, exclusive(p)); err != nil {
		return store.Entry{}, err
	}
	if err := t.removed(p); err != nil {
		return store.Entry{}, err
	}
	if e, seen, absent := t.c.meta.recall(t.Name(), p); seen && !absent {
		change.Dir = e.IsDir() && e.Marker
	}
	e, err := t.store.SetAttr(ctx, p, change)
	if err != nil {
		t.c.meta.forget(t.Name(), p, false)
		return store.Entry{}, err
	}
	if e.IsDir() && change.Mtime != nil {
		t.c.meta.untouch(t.Name(), p)
	}
	t.c.meta.put(t.Name(), p, e)
	return e, nil
}

// SetAttr implements store.Tree. Where the file is open, it is File.SetAttr.
func (t *tree) SetAttr(ctx context.Context, p store.Path, change store.AttrChange) (store.Entry, error) {
	if err := t.changeable(); err != nil {
		return store.Entry{}, err
	}
	if change.Size != nil {
		return t.resize(ctx, p, change)
	}
	release, err := t.gate.take(ctx, exclusive(p))
	if err != nil {
		return store.Entry{}, err
	}
	defer release()
	if in := t.named(p); in != nil {
		e, err := in.setAttrClaimed(ctx, p, change)
		if !errors.Is(err, store.ErrStale) {
			return e, err
		}
		t.unname(in) // by now the name is another file's, and that one is meant
	}
	e, err := t.setObjectAttr(ctx, p, change)
	return t.c.meta.dress(t.Name(), p, e), err
}

// resize changes the size by way of a handle. It is published at once, unless
// somebody has the file open for writing, whose Flush does it.
func (t *tree) resize(ctx context.Context, p store.Path, change store.AttrChange) (e store.Entry, err error) {
	f, err := t.Open(ctx, p, store.OpenFlags{Write: true, Truncate: *change.Size == 0})
	if err != nil {
		return store.Entry{}, err
	}
	defer func() {
		if cerr := f.Close(ctx); err == nil {
			err = cerr
		}
	}()
	if e, err = f.SetAttr(ctx, change); err != nil || t.writers(p) > 1 {
		return e, err
	}
	if err := f.Flush(ctx); err != nil {
		return store.Entry{}, err
	}
	return f.Stat(ctx)
}
