package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// inode is one file as this volume sees it, shared by its open handles. It
// lives as long as it has handles or content that is not in the bucket.
//
// Its content is one of three: that of a version in the bucket (clean, read
// by chunks), that of another object that it is a copy of (origin), or staged
// on the local disk, as a whole or in part (patch). A write stages first. A file that another
// host has replaced meanwhile is a new inode; the old one keeps its handles
// and loses the name.
type inode struct {
	t    *tree
	fill filling // for reads at random

	// Guarded by t.mu; the path changes only while it is claimed, too.
	path    store.Path
	handles int
	writers int    // handles that may write
	asked   uint64 // ticket of the latest question to the bucket that found this version
	dead    bool   // gone from the tree

	// mu is taken after t.mu. It is held for local work, never across requests.
	mu         sync.Mutex
	entry      store.Entry   // Version is the one that the content is based on
	base       store.Entry   // what the bucket had, when it was last seen to have the inode
	file       *stagedFile   // the content, if it is staged
	patch      *patch        // which part of it is; nil: all
	filled     int64         // up to where it was written without a gap
	kept       string        // version whose content the cache was given
	keeping    bool          // and is being given
	stream     *stream       // by which it goes into the bucket while it is written
	origin     *origin       // the object that has the content, if it is a copy
	busy       chan struct{} // closed when the content, now being staged or published, may be changed again
	upload     bool          // it is busy being published
	content    bool          // the bucket does not have this content
	attrs      bool          // the bucket does not have these attributes
	fresh      bool          // created empty in the bucket, and since then never flushed: more will follow
	removed    bool          // by this volume: never published again
	moves      uint64        // counts changes of where the content is
	unstreamed bool          // it is not streamed, until it is in the bucket
	tried      []store.Entry // publications that failed, so that the bucket may have one of them
	since      time.Time     // of the oldest unpublished change
	changed    time.Time     // of the latest one
	failed     error         // of the last publication
	stale      error         // the name was lost to somebody else, with this answer

	// What the journal has promised; see acknowledge.
	record   journal.ID // 0 is nothing
	recordAt store.Path // under which name the record has it
	recordOf string     // and on which version
	promised bool       // the file as it is
	reserved int64      // bytes in Cache.promised
}

// origin is a version of an object.
type origin struct {
	store   *store.Store
	path    store.Path
	version string
	size    int64
}

// dirtyLocked says whether there is something to publish.
func (in *inode) dirtyLocked() bool {
	return (in.content || in.attrs) && !in.removed && in.stale == nil
}

func (in *inode) dirty() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.dirtyLocked()
}

// lost is the answer with which the name was lost to somebody else.
func (in *inode) lost() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stale
}

// stat is the entry as the handles see it.
func (in *inode) stat() store.Entry {
	path := in.where()
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.statLocked(path)
}

func (in *inode) statLocked(path store.Path) store.Entry {
	e := in.entry
	e.Name, e.Partial, e.State = path.Name(), false, in.stateLocked()
	return e
}

// stateLocked is store.Entry.State.
func (in *inode) stateLocked() string {
	switch {
	case !in.dirtyLocked():
		return ""
	case in.upload:
		return "uploading"
	case in.failed != nil:
		return "failed"
	}
	return "dirty"
}

// where is the path it is published at.
func (in *inode) where() store.Path {
	in.t.mu.Lock()
	defer in.t.mu.Unlock()
	return in.path
}

// claim takes the inode's path for a change, following it through renames.
func (in *inode) claim(ctx context.Context) (path store.Path, release func(), err error) {
	for {
		path = in.where()
		release, err = in.t.gate.take(ctx, exclusive(path))
		if err != nil || in.where() == path {
			return path, release, err
		}
		release()
	}
}

// place is where the content is read from.
func (in *inode) place() (file *stagedFile, from origin) {
	in.t.mu.Lock()
	defer in.t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.file != nil:
		return in.file, origin{size: in.entry.Size}
	case in.origin != nil:
		return nil, *in.origin
	}
	return nil, origin{in.t.store, in.path, in.entry.Version, in.entry.Size}
}

