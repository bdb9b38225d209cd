package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// publish puts what the bucket does not have there. Writers wait meanwhile.
func (in *inode) publish(ctx context.Context) error {
	if !in.dirty() {
		return in.lost()
	}
	ctx, cancel := in.t.c.bound(ctx)
	defer cancel()
	end := in.t.c.room.begin()
	err := in.publishNow(ctx)
	in.t.settle(in)
	end(err == nil)
	return err
}

func (in *inode) publishNow(ctx context.Context) error {
	path, release, err := in.claim(ctx)
	if err != nil {
		return err
	}
	defer release()
	return in.publishClaimed(ctx, path)
}

// publishClaimed publishes at the path, which is claimed. Where it fails, the
// content stays and is tried again. A lost race is an answer, not a failure:
// the conflict policy has decided, and the name is somebody else's.
func (in *inode) publishClaimed(ctx context.Context, path store.Path) error {
	t := in.t
	if !in.dirty() {
		return in.lost()
	}
	if err := t.c.settleCopies(ctx, t, exclusive(path)); err != nil {
		return err
	}
	if err := t.c.removals.settle(ctx, t.Name(), subtree(path)); err != nil {
		return err
	}
	in.recognise(ctx, path)
	in.mu.Lock()
	if err := in.idleLocked(ctx); err != nil || !in.dirtyLocked() {
		defer in.mu.Unlock()
		if err == nil {
			err = in.stale
		}
		return err
	}
	doneLocked := in.busyLocked()
	in.upload = true
	sent, send := in.entry, in.senderLocked(path)
	in.mu.Unlock()

	e, err := send(ctx)

	var conflict *store.ConflictError
	switch {
	case err == nil:
		t.c.meta.put(t.Name(), path, e) // before the overlay goes
	case errors.As(err, &conflict):
		err = t.lose(in, path, conflict, err)
	default:
		t.c.meta.forget(t.Name(), path, false)
	}

	in.mu.Lock()
	defer in.mu.Unlock()
	doneLocked()
	in.upload, in.fresh = false, false
	in.failed = err
	switch {
	case err == nil:
		in.entry, in.base = e, e
		in.publishedLocked()
		in.content, in.attrs, in.tried, in.unstreamed = false, false, nil, false
		in.fulfilledLocked()
		in.setOriginLocked(nil)
		in.moves++
	case conflict != nil:
		in.stale = err
		in.fulfilledLocked()
	default:
		in.tried = append(in.tried[max(0, len(in.tried)-maxTried+1):], sent)
	}
	return err
}

// maxTried is how many failed publications of one file are remembered.
const maxTried = 8

// recognise finds out whether a publication that failed has reached the bucket
// all the same, since only its answer was lost. What was written since is then
// based on that: it must not lose a race against its own beginning. Size and
// time of change tell, as nobody can set that time: it is this volume's to the
// nanosecond where the bucket keeps it, and otherwise never fits.
func (in *inode) recognise(ctx context.Context, path store.Path) {
	in.mu.Lock()
	tried, version := in.tried, in.entry.Version
	in.mu.Unlock()
	if len(tried) == 0 {
		return
	}
	e, err := in.t.store.Head(ctx, path)
	if err != nil || e.Version == version {
		return
	}
	ours := func(sent store.Entry) bool { return sent.Size == e.Size && sent.Ctime.Equal(e.Ctime) }
	if slices.ContainsFunc(tried, ours) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.entry.Version, in.base = e.Version, e
	}
}

// senderLocked is the request that publishes the inode as it is now.
func (in *inode) senderLocked(path store.Path) func(context.Context) (store.Entry, error) {
	s, e, from := in.t.store, in.entry, in.origin
	opts := store.PublishOptions{Base: e.Version, Attr: e.Attr}
	switch {
	case in.content && from != nil:
	case in.content:
		source := in.file.source(e.Size)
		if stream := in.stream; stream != nil {
			in.stream = nil // it ends here
			return func(ctx context.Context) (store.Entry, error) { return stream.finish(ctx, path, source, opts) }
		}
		if in.patch != nil {
			plan := *in.patch // nobody changes it until this is done, but complete
			plan.dirty.list = slices.Clone(plan.dirty.list)
			return func(ctx context.Context) (store.Entry, error) { return in.publishPatch(ctx, path, source, &plan, opts) }
		}
		return func(ctx context.Context) (store.Entry, error) { return s.Publish(ctx, path, source, opts) }
	case e.Size == 0:
		return func(ctx context.Context) (store.Entry, error) {
			return s.Publish(ctx, path, backend.Bytes(nil), opts)
		}
	default:
		return func(ctx context.Context) (store.Entry, error) { return in.publishAttrs(ctx, path, e, opts) }
	}
	return func(ctx context.Context) (store.Entry, error) {
		e, err := s.PublishCopy(ctx, from.store, from.path, from.version, from.size, path, opts)
		return e, asLost(path, err)
	}
}

