package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/store"
)

// blockID is a block of a chunk.
type blockID struct {
	chunk chunkID
	block uint8
}

// fetcher reads objects: from memory, which has what was fetched last, from
// disk, or from the bucket.
type fetcher struct {
	disk  *chunks
	ahead shares
	speed speed
	work  sync.WaitGroup // of spans and fillings

	buffers sync.Pool // of *[blockSize]byte

	hits, misses, collapsed atomic.Int64 // blocks
	unsaved                 atomic.Int64 // bytes that wait for the disk

	mu     sync.Mutex
	closed bool
	memory *weighted[blockID, *block] // each held
	spans  map[blockID]*span          // under way, by what they bring
	all    map[*span]struct{}
}

func newFetcher(disk *chunks, memory int64) *fetcher {
	half := max(memory, 0) / 2
	return &fetcher{
		disk: disk, ahead: shares{max: half, used: map[*track]time.Time{}},
		buffers: sync.Pool{New: func() any { return new([blockSize]byte) }},
		memory:  newWeighted(half, func(_ blockID, b *block) { b.release() }),
		spans:   map[blockID]*span{}, all: map[*span]struct{}{},
	}
}

// id names a block of the object.
func (f *fetcher) id(o *object, block int64) blockID {
	return blockID{f.disk.id(o.key, o.version, block/chunkBlocks), uint8(block % chunkBlocks)}
}

// chunkLen is the size of the chunk that the block is in.
func (o *object) chunkLen(block int64) int {
	return int(min(chunkSize, o.size-block/chunkBlocks*chunkSize))
}

// readAt fills p, which lies within the object. What is not here is fetched,
// each run of blocks at once; it says how many. passing: who reads will not come
// back soon, so that memory is for what comes next.
func (f *fetcher) readAt(ctx context.Context, o *object, p []byte, off int64, passing bool) (fetched int, err error) {
	passing = passing && f.disk.keeps()
	var mine []*span
	defer func() { f.leave(mine...) }()
	for n := 0; n < len(p); {
		k, err := f.readHere(ctx, o, p[n:], off+int64(n), passing)
		if err != nil {
			return len(mine), err
		}
		if n += k; k > 0 {
			continue
		}
		first, end := blocksAt(off+int64(n), len(p)-n)
		if s := f.begin(ctx, o, first, end, false); s != nil {
			mine = append(mine, s)
			f.misses.Add(int64(len(s.ids)))
		} else if err := f.check(); err != nil {
			return len(mine), err
		}
	}
	return len(mine), nil
}

// readHere fills the begin of p from one place that has it or will have it; 0
// where there is none.
func (f *fetcher) readHere(ctx context.Context, o *object, p []byte, off int64, passing bool) (int, error) {
	block, within := off/blockSize, int(off%blockSize)
	id := f.id(o, block)
	f.mu.Lock()
	if data, ok := f.memory.peek(id); ok {
		data.hold()
		f.mu.Unlock()
		defer data.release()
		f.hits.Add(1)
		n := copy(p, data.data[within:])
		if passing && within+n == len(data.data) {
			f.passed(id)
		}
		return n, nil
	}
	if s := f.spans[id]; s != nil {
		s.waiters++
		f.mu.Unlock()
		f.collapsed.Add(1)
		defer f.leave(s)
		data, err := f.wait(ctx, s, int(block-s.first))
		if err != nil && ctx.Err() == nil && (s.ahead || errors.Is(err, context.Canceled)) {
			return 0, nil // that was not about this reader
		}
		n := copy(p, data[min(within, len(data)):])
		if passing && within+n == len(data) {
			f.passed(id)
		}
		return n, err
	}
	f.mu.Unlock()

	size, b := o.chunkLen(block), int(id.block)
	there := f.disk.present(id.chunk, size)
	end := b
	for end < blocksOf(size) && there&run(end, end+1) != 0 {
		end++
	}
	if end == b {
		return 0, nil
	}
	start := b*blockSize + within
	part := p[:min(len(p), end*blockSize-start, size-start, diskRead)]
	if !f.disk.read(id.chunk, size, part, start) {
		return 0, nil // it is not there any more
	}
	f.hits.Add(int64(blocksOf(within + len(part))))
	return len(part), nil
}

// blocksAt are the blocks [first, end) of a range.
func blocksAt(off int64, n int) (first, end int64) {
	return off / blockSize, (off + int64(n) + blockSize - 1) / blockSize
}

// check returns store.ErrClosed after close.
func (f *fetcher) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return store.ErrClosed
	}
	return nil
}

// missing is the first block of [block, end) that is neither here nor under
// way, and the end of the run of such blocks.
func (f *fetcher) missing(o *object, block, end int64) (from, to int64) {
	for block < end && f.has(o, block) {
		block++
	}
	for to = block; to < end && !f.has(o, to); {
		to++
	}
	return block, to
}

// has says whether a block is here or under way.
func (f *fetcher) has(o *object, block int64) bool {
	id := f.id(o, block)
	f.mu.Lock()
	_, hot := f.memory.peek(id)
	hot = hot || f.spans[id] != nil
	f.mu.Unlock()
	b := int(id.block)
	return hot || f.disk.present(id.chunk, o.chunkLen(block))&run(b, b+1) != 0
}

// rememberLocked keeps a block in memory, which has room for some.
func (f *fetcher) rememberLocked(id blockID, b *block) {
	cost := int64(len(b.data))
	if _, there := f.memory.peek(id); !there && f.memory.max >= cost {
		f.memory.add(id, b.hold(), cost)
	}
}

// passed lets go of a block that was read to its end: the disk has it, or is
// about to.
func (f *fetcher) passed(id blockID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, there := f.memory.peek(id); there {
		f.memory.remove(id)
		b.release()
	}
}

// start runs fn on a goroutine that close waits for.
func (f *fetcher) start(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.work.Go(fn)
	}
}

// close ends what is under way, and waits for it.
func (f *fetcher) close() {
	f.mu.Lock()
	f.closed = true
	for s := range f.all {
		s.cancel()
	}
	f.mu.Unlock()
	f.work.Wait()
}

// holds says whether all of the object is here or on its way.
func (f *fetcher) holds(o *object) bool {
	end := (o.size + blockSize - 1) / blockSize
	from, _ := f.missing(o, 0, end)
	return from == end
}

// keep takes the whole content of a small object, and keeps it.
func (f *fetcher) keep(o *object, data []byte) {
	var blocks []*block
	f.mu.Lock()
	for rest := data; len(rest) > 0; {
		b := &block{data: rest[:min(blockSize, len(rest))]}
		rest = rest[len(b.data):]
		f.rememberLocked(f.id(o, int64(len(blocks))), b)
		blocks = append(blocks, b)
	}
	f.mu.Unlock()
	if done, ok := f.spare(o.size); ok {
		f.start(func() {
			defer done()
			f.disk.keep(f.id(o, 0).chunk, len(data), 0, blocks, false)
		})
	}
}

// cached fills p, of at most diskRead bytes, from an offset that is a multiple
// of that, if all of it is here.
func (f *fetcher) cached(o *object, p []byte, off int64) bool {
	block := off / blockSize
	size, id := o.chunkLen(block), f.id(o, block)
	first := int(id.block)
	if all := run(first, first+blocksOf(len(p))); f.disk.present(id.chunk, size)&all == all {
		return f.disk.read(id.chunk, size, p, first*blockSize)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; len(p) > 0; id.block++ {
		data, ok := f.memory.get(id)
		if !ok {
			return false
		}
		p = p[copy(p, data.data):]
	}
	return true
}
