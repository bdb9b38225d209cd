package cache

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

// keepAtOnce is the size in bytes up to which content that was just published
// is kept before its staged file goes. Larger ones stay meanwhile.
const keepAtOnce = 1 << 20

// keepLocked sees to it that the content of a file which was published, and is
// about to be let go, is found here when it is read. False where the inode has
// to stay until that is done. Its tree's lock is held, too.
func (in *inode) keepLocked() (done bool) {
	c, e := in.t.c, in.entry
	if in.file == nil || in.kept == e.Version || in.removed || in.stale != nil || e.Size == 0 || !c.fetch.disk.keeps() {
		return true
	}
	in.kept = e.Version
	o, err := (origin{in.t.store, in.path, e.Version, e.Size}).object()
	if err != nil {
		return true
	}
	if e.Size <= keepAtOnce {
		data := make([]byte, e.Size)
		if n, _ := in.file.ReadAt(data, 0); in.wholeLocked() && n == len(data) {
			c.fetch.keep(o, data)
		}
		return true
	}
	if in.keeping {
		return false
	}
	in.keeping = c.start(func() { in.keepLarge(o) }) == nil
	return !in.keeping
}

// keepLarge gives the content to the cache, piece by piece, until the file is
// changed.
func (in *inode) keepLarge(o *object) {
	f := in.t.c.fetch
	for off := int64(0); off < o.size && in.t.c.ctx.Err() == nil; off += diskRead {
		if !in.keepPiece(f, o, store.Range{Off: off, Len: min(diskRead, o.size-off)}) {
			break
		}
	}
	in.mu.Lock()
	in.keeping = false
	in.mu.Unlock()
	in.t.settle(in)
}

// keepPiece says whether the file still is that object.
func (in *inode) keepPiece(f *fetcher, o *object, r store.Range) bool {
	var blocks []*block
	defer func() {
		for _, b := range blocks {
			b.release()
		}
	}()
	in.mu.Lock()
	same := !in.content && !in.removed && in.file != nil && in.entry.Version == o.version && in.entry.Size == o.size
	if !same || len(in.patch.missing(r)) > 0 {
		in.mu.Unlock()
		return same
	}
	// With the lock nobody writes meanwhile.
	for off := r.Off; off < r.End(); off += blockSize {
		b := newBlock(&f.buffers, int(min(blockSize, r.End()-off)))
		blocks = append(blocks, b)
		if n, _ := in.file.ReadAt(b.data, off); n < len(b.data) {
			in.mu.Unlock()
			return false
		}
	}
	in.mu.Unlock()
	first := r.Off / blockSize
	id := f.id(o, first)
	f.disk.keep(id.chunk, o.chunkLen(first), int(id.block), blocks, true)
	return true
}

// spill makes room on the local disk: it publishes a large file as far as it is
// written, as a sync does, and gives up what is staged of it. From then on that
// is read from the bucket, and what comes is a change. False where that gains
// nothing.
func (in *inode) spill(ctx context.Context) bool {
	in.mu.Lock()
	worth, size := in.spillableLocked(), in.entry.Size
	in.mu.Unlock()
	if !worth || !in.patchable(ctx, size) || in.publish(ctx) != nil {
		return false
	}
	// A record that was not ended for certain would be replayed after a crash,
	// with what is given up now as the content.
	if in.t.c.endedForCertain(ctx) != nil {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	size = in.entry.Size
	if in.busy != nil || in.dirtyLocked() || in.patch == nil || in.patch.limit != size || in.entry.Version == "" {
		return false
	}
	if unix.Fallocate(int(in.file.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size) != nil {
		return false
	}
	in.patch.have = extents{}
	in.moves++
	return true
}

// spillableLocked says whether enough is staged of the file.
func (in *inode) spillableLocked() bool {
	least := in.t.c.opts.patchFrom
	if in.file == nil || !in.dirtyLocked() || in.entry.Size < least {
		return false
	}
	staged := in.entry.Size
	for _, r := range in.patch.missing(store.Range{Len: staged}) {
		staged -= r.Len
	}
	return staged >= least
}
