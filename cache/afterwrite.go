package cache

import (
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
	end := c.room.begin() // the staged file goes after that
	in.keeping = c.start(func() { in.keepLarge(o); end(true) }) == nil
	if !in.keeping {
		end(false)
	}
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
