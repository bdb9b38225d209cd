package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// directHandle is one open descriptor of a directFile.
type directHandle struct {
	f     *directFile
	write bool
}

func (f *directFile) handleLocked(write bool) *directHandle {
	f.handles++
	return &directHandle{f: f, write: write}
}

// Stat implements File.
func (h *directHandle) Stat(context.Context) (Entry, error) {
	h.f.v.mu.Lock()
	defer h.f.v.mu.Unlock()
	if err := h.f.v.checkLocked(); err != nil {
		return Entry{}, err
	}
	return h.f.statLocked(), nil
}

// ReadAt implements File.
func (h *directHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return h.f.read(ctx, p, off)
}

// change is directFile.change for a handle that may write.
func (h *directHandle) change(ctx context.Context, fn func() error) error {
	if !h.write {
		return fmt.Errorf("handle: %w", ErrReadOnly)
	}
	return h.f.change(ctx, fn)
}

// WriteAt implements File.
func (h *directHandle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	f := h.f
	err := h.change(ctx, func() error {
		size := int64(len(f.content))
		if off < 0 {
			off = size
		}
		if len(p) == 0 {
			return nil
		}
		if off > f.v.maxFile {
			return fmt.Errorf("%s at %d: %w", f.path, off, ErrTooBig)
		}
		if err := f.resizeLocked(max(size, off+int64(len(p)))); err != nil {
			return err
		}
		copy(f.content[off:], p)
		f.touchLocked()
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Punch implements File.
func (h *directHandle) Punch(ctx context.Context, off, n int64) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("punch %d+%d: %w", off, n, ErrInvalid)
	}
	f := h.f
	return h.change(ctx, func() error {
		size := int64(len(f.content))
		if off >= size || n == 0 {
			return nil
		}
		if err := f.resizeLocked(size); err != nil {
			return err
		}
		clear(f.content[off : off+min(n, size-off)])
		f.touchLocked()
		return nil
	})
}

// Seek implements File: all is data up to the end, where the one hole begins.
func (h *directHandle) Seek(ctx context.Context, off int64, hole bool) (int64, error) {
	e, err := h.Stat(ctx)
	switch {
	case err != nil:
		return 0, err
	case off < 0 || off >= e.Size:
		return 0, fmt.Errorf("seek from %d: %w", off, ErrNoData)
	case hole:
		return e.Size, nil
	}
	return off, nil
}

// CopyFrom implements File: a whole, clean file onto an empty one.
func (h *directHandle) CopyFrom(ctx context.Context, src File, srcOff, off, n int64) (int64, error) {
	from, ok := src.(*directHandle)
	f := h.f
	switch {
	case !h.write:
		return 0, fmt.Errorf("handle: %w", ErrReadOnly)
	case !ok || from.f.v != f.v || from.f == f || srcOff != 0 || off != 0:
		return 0, ErrUnsupported
	}
	release, err := f.claim(ctx)
	if err != nil {
		return 0, err
	}
	defer release()

	f.v.mu.Lock()
	source, size := from.f.base, from.f.base.Size
	sourceStore, sourcePath := from.f.store, from.f.path
	clean := !from.f.dirty() && !from.f.gone && source.Version != "" && size > 0 && size <= n
	empty := f.statLocked().Size == 0 && !f.gone && f.stale == nil
	changed, opts := f.changed, PublishOptions{Base: f.base.Version, Attr: f.attr}
	f.v.mu.Unlock()
	if !clean || !empty {
		return 0, ErrUnsupported
	}
	now := time.Now()
	opts.Attr.Mtime, opts.Attr.Ctime, opts.Attr.Atime = now, now, time.Time{}
	e, err := f.store.PublishCopy(ctx, sourceStore, sourcePath, source.Version, size, f.path, opts)
	if err != nil {
		return 0, err
	}

	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	written := f.changed != changed // meanwhile, into the empty file
	f.adoptLocked(e, changed)
	if written {
		return 0, ErrUnsupported
	}
	f.content, f.loaded = nil, false
	return size, nil
}

// SetAttr implements File.
func (h *directHandle) SetAttr(ctx context.Context, change AttrChange) (Entry, error) {
	f := h.f
	if f.store.ReadOnly() || change.Size != nil && !h.write {
		return Entry{}, fmt.Errorf("handle: %w", ErrReadOnly)
	}
	release, err := f.claim(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer release()
	return f.setAttrClaimed(ctx, change)
}

// setAttrClaimed changes a clean file in the bucket, and any other, or the
// size, in memory.
func (f *directFile) setAttrClaimed(ctx context.Context, change AttrChange) (Entry, error) {
	if change.Size != nil && *change.Size != 0 {
		if err := f.loadClaimed(ctx); err != nil {
			return Entry{}, err
		}
	}
	f.v.mu.Lock()
	err := f.v.checkLocked()
	if err == nil {
		err = f.stale
	}
	if err != nil || change.Size != nil || f.gone || f.dirty() {
		defer f.v.mu.Unlock()
		if err != nil {
			return Entry{}, err
		}
		return f.holdAttrLocked(change)
	}
	change.Base = f.base.Version
	f.v.mu.Unlock()

	e, err := f.store.SetAttr(ctx, f.path, change)
	if err != nil {
		return Entry{}, err
	}
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	mtime, ctime, written := f.attr.Mtime, f.attr.Ctime, f.dirty()
	f.base, f.attr = e, e.Attr
	if written { // meanwhile
		f.attr.Mtime, f.attr.Ctime = mtime, ctime
	}
	return f.statLocked(), nil
}

// holdAttrLocked makes a change that the next publication takes along.
func (f *directFile) holdAttrLocked(change AttrChange) (Entry, error) {
	attr, err := change.Apply(f.attr)
	if err == nil && !f.gone {
		err = f.store.CheckAttr(attr)
	}
	if err != nil {
		return Entry{}, err
	}
	if change.Size != nil {
		if *change.Size == 0 {
			f.truncateLocked()
		} else if err := f.resizeLocked(*change.Size); err != nil {
			return Entry{}, err
		}
		if change.Mtime == nil {
			attr.Mtime, attr.Ctime = time.Now(), time.Now()
		}
	}
	f.attr = attr
	f.changedLocked()
	return f.statLocked(), nil
}

// Flush implements File. Whoever wrote to a file whose name was lost to
// somebody else is told so at each close.
func (h *directHandle) Flush(ctx context.Context) error {
	if err := h.f.v.check(); err != nil {
		return err
	}
	err := h.f.publish(ctx)
	if !h.write && errors.Is(err, ErrStale) {
		return nil
	}
	return err
}

// Sync implements File.
func (h *directHandle) Sync(ctx context.Context) error { return h.Flush(ctx) }

// Close implements File.
func (h *directHandle) Close(ctx context.Context) error {
	f := h.f
	f.v.mu.Lock()
	f.handles--
	f.dropLocked()
	publish := f.handles == 0 && f.dirty() && !f.v.closed
	f.v.mu.Unlock()
	if !publish {
		return nil
	}
	return f.publish(ctx)
}

// keepClaimed loads the content of a file that is about to lose its name, so
// that its handles keep it. Where that cannot be, since it is too big or
// changed already, they get ErrStale.
func (f *directFile) keepClaimed(ctx context.Context) error {
	f.v.mu.Lock()
	handles := f.handles
	f.v.mu.Unlock()
	if handles == 0 {
		return nil
	}
	err := f.loadClaimed(ctx)
	if errors.Is(err, ErrStale) || errors.Is(err, ErrTooBig) {
		return nil
	}
	return err
}
