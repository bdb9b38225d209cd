package cache

import (
	"context"
	"io"
)

// span is one GET under way. Its blocks may be read as they come in.
type span struct {
	o      *object
	first  int64 // block of the object
	ids    []blockID
	ahead  bool // read ahead: its error is nobody's
	cancel context.CancelFunc
	ended  chan struct{} // closed after everything, the disk included

	// Guarded by fetcher.mu.
	blocks  []*block // those that are here, each held until it is over and nobody waits
	over    bool     // after everything, the disk included
	waiters int
	dropped bool          // nobody wants it but the waiters
	err     error         // why no more blocks will come
	more    chan struct{} // closed at the next block or error; nil if nobody waits
}

// begin starts to fetch blocks from first on, at most up to end, as far as they
// are not here; nil where there is nothing to fetch. One that is not read
// ahead has the caller as a waiter; one that is lives until it is dropped.
func (f *fetcher) begin(ctx context.Context, o *object, first, end int64, ahead bool) *span {
	if from, to := f.missing(o, first, end); from == first {
		end = to
	} else {
		return nil
	}
	if first >= end {
		return nil
	}
	s := &span{o: o, first: first, ahead: ahead, dropped: !ahead, ended: make(chan struct{})}
	for block := first; block < end; block++ {
		s.ids = append(s.ids, f.id(o, block))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	for i, id := range s.ids { // somebody may have been faster
		_, hot := f.memory.peek(id)
		if hot || f.spans[id] != nil {
			s.ids = s.ids[:i]
			break
		}
	}
	if len(s.ids) == 0 {
		return nil
	}
	if !ahead {
		s.waiters++
	}
	for _, id := range s.ids {
		f.spans[id] = s
	}
	f.all[s] = struct{}{}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.work.Go(func() { f.run(ctx, s) })
	return s
}

// run fetches a span.
func (f *fetcher) run(ctx context.Context, s *span) {
	defer close(s.ended)
	defer s.cancel()
	off := s.first * blockSize
	n := min(int64(len(s.ids))*blockSize, s.o.size-off)
	answered := f.speed.ask(n)
	err := s.o.read(ctx, off, n, func(r io.Reader) error { return f.fill(s, r, n) })
	answered(err)
	f.mu.Lock()
	if s.err = err; err == nil && len(s.blocks) < len(s.ids) {
		s.err = io.ErrUnexpectedEOF
	}
	s.wakeLocked()
	f.forgetLocked(s, len(s.blocks), len(s.ids))
	f.mu.Unlock()

	// The disk's time is nobody's: neither a reader nor a request waits.
	if done, ok := f.spare(n); ok {
		f.save(s)
		done()
	}
	f.mu.Lock()
	f.forgetLocked(s, 0, len(s.blocks))
	delete(f.all, s)
	s.over = true
	s.freeLocked()
	f.mu.Unlock()
}

// spare says whether there is memory for n bytes that wait for the disk. What
// a slow disk cannot take is not kept, rather than to hold up the readers.
func (f *fetcher) spare(n int64) (done func(), ok bool) {
	if f.unsaved.Add(n) > f.backlog() {
		f.unsaved.Add(-n)
		return nil, false
	}
	return func() { f.unsaved.Add(-n) }, true
}

// backlog is how many bytes may wait for the disk.
func (f *fetcher) backlog() int64 { return max(f.ahead.max, maxPiece) }

// save writes what a span has brought to the disk.
func (f *fetcher) save(s *span) {
	// A disk that does not keep up gets the help of the kernel's cache.
	direct := f.unsaved.Load() <= f.backlog()/2
	for at := 0; at < len(s.blocks); {
		id := s.ids[at]
		end := min(len(s.blocks), at+chunkBlocks-int(id.block))
		f.disk.keep(id.chunk, s.o.chunkLen(s.first+int64(at)), int(id.block), s.blocks[at:end], direct)
		at = end
	}
}

// forgetLocked makes that nobody finds those blocks of the span by their IDs.
func (f *fetcher) forgetLocked(s *span, from, end int) {
	for _, id := range s.ids[from:end] {
		if f.spans[id] == s {
			delete(f.spans, id)
		}
	}
}

// fill takes the blocks from a body. A request that is repeated brings again
// what is here already.
func (f *fetcher) fill(s *span, r io.Reader, n int64) error {
	if here := int64(len(s.blocks)) * blockSize; here > 0 {
		if _, err := io.CopyN(io.Discard, r, min(here, n)); err != nil {
			return short(err)
		}
		n -= here
	}
	for n > 0 {
		b := newBlock(&f.buffers, int(min(blockSize, n)))
		if _, err := io.ReadFull(r, b.data); err != nil {
			b.release()
			return short(err)
		}
		n -= int64(len(b.data))
		id := s.ids[len(s.blocks)]
		if f.disk.keeps() { // now, while it is in the processor's cache
			b.checksum(id.chunk, int(id.block))
		}
		f.mu.Lock()
		f.rememberLocked(id, b)
		s.blocks = append(s.blocks, b)
		s.wakeLocked()
		f.mu.Unlock()
	}
	return nil
}

func (s *span) wakeLocked() {
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
}

// wait returns block i of the span as soon as it is here. The caller is one of
// its waiters, and may read it until it leaves.
func (f *fetcher) wait(ctx context.Context, s *span, i int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i >= len(s.blocks) && s.err == nil {
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		f.mu.Unlock()
		var err error
		select {
		case <-more:
		case <-ctx.Done():
			err = ctx.Err()
		}
		f.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	if i < len(s.blocks) {
		return s.blocks[i].data, nil
	}
	return nil, s.err
}

// leave is one waiter less for each.
func (f *fetcher) leave(spans ...*span) {
	if len(spans) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range spans {
		s.waiters--
		f.endLocked(s)
		s.freeLocked()
	}
}

// endLocked ends a request that nobody wants any more. Nobody can find it
// afterwards and be failed by it.
func (f *fetcher) endLocked(s *span) {
	if s.over || s.waiters > 0 || !s.dropped || len(s.blocks) == len(s.ids) || s.err != nil {
		return
	}
	s.err = context.Canceled
	f.forgetLocked(s, len(s.blocks), len(s.ids))
	s.cancel()
}

// freeLocked lets go of the blocks when they are not needed any more.
func (s *span) freeLocked() {
	if s.over && s.waiters == 0 {
		for _, b := range s.blocks {
			b.release()
		}
		s.blocks = nil
	}
}

// drop ends spans that were read ahead, but for who waits for them.
func (f *fetcher) drop(spans []*span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range spans {
		s.dropped = true
		f.endLocked(s)
	}
}
