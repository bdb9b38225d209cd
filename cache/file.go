package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/keifs/keifs/store"
)

// handle is one open descriptor of an inode.
type handle struct {
	in     *inode
	write  bool
	closed atomic.Bool
	reads  reads
}

var _ store.File = (*handle)(nil)

// check refuses what comes after the volume's or the handle's Close.
func (h *handle) check() error {
	if h.closed.Load() {
		return fmt.Errorf("handle: %w", store.ErrClosed)
	}
	return h.in.t.c.check()
}

func (h *handle) checkWrite() error {
	if !h.write {
		return fmt.Errorf("handle: %w", store.ErrReadOnly)
	}
	return h.check()
}

// Stat implements store.File.
func (h *handle) Stat(context.Context) (store.Entry, error) {
	if err := h.check(); err != nil {
		return store.Entry{}, err
	}
	return h.in.stat(), nil
}

// ReadAt implements store.File.
func (h *handle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.check(); err != nil {
		return 0, err
	}
	return h.in.readAt(ctx, &h.reads, p, off)
}

// WriteAt implements store.File.
func (h *handle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := h.checkWrite(); err != nil {
		return 0, err
	}
	return h.in.write(ctx, p, off)
}

// Punch implements store.File.
func (h *handle) Punch(ctx context.Context, off, n int64) error {
	if err := h.checkWrite(); err != nil {
		return err
	}
	return h.in.punch(ctx, off, n)
}

// Seek implements store.File.
func (h *handle) Seek(_ context.Context, off int64, hole bool) (int64, error) {
	if err := h.check(); err != nil {
		return 0, err
	}
	return h.in.seek(off, hole)
}

// SetAttr implements store.File.
func (h *handle) SetAttr(ctx context.Context, change store.AttrChange) (store.Entry, error) {
	err := h.check()
	if err == nil && change.Size != nil {
		err = h.checkWrite()
	}
	if err == nil {
		err = h.in.t.changeable()
	}
	if err != nil {
		return store.Entry{}, err
	}
	return h.in.setAttr(ctx, change)
}

// CopyFrom implements store.File. The copy is made when the file is
// published, together with the attributes that it has then.
func (h *handle) CopyFrom(ctx context.Context, src store.File, srcOff, off, n int64) (int64, error) {
	if err := h.checkWrite(); err != nil {
		return 0, err
	}
	from, ok := src.(*handle)
	if !ok || from.in.t.c != h.in.t.c || from.in == h.in {
		return 0, store.ErrUnsupported
	}
	if err := from.check(); err != nil {
		return 0, err
	}
	if srcOff >= from.in.stat().Size {
		return 0, nil
	}
	if srcOff != 0 || off != 0 {
		return 0, store.ErrUnsupported
	}
	// With the claim, the source does not change before the copy is noted,
	// and later changes of it see the note.
	path := from.in.where()
	release, err := from.in.t.gate.take(ctx, shared(path))
	if err != nil {
		return 0, err
	}
	defer release()
	object, ok := from.in.published(path)
	if ok && object.size <= openWhole && h.in.t.c.opts.WriteBack {
		// It came as a whole when it was opened. What is written anew can be
		// acknowledged by the journal; a reference to an object that somebody
		// else may remove cannot.
		return 0, store.ErrUnsupported
	}
	if !ok || object.size > n || !h.in.becomeCopy(object) {
		return 0, store.ErrUnsupported
	}
	return object.size, nil
}

// published is the object that has exactly the inode's content, which is not
// empty, at the path.
func (in *inode) published(path store.Path) (origin, bool) {
	in.t.mu.Lock()
	defer in.t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.entry
	ok := in.path == path && !in.content && !in.removed && in.stale == nil && e.Version != "" && e.Size > 0
	return origin{in.t.store, path, e.Version, e.Size}, ok
}

// becomeCopy gives an empty file the content of an object.
func (in *inode) becomeCopy(object origin) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.busy != nil || in.origin != nil || in.entry.Size != 0 || in.removed || in.stale != nil || in.record != 0 {
		return false
	}
	if in.file != nil {
		in.file.discard() // readers of an empty file do not touch it
		in.file = nil
	}
	in.setOriginLocked(&object)
	in.entry.Size = object.size
	in.changedLocked()
	return true
}

// Flush implements store.File: it publishes, or acknowledges. Who only reads
// has nothing to wait for.
func (h *handle) Flush(ctx context.Context) error {
	if err := h.check(); err != nil || !h.write {
		return err
	}
	if h.in.t.c.opts.WriteBack {
		if ok, err := h.in.acknowledge(ctx); ok || err != nil {
			return err
		}
	}
	return h.Sync(ctx)
}

// Sync implements store.File.
func (h *handle) Sync(ctx context.Context) error {
	if err := h.check(); err != nil {
		return err
	}
	in := h.in
	in.mu.Lock()
	in.fresh = false
	in.mu.Unlock()
	err := in.publish(ctx)
	if !h.write && errors.Is(err, store.ErrStale) {
		return nil
	}
	return err
}

// Close implements store.File.
func (h *handle) Close(ctx context.Context) error {
	if h.closed.Swap(true) {
		return fmt.Errorf("handle: %w", store.ErrClosed)
	}
	in := h.in
	h.reads.close(in.t.c.fetch)
	in.t.mu.Lock()
	in.handles--
	if h.write {
		in.writers--
	}
	last := in.handles == 0
	in.t.mu.Unlock()
	if !last {
		return nil
	}
	in.fill.close(in.t.c.fetch)
	if !in.dirty() {
		in.t.settle(in)
		return nil
	}
	if in.t.c.opts.WriteBack {
		if ok, err := in.acknowledge(ctx); ok || err != nil {
			in.t.settle(in)
			return err
		}
	}
	return in.publish(ctx)
}