// publishAttrs publishes attributes of a version, the content of which is in
// the bucket.
func (in *inode) publishAttrs(ctx context.Context, path store.Path, e store.Entry, opts store.PublishOptions) (store.Entry, error) {
	s := in.t.store
	now, err := s.PublishCopy(ctx, s, path, e.Version, e.Size, path, opts)
	if err = asLost(path, err); !errors.Is(err, store.ErrStale) {
		return now, err
	}
	in.mu.Lock()
	file, whole := in.file, in.wholeLocked()
	in.content = in.content || whole // not there any more
	in.mu.Unlock()
	if !whole {
		return now, err
	}
	return s.Publish(ctx, path, file.source(e.Size), opts)
}

// asLost is the error of a copy from a version that is gone: a lost race, in
// which there is no content to be kept.
func asLost(path store.Path, err error) error {
	if _, lost := errors.AsType[*store.ConflictError](err); lost || !errors.Is(err, store.ErrStale) {
		return err
	}
	return &store.ConflictError{Path: path}
}

// lose takes the name from an inode whose content lost a race. The handles
// keep it.
func (t *tree) lose(in *inode, path store.Path, conflict *store.ConflictError, err error) error {
	t.mu.Lock()
	if t.names[path] == in {
		delete(t.names, path)
	}
	t.mu.Unlock()
	t.c.meta.forget(t.Name(), path, false)
	kept := conflict.Kept.String()
	if conflict.Kept.IsRoot() {
		where, serr := t.c.salvage(in)
		if serr != nil {
			return errors.Join(err, serr)
		}
		if where == "" { // attributes only, or a copy of what is in the bucket anyway
			return err
		}
		kept = where
		err = fmt.Errorf("%w; this content is in %s", err, where)
	} else {
		t.c.meta.forget(t.Name(), conflict.Kept, false)
	}
	t.c.log.Warn("somebody else changed the file; both are kept", "branch", t.Name(), "theirs", path.String(), "ours", kept)
	return err
}

// keep stages the content of an inode that is about to lose its name, if
// somebody has it open. The path is claimed. Where the version is gone
// already, or the disk has no room for it, the handles get store.ErrStale: a
// name must go on a full disk, too.
func (in *inode) keep(ctx context.Context) error {
	in.t.mu.Lock()
	handles := in.handles
	in.t.mu.Unlock()
	if handles == 0 {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	err := in.idleLocked(ctx)
	if err == nil && in.origin == nil {
		err = in.stageAllLocked(ctx)
	}
	if errors.Is(err, store.ErrCacheFull) {
		in.t.c.log.Warn("no room on the disk for a file that is open and loses its name: who has it open loses it", "branch", in.t.Name(), "size", in.entry.Size)
		return nil
	}
	if errors.Is(err, store.ErrStale) {
		return nil
	}
	return err
}

// settleCopies stages the files whose content is only a reference to an
// object that is about to change. The objects are claimed in t.
func (c *Cache) settleCopies(ctx context.Context, t *tree, changed ...claim) error {
	c.copyMu.Lock()
	var all []*inode
	for in := range c.copies {
		all = append(all, in)
	}
	c.copyMu.Unlock()
	for _, in := range all {
		if err := in.settleCopy(ctx, t, changed); err != nil {
			return err
		}
	}
	return nil
}

func (in *inode) settleCopy(ctx context.Context, t *tree, changed []claim) error {
	refers := func() bool {
		from := in.origin
		return from != nil && from.store.CurrentBranch() == t.Name() &&
			slices.ContainsFunc(changed, func(cl claim) bool { return cl.covers(from.path) })
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !refers() { // nor will it while the objects are claimed
		return nil
	}
	if err := in.idleLocked(ctx); err != nil || !refers() {
		return err
	}
	if err := in.stageLocked(ctx, in.entry.Size, true); err != nil && !errors.Is(err, store.ErrStale) {
		return err
	}
	return nil
}
