package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keifs/keifs/backend"
)

// directFile is one file as this volume sees it, shared by all its handles.
//
// Clean, it is a version in the bucket (base), read from there range by range.
// The first write loads the whole content; from then on it is read from
// memory, and changed != saved says that the bucket does not have it yet.
// A file that another host replaced in the bucket lives on beside the new one,
// without its name, until its handles are closed.
//
// Fields are guarded by direct.mu. store, path, base and gone change only
// while the path is claimed too, so that who claims it may rely on them.
type directFile struct {
	v     *direct
	store *Store // of its branch
	path  Path
	base  Entry // what the bucket has; without Version it never was there
	attr  Attr  // as handles see it
	gone  bool  // removed or replaced in this volume: nothing is published any more

	loaded  bool
	content []byte
	frozen  bool // a publication reads content: copy before changing it

	changed   uint64 // counts changes of content and attributes
	saved     uint64 // value of changed that is in the bucket; dirty is loaded
	since     time.Time
	uploading bool
	tried     bool  // a publication failed, so that the bucket may have it or not
	err       error // of the last publication
	stale     error // the name was lost to somebody else, with this answer

	handles int
}

func (f *directFile) dirty() bool { return f.changed != f.saved && !f.gone }

func (f *directFile) fullLocked() string { return fullPath(f.store.CurrentBranch(), f.path) }

func (f *directFile) namedLocked() bool { return f.v.names[f.fullLocked()] == f }

// statLocked is the entry as handles see it.
func (f *directFile) statLocked() Entry {
	e := f.base
	e.Name, e.Attr, e.Partial = f.path.Name(), f.attr, false
	if f.loaded {
		e.Size = int64(len(f.content))
	}
	return e
}

// touchLocked notes a change of the content.
func (f *directFile) touchLocked() {
	now := time.Now()
	f.attr.Mtime, f.attr.Ctime = now, now
	f.attr.Atime = time.Time{}
	f.changedLocked()
}

// changedLocked notes any change.
func (f *directFile) changedLocked() {
	if !f.dirty() {
		f.since = time.Now()
	}
	f.changed++
}

// claim takes the file's path, following it through renames.
func (f *directFile) claim(ctx context.Context) (func(), error) {
	full := func() string {
		f.v.mu.Lock()
		defer f.v.mu.Unlock()
		return f.fullLocked()
	}
	for {
		path := full()
		release, err := f.v.locks.one(ctx, path)
		if err != nil || full() == path {
			return release, err
		}
		release()
	}
}