// again runs fn, which reads from the bucket, and once more where the version
// was gone only because this volume was just moving or changing the object.
func (in *inode) again(ctx context.Context, fn func() error) error {
	moves := func() uint64 {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.moves
	}
	for {
		before := moves()
		err := fn()
		if !errors.Is(err, store.ErrStale) || in.lost() != nil {
			return err
		}
		_, release, cerr := in.claim(ctx) // when nobody is at work on the path
		if cerr != nil {
			return cerr
		}
		release()
		if moves() == before {
			return err
		}
	}
}

// readAt is File.ReadAt.
func (in *inode) readAt(ctx context.Context, r *reads, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, store.ErrInvalid)
	}
	err = in.again(ctx, func() error {
		file, from := in.place()
		want := p[:max(0, min(int64(len(p)), from.size-off))]
		switch {
		case len(p) == 0:
			n = 0
			return nil
		case len(want) == 0:
			n = 0
			return io.EOF
		case file != nil:
			n, err = in.readStaged(ctx, file, r, want, off)
			return err
		}
		n, err = in.t.c.readObject(ctx, from, r, want, off)
		return err
	})
	return n, err
}

// idleLocked waits until the content may be changed. The lock is not held
// while it waits.
func (in *inode) idleLocked(ctx context.Context) error {
	for in.busy != nil {
		busy := in.busy
		in.mu.Unlock()
		var err error
		select {
		case <-busy:
		case <-ctx.Done():
			err = ctx.Err()
		}
		in.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// busyLocked keeps writers out until the result is called, with the lock held.
func (in *inode) busyLocked() (doneLocked func()) {
	busy := make(chan struct{})
	in.busy = busy
	return func() {
		in.busy = nil
		close(busy)
	}
}

// lockStaged locks the inode with its content staged, as far as the first
// keep bytes, and free to be changed.
func (in *inode) lockStaged(ctx context.Context, keep int64) error {
	return in.again(ctx, func() error { return in.lockStagedOnce(ctx, keep) })
}

func (in *inode) lockStagedOnce(ctx context.Context, keep int64) error {
	in.mu.Lock()
	err := in.idleLocked(ctx)
	if err == nil {
		err = in.t.c.check()
	}
	if err == nil {
		err = in.stale
	}
	if err == nil && in.file == nil {
		err = in.stageLocked(ctx, keep, false)
	}
	if err != nil {
		in.mu.Unlock()
	}
	return err
}

// stageLocked stages the first keep bytes of the content; of a large one
// nothing yet, unless all of it is needed. The lock is not held meanwhile;
// afterwards the content is staged and may be changed.
func (in *inode) stageLocked(ctx context.Context, keep int64, all bool) error {
	doneLocked := in.busyLocked()
	size, copied := in.entry.Size, in.origin != nil
	in.mu.Unlock()
	_, from := in.place()
	file, err := in.t.c.stage.create()
	var part *patch
	if err == nil {
		if keep = min(keep, size); !all && !copied && in.patchable(ctx, keep) {
			part = &patch{limit: size}
		} else {
			err = in.t.c.download(ctx, from, file, store.Range{Len: keep})
		}
		if err == nil {
			err = file.truncate(size)
		}
		if err != nil {
			file.discard()
		}
	}
	in.mu.Lock()
	doneLocked()
	if err != nil {
		return err
	}
	in.file, in.patch, in.filled = file, part, size
	in.setOriginLocked(nil)
	in.moves++
	return nil
}

// stageAllLocked stages all of the content. Where the disk has no room for it,
// what was staged before stays so, and nothing else.
func (in *inode) stageAllLocked(ctx context.Context) error {
	if in.file == nil {
		return in.stageLocked(ctx, in.entry.Size, true)
	}
	if in.wholeLocked() {
		return nil
	}
	doneLocked := in.busyLocked()
	size, have := in.entry.Size, extents{slices.Clone(in.patch.have.list)}
	in.mu.Unlock()
	err := in.complete(ctx, store.Range{Len: size})
	in.mu.Lock()
	doneLocked()
	if errors.Is(err, store.ErrCacheFull) {
		in.patch.have = have
		in.moves++
		for _, r := range in.patch.missing(store.Range{Len: size}) {
			err = errors.Join(err, in.file.punch(r.Off, r.Len))
		}
	}
	return err
}

// setOriginLocked keeps the cache's list of references to objects.
func (in *inode) setOriginLocked(from *origin) {
	in.origin = from
	c := in.t.c
	c.copyMu.Lock()
	defer c.copyMu.Unlock()
	if from == nil {
		delete(c.copies, in)
	} else {
		c.copies[in] = struct{}{}
	}
}

// changedLocked notes a change of the content.
func (in *inode) changedLocked() {
	now := time.Now()
	if in.stream == nil || in.stream.touched {
		in.entry.Mtime, in.entry.Ctime, in.entry.Atime = now, now, time.Time{}
	}
	in.unsavedLocked(now)
	in.content = true
}

func (in *inode) unsavedLocked(now time.Time) {
	if !in.content && !in.attrs {
		in.since = now
	}
	in.changed, in.promised = now, false
}

// write is File.WriteAt.
func (in *inode) write(ctx context.Context, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	done := 0
	err := in.t.c.withRoom(ctx, in, func() (n int, err error) {
		n, off, err = in.writeOnce(ctx, p[done:], off)
		done += n
		return n, err
	})
	return done, err
}

// writeOnce writes as much as the disk takes, and returns where it ended.
func (in *inode) writeOnce(ctx context.Context, p []byte, off int64) (n int, end int64, err error) {
	if err := in.lockRange(ctx, off, int64(len(p))); err != nil {
		return 0, off, err
	}
	defer in.mu.Unlock()
	if off < 0 {
		off = in.entry.Size
	}
	n, err = in.file.WriteAt(p, off)
	end = off + int64(n)
	if n > 0 {
		in.entry.Size = max(in.entry.Size, end)
		in.wroteLocked(off, int64(n), p[:n])
		in.streamLocked()
	}
	return n, end, err
}

// lockRange is lockStaged for a change of a range, which begins at the end
// where off is negative.
func (in *inode) lockRange(ctx context.Context, off, n int64) error {
	for {
		if err := in.lockStaged(ctx, math.MaxInt64); err != nil {
			return err
		}
		r := store.Range{Off: off, Len: n}
		if off < 0 {
			r.Off = in.entry.Size
		}
		sending := in.stream.sendingLocked(r)
		if sending == nil {
			return nil
		}
		in.mu.Unlock()
		select {
		case <-sending:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wroteLocked notes a change of a range, by p unless that is nil.
func (in *inode) wroteLocked(off, n int64, p []byte) {
	if off <= in.filled {
		in.filled = max(in.filled, off+n)
	}
	in.patch.wrote(off, n)
	in.stream.wroteLocked(store.Range{Off: off, Len: n}, p)
	in.changedLocked()
}

// truncate cuts or extends the file.
func (in *inode) truncate(ctx context.Context, size int64) error {
	if size < 0 {
		return fmt.Errorf("size %d: %w", size, store.ErrInvalid)
	}
	return in.t.c.withRoom(ctx, in, func() (int, error) { return 0, in.truncateOnce(ctx, size) })
}

func (in *inode) truncateOnce(ctx context.Context, size int64) error {
	if err := in.lockStaged(ctx, size); err != nil {
		return err
	}
	defer in.mu.Unlock()
	if err := in.file.truncate(size); err != nil {
		return err
	}
	in.entry.Size = size
	in.patch.cut(size)
	in.changedLocked()
	in.cutLocked(size)
	return nil
}

// punch is File.Punch.
func (in *inode) punch(ctx context.Context, off, n int64) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("punch %d+%d: %w", off, n, store.ErrInvalid)
	}
	if err := in.lockRange(ctx, off, n); err != nil {
		return err
	}
	defer in.mu.Unlock()
	if n = min(n, in.entry.Size-off); n <= 0 {
		return nil
	}
	in.wroteLocked(off, n, nil)
	return in.file.punch(off, n)
}

// seek is File.Seek.
func (in *inode) seek(off int64, hole bool) (int64, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	size := in.entry.Size
	switch {
	case off < 0 || off >= size:
		return 0, fmt.Errorf("seek from %d: %w", off, store.ErrNoData)
	case in.file != nil && in.wholeLocked():
		return in.file.seek(off, hole)
	case hole:
		return size, nil
	}
	return off, nil
}
