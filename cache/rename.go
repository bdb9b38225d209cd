package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keifs/keifs/store"
)

// Rename implements store.Tree. What the bucket does not have is published
// first, so that the bucket can do the rename; then the open files follow.
// Once begun, it is not interrupted.
func (t *tree) Rename(ctx context.Context, from, to store.Path, mode store.RenameMode) error {
	if err := t.writable(); err != nil {
		return err
	}
	if from == to {
		_, err := t.Lookup(ctx, from)
		if err == nil && mode == store.NoReplace {
			err = fmt.Errorf("%s: %w", to, store.ErrExist)
		}
		return err
	}
	claims := []claim{subtree(from), subtree(to)}
	release, err := t.claim(ctx, claims...)
	if err != nil {
		return err
	}
	defer release()
	if from.Contains(to) || to.Contains(from) {
		if err := t.settleRemovals(ctx, from, to, claims); err != nil {
			return err
		}
		if err := t.publishBelow(ctx, from); err != nil {
			return err
		}
		return t.store.Rename(ctx, from, to, mode) // which refuses
	}
	if done, err := t.renameHere(ctx, from, to, mode); done || err != nil {
		return err
	}
	if err := t.settleRemovals(ctx, from, to, claims); err != nil {
		return err
	}
	subtree := !t.c.meta.isFile(t.Name(), from)
	var local []*inode
	if subtree && mode != store.Exchange {
		local = t.unseenBelow(from)
	}
	sources, targets, err := t.prepare(ctx, from, to, mode, local)
	if err != nil {
		return err
	}
	if err := t.c.settleCopies(ctx, t, claims...); err != nil {
		return err
	}
	moves := t.moves(sources, from, to)
	if mode == store.Exchange {
		moves = append(moves, t.moves(targets, to, from)...)
		targets = nil
	}
	seen := t.seen(from, to)
	ctx, cancel := t.c.detach(ctx)
	defer cancel()
	if err := t.c.noted(); err != nil {
		return err
	}
	e, r, err := t.renameObject(ctx, from, to, mode, subtree, seen)
	if len(local) > 0 && !r.isCopied() && errors.Is(err, store.ErrNotExist) { // the bucket knows nothing of the directory
		t.c.renames.ended(r, err, nil)
		r = nil
		moves = append(moves, t.moves(local, from, to)...)
		local = nil
		if err = t.publishBelow(ctx, from); err == nil {
			e, r, err = t.renameObject(ctx, from, to, mode, subtree, seen)
		}
	}
	if r.isCopied() {
		t.carry(ctx, local, from, to)
	}
	t.c.meta.forget(t.Name(), from, subtree)
	t.c.meta.forget(t.Name(), to, subtree || mode == store.Exchange)
	if err != nil { // it may have happened all the same, or half of it
		t.follow(ctx, moves, store.Entry{}, true)
		t.c.renames.ended(r, err, errors.Join(t.renewBelow(ctx, from), t.renewBelow(ctx, to)))
		return err
	}
	t.c.meta.touch(t.Name(), from.Dir())
	t.c.meta.touch(t.Name(), to.Dir())
	if mode != store.Exchange {
		t.c.meta.gone(t.Name(), from, subtree)
		t.c.meta.untouch(t.Name(), to)
		if subtree {
			t.c.meta.moveTouched(t.Name(), from, to)
		}
	}
	for _, in := range targets {
		err = errors.Join(err, t.unlink(in))
	}
	if e.Version != "" {
		t.c.meta.put(t.Name(), to, e)
	}
	t.follow(ctx, moves, e, false)
	t.c.renames.ended(r, nil, errors.Join(t.renewBelow(ctx, from), t.renewBelow(ctx, to)))
	return err
}

// renameObject has the bucket do it. A directory goes into the journal before,
// and stays there, as r, until what is here has followed.
func (t *tree) renameObject(ctx context.Context, from, to store.Path, mode store.RenameMode, dir bool, seen store.Seen) (e store.Entry, r *dirRename, err error) {
	if !dir || mode == store.Exchange {
		e, err = t.store.RenameSeen(ctx, from, to, mode, seen)
		return e, nil, err
	}
	r, err = t.c.renames.begin(t.Name(), from, to)
	if err != nil {
		return store.Entry{}, nil, err
	}
	seen.Progress = t.c.renames.progress(r)
	if t.c.opts.WriteBack {
		seen.Copied = t.c.renames.copied(r)
	}
	e, err = t.store.RenameSeen(ctx, from, to, mode, seen)
	return e, r, err
}

// settleRemovals waits for the removals that a rename could meet.
func (t *tree) settleRemovals(ctx context.Context, from, to store.Path, claims []claim) error {
	if _, here, err := t.unpublished(from); err != nil {
		return err
	} else if !here {
		if err := t.removed(from); err != nil {
			return err
		}
	}
	if err := t.removed(to.Dir()); err != nil {
		return err
	}
	if err := t.c.removals.settle(ctx, t.Name(), claims...); err != nil || from.Dir() == to.Dir() {
		return err
	}
	// They and the rename look whether something is left in the directory.
	return t.c.removals.wait(ctx, func(g *grave) bool { return g.branch == t.Name() && g.Path.Dir() == from.Dir() })
}