// read fills p, see File.ReadAt.
func (f *directFile) read(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.readOnce(ctx, p, off)
	if !errors.Is(err, ErrStale) {
		return n, err
	}
	// Perhaps it was this volume that just moved or changed the object. Look
	// again when nobody is at work on the path.
	release, err := f.claim(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	return f.readOnce(ctx, p, off)
}

func (f *directFile) readOnce(ctx context.Context, p []byte, off int64) (int, error) {
	f.v.mu.Lock()
	if err := f.v.checkLocked(); err != nil {
		f.v.mu.Unlock()
		return 0, err
	}
	size := f.statLocked().Size
	n := min(int64(len(p)), size-off)
	switch {
	case off < 0:
		f.v.mu.Unlock()
		return 0, fmt.Errorf("read at %d: %w", off, ErrInvalid)
	case len(p) == 0:
		f.v.mu.Unlock()
		return 0, nil
	case n <= 0:
		f.v.mu.Unlock()
		return 0, io.EOF
	case f.loaded:
		n := copy(p, f.content[off:])
		f.v.mu.Unlock()
		return n, nil
	case f.gone:
		f.v.mu.Unlock()
		return 0, fmt.Errorf("%s was removed: %w", f.path, ErrStale)
	}
	store, path, version := f.store, f.path, f.base.Version
	f.v.mu.Unlock()

	err := store.Read(ctx, path, version, off, n, func(r io.Reader) error {
		_, err := io.ReadFull(r, p[:n])
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

// loadClaimed brings the whole content into memory. The path is claimed.
func (f *directFile) loadClaimed(ctx context.Context) error {
	f.v.mu.Lock()
	loaded, size := f.loaded, f.base.Size
	f.v.mu.Unlock()
	if loaded {
		return nil
	}
	if size > f.v.maxFile {
		return fmt.Errorf("%s has %d bytes: %w", f.path, size, ErrTooBig)
	}
	content := make([]byte, size)
	if size > 0 {
		if _, err := f.readOnce(ctx, content, 0); err != nil {
			return err
		}
	}
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if !f.loaded {
		f.content, f.loaded = content, true
	}
	return nil
}

// change runs fn, which changes the loaded content, under the lock.
func (f *directFile) change(ctx context.Context, fn func() error) error {
	for {
		f.v.mu.Lock()
		err := f.v.checkLocked()
		if err == nil {
			err = f.stale
		}
		if err != nil || f.loaded {
			if err == nil {
				err = fn()
			}
			f.v.mu.Unlock()
			return err
		}
		f.v.mu.Unlock()

		release, err := f.claim(ctx)
		if err != nil {
			return err
		}
		err = f.loadClaimed(ctx)
		release()
		if err != nil {
			return err
		}
	}
}

// resizeLocked gives the content that size; what is added is zero. Afterwards
// the content may be changed in place.
func (f *directFile) resizeLocked(size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("size %d: %w", size, ErrInvalid)
	case size > f.v.maxFile:
		return fmt.Errorf("%s with %d bytes: %w", f.path, size, ErrTooBig)
	}
	have := int64(len(f.content))
	if f.frozen {
		f.content = append([]byte(nil), f.content[:min(have, size)]...)
		f.frozen = false
	}
	if size <= int64(len(f.content)) {
		f.content = f.content[:size]
	} else {
		f.content = append(f.content, make([]byte, size-int64(len(f.content)))...)
	}
	return nil
}

// truncateLocked drops the content, loaded or not.
func (f *directFile) truncateLocked() {
	f.content, f.loaded, f.frozen = nil, true, false
	f.touchLocked()
}

// publish puts what is not in the bucket there.
func (f *directFile) publish(ctx context.Context) error {
	release, err := f.claim(ctx)
	if err != nil {
		return err
	}
	defer release()
	return f.publishClaimed(ctx)
}

// publishClaimed publishes the content as it is now; writers go on meanwhile
// on a copy. Where it fails, the content stays and is tried again by the next
// call. A lost race is an answer, not a failure: the conflict policy has
// decided about the content, and the name belongs to somebody else.
func (f *directFile) publishClaimed(ctx context.Context) error {
	f.v.mu.Lock()
	if !f.dirty() {
		defer f.v.mu.Unlock()
		return f.stale
	}
	content, changed := f.content, f.changed
	opts := PublishOptions{Base: f.base.Version, Attr: f.attr}
	f.frozen, f.uploading = true, true
	f.v.mu.Unlock()

	e, err := f.store.Publish(ctx, f.path, backend.Bytes(content), opts)

	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	f.uploading, f.err = false, err
	defer f.dropLocked()
	if err == nil {
		f.adoptLocked(e, changed)
		return nil
	}
	f.tried = true
	if _, ok := errors.AsType[*ConflictError](err); ok {
		f.saved, f.stale = changed, err
		if f.namedLocked() {
			delete(f.v.names, f.fullLocked())
		}
	}
	return err
}

// adoptLocked takes e as what the bucket has now, with all changes up to
// changed in it.
func (f *directFile) adoptLocked(e Entry, changed uint64) {
	f.base, f.saved = e, changed
	if !f.dirty() {
		f.attr = e.Attr
	}
}

// unlinkLocked takes the name away, for good. The path is claimed.
func (f *directFile) unlinkLocked() {
	if f.namedLocked() {
		delete(f.v.names, f.fullLocked())
	}
	f.gone = true
	f.attr.Ctime = time.Now()
	f.dropLocked()
}

// dropLocked forgets a file that nobody has open and the bucket has.
func (f *directFile) dropLocked() {
	if f.handles > 0 || f.dirty() {
		return
	}
	if f.namedLocked() {
		delete(f.v.names, f.fullLocked())
	}
	delete(f.v.files, f)
}
