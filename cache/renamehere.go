package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keifs/keifs/store"
)

// renameHere renames a file that the bucket has never seen: it is published
// under its new name only, with the condition of what is there now. False
// where the bucket has to do it. The paths are claimed.
func (t *tree) renameHere(ctx context.Context, from, to store.Path, mode store.RenameMode) (done bool, err error) {
	in := t.named(from)
	if !t.c.opts.WriteBack || mode == store.Exchange || in == nil || !in.unseen() {
		return false, nil
	}
	if err := t.refuse(ctx, from, to, mode); err != nil {
		return false, err
	}
	replaced, err := t.Lookup(ctx, to)
	switch {
	case errors.Is(err, store.ErrNotExist):
		parent, err := t.Lookup(ctx, to.Dir())
		if err != nil || !parent.IsDir() || t.store.CheckNew(to) != nil {
			return false, nil //nolint:nilerr // the bucket's rename says why not
		}
	case err != nil:
		return false, err
	case mode == store.NoReplace:
		return false, fmt.Errorf("%s: %w", to, store.ErrExist)
	case replaced.IsDir() || replaced.Version == "" && t.named(to) == nil:
		return false, nil
	}
	target := t.named(to)
	if target != nil {
		if err := target.keep(ctx); err != nil {
			return false, err
		}
		target.mu.Lock()
		uncertain := len(target.tried) > 0
		replaced.Version = target.entry.Version
		target.mu.Unlock()
		if uncertain {
			return false, nil
		}
	}
	if done, err := in.moveUnseen(ctx, to, replaced, target); !done || err != nil {
		return false, err
	}
	t.arriveUnseen(in, from, to)
	_ = in.renew(ctx) // which tells of it
	t.c.meta.gone(t.Name(), from, false)
	t.c.meta.touch(t.Name(), from.Dir())
	t.c.meta.touch(t.Name(), to.Dir())
	t.c.uploads.add(in, quiet)
	if target != nil {
		return true, t.unlink(target)
	}
	return true, nil
}

// unseen says whether the bucket certainly has nothing of the file, and not
// most of it already by a stream.
func (in *inode) unseen() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.unseenLocked()
}

func (in *inode) unseenLocked() bool {
	return in.dirtyLocked() && in.content && in.file != nil && in.entry.Version == "" && len(in.tried) == 0 && !in.stream.mostlyLocked()
}

// moveUnseen promises the file under its new name, in the place of what that
// has been promised for.
func (in *inode) moveUnseen(ctx context.Context, to store.Path, replaced store.Entry, target *inode) (bool, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.idleLocked(ctx); err != nil || !in.unseenLocked() {
		return false, err
	}
	if in.stream != nil {
		in.giveUpLocked() // which has the old name
	}
	other := in.record
	if target != nil {
		target.mu.Lock()
		other = target.record
		target.mu.Unlock()
	}
	in.entry.Version = replaced.Version
	if err := in.promiseLocked(func() store.Path { return to }, other); err != nil {
		in.entry.Version = ""
		return false, nil // by way of the bucket, then
	}
	if target != nil {
		target.mu.Lock()
		target.forgetPromiseLocked()
		target.mu.Unlock()
	}
	in.base = replaced
	in.moves++
	return true, nil
}

func (t *tree) arriveUnseen(in *inode, from, to store.Path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[from] == in {
		delete(t.names, from)
	}
	t.names[to] = in
	in.path = to
}

// unseenBelow returns the files below a directory, which is claimed, that the
// bucket has never seen. They go along with it when they are carried, by the
// journal alone. None of them is streamed until then.
func (t *tree) unseenBelow(dir store.Path) []*inode {
	if !t.c.opts.WriteBack {
		return nil
	}
	return slices.DeleteFunc(t.below(dir), func(in *inode) bool {
		if p := in.where(); p == dir || t.named(p) != in {
			return true
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		if !in.unseenLocked() {
			return true
		}
		if in.stream != nil {
			in.giveUpLocked() // which has the old name
		}
		return false
	})
}

// carry gives files that are here only the names that they have after the
// rename of a directory above them. The record of one that the journal does
// not take has the old name until the bucket has the file.
func (t *tree) carry(ctx context.Context, files []*inode, from, to store.Path) {
	for _, in := range files {
		old := in.where()
		now := old.Rebase(from, to)
		in.mu.Lock()
		err := in.idleLocked(ctx)
		if err == nil && in.dirtyLocked() && in.file != nil {
			in.unstreamed = true
			err = in.promiseLocked(func() store.Path { return now }, 0)
		}
		in.moves++
		in.mu.Unlock()
		if err != nil {
			t.c.log.Error("the journal does not take the new name of a file that is not in the bucket yet", "path", now.String(), "error", err)
		}
		t.arriveUnseen(in, old, now)
		t.c.meta.touch(t.Name(), now.Dir())
		t.c.uploads.add(in, quiet)
	}
}
