package cache

import (
	"sync"
	"sync/atomic"
)

// block is the content of a block in memory. Who holds one may read it; when
// nobody does any more, the next block uses its memory.
type block struct {
	data    []byte
	sum     uint32 // 0 where it is not known yet
	holders atomic.Int32
	pool    *sync.Pool // of *[blockSize]byte; nil where the memory is somebody else's
}

// newBlock makes a block of n bytes of anything, which the caller holds. Go
// begins what is that large at a page, as writing past the kernel's cache wants
// it.
func newBlock(pool *sync.Pool, n int) *block {
	b := &block{}
	if n > blockSize/2 {
		b.pool = pool
		b.data = pool.Get().(*[blockSize]byte)[:n]
	} else {
		b.data = make([]byte, n)
	}
	b.holders.Store(1)
	return b
}

func (b *block) hold() *block {
	b.holders.Add(1)
	return b
}

func (b *block) release() {
	if b.holders.Add(-1) == 0 && b.pool != nil {
		b.pool.Put((*[blockSize]byte)(b.data[:blockSize]))
		b.data = nil
	}
}

// checksum is the one that the block has as the n-th of that chunk, never 0.
func (b *block) checksum(id chunkID, n int) uint32 {
	if b.sum == 0 {
		b.sum = checksum(id, n, b.data)
	}
	return b.sum
}