// seen is what is known of the names of a rename, so that the bucket is not
// asked.
func (t *tree) seen(from, to store.Path) store.Seen {
	var s store.Seen
	if in := t.named(from); in != nil {
		e := in.stat()
		s.From = &e
	} else if e, known, absent := t.c.meta.recall(t.Name(), from); known && !absent && !e.Partial {
		s.From = &e
	}
	if in := t.named(to); in != nil {
		e := in.stat()
		s.To = &e
	} else if e, err := t.c.meta.fresh(t.Name(), to); err == nil {
		s.To = &e
	} else {
		s.Absent = errors.Is(err, store.ErrNotExist)
	}
	e, known, absent := t.c.meta.recall(t.Name(), to.Dir())
	s.Parent = known && !absent && e.IsDir()
	return s
}

// prepare publishes what moves, but for what is local, and gives what is
// replaced to its handles. It returns the open files that move and those that
// they replace or swap with.
func (t *tree) prepare(ctx context.Context, from, to store.Path, mode store.RenameMode, local []*inode) (sources, targets []*inode, err error) {
	if err := t.refuse(ctx, from, to, mode); err != nil {
		return nil, nil, err
	}
	if err := t.publishBelow(ctx, from, local...); err != nil {
		return nil, nil, err
	}
	for _, in := range t.below(to) {
		if t.named(in.where()) != in {
			continue
		}
		targets = append(targets, in)
		switch {
		case mode == store.Exchange:
			err = in.publishClaimed(ctx, in.where())
		case in.recorded():
			// Else a crash after the rename would bring it back over what
			// has replaced it.
			if err = in.publishClaimed(ctx, in.where()); err == nil || errors.Is(err, store.ErrStale) {
				err = in.keep(ctx)
			}
		default:
			err = in.keep(ctx)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return t.belowBut(from, local), targets, nil
}

// refuse returns the error of a rename that must not be because of a file that
// the bucket does not have.
func (t *tree) refuse(ctx context.Context, from, to store.Path, mode store.RenameMode) error {
	_, file, err := t.unpublished(to)
	if err != nil {
		return err
	}
	full := !file && t.unpublishedBelow(to)
	if mode == store.Exchange || !file && !full {
		return nil
	}
	e, err := t.Lookup(ctx, from)
	switch {
	case err != nil:
		return err
	case mode == store.NoReplace:
		return fmt.Errorf("%s: %w", to, store.ErrExist)
	case full && e.IsDir():
		return fmt.Errorf("%s: %w", to, store.ErrNotEmpty)
	case full:
		return fmt.Errorf("%s: %w", to, store.ErrIsDir)
	case e.IsDir():
		return fmt.Errorf("%s: %w", to, store.ErrNotDir)
	}
	return nil
}

// publishBelow publishes what has its name at p or below it, which is claimed,
// but not some of it.
func (t *tree) publishBelow(ctx context.Context, p store.Path, but ...*inode) error {
	named := slices.DeleteFunc(t.belowBut(p, but), func(in *inode) bool {
		return t.named(in.where()) != in // somebody else's content has the name
	})
	return publishAll(ctx, named, func(in *inode, ctx context.Context) error { return in.publishClaimed(ctx, in.where()) })
}

func (t *tree) belowBut(p store.Path, but []*inode) []*inode {
	return slices.DeleteFunc(t.below(p), func(in *inode) bool { return slices.Contains(but, in) })
}

// move is an open file on its way to another path.
type move struct {
	in       *inode
	from, to store.Path
	named    bool // it is what has the name, not one that somebody else has replaced
	base     store.Entry
}

func (t *tree) moves(files []*inode, from, to store.Path) []move {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []move
	for _, in := range files {
		in.mu.Lock()
		all = append(all, move{in, in.path, in.path.Rebase(from, to), t.names[in.path] == in, in.base})
		in.mu.Unlock()
	}
	return all
}

// follow gives open files the names and versions that they have after a
// rename; e is that of the file that was renamed, as far as it is known. With
// doubt, only to those that have certainly moved.
func (t *tree) follow(ctx context.Context, moves []move, e store.Entry, doubt bool) {
	var moved []move
	for _, m := range moves {
		if !m.named {
			if !doubt {
				moved = append(moved, m)
			}
			continue
		}
		if doubt {
			if _, err := t.store.Head(ctx, m.from); !errors.Is(err, store.ErrNotExist) {
				continue
			}
		}
		// Where the object is not found, or is somebody else's already, the
		// old version stays: with it nothing of theirs can be read or
		// overwritten.
		var err error
		if e.Version == "" || len(moves) > 1 {
			e, err = t.store.Head(ctx, m.to)
		}
		if err == nil && sameFile(m.base, e) {
			t.c.meta.put(t.Name(), m.to, e)
			m.base = e
		} else if doubt {
			continue
		}
		moved = append(moved, m)
	}
	t.arrive(moved)
	for _, m := range moves {
		t.settle(m.in)
	}
}

// arrive makes the moves. All names go before the new ones come, as they may
// be each other's.
func (t *tree) arrive(moves []move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range moves {
		if m.named && t.names[m.from] == m.in {
			delete(t.names, m.from)
		}
	}
	for _, m := range moves {
		if m.named && !m.in.dead { // it may have been closed meanwhile
			t.names[m.to] = m.in
		}
		m.in.mu.Lock()
		m.in.path, m.in.base, m.in.entry.Version = m.to, m.base, m.base.Version
		m.in.moves++
		m.in.mu.Unlock()
	}
}

// sameFile says whether an object found after a rename is the one from before
// it: a copy may have another version, but it has the same size and time.
func sameFile(before, after store.Entry) bool {
	return before.Version == after.Version || before.Size == after.Size && before.Mtime.Equal(after.Mtime)
}
