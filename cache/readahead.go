package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/backend"
)

// reads is the reading of one handle.
type reads struct {
	fill *filling // of all handles of the file

	mu     sync.Mutex
	closed bool
	o      *object // that the rest is about
	seen   pattern
	stray  []*span // ahead of strided reads
}

// readAt fills p, which lies within the object.
func (r *reads) readAt(ctx context.Context, f *fetcher, o *object, p []byte, off int64) error {
	if r.note(ctx, f, o, off, int64(len(p))) {
		_, err := f.readAt(ctx, o, p, off, true)
		return err
	}
	return r.fill.readAt(ctx, f, o, p, off)
}

// note takes a read that is about to be done and fetches ahead of it. It says
// whether the read belongs to a stream, or is one of reads at equal distances.
func (r *reads) note(ctx context.Context, f *fetcher, o *object, off, n int64) bool {
	if f.ahead.max < 2*minPiece {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if r.o == nil || !r.o.same(o) {
		r.dropLocked(f)
		r.o = o
	}
	end := off + n
	stream, gone := r.seen.note(off, end)
	for _, t := range gone {
		f.dropTrack(t)
	}
	if stream != nil {
		f.follow(ctx, o, stream, off, end)
		return true
	}
	next := r.seen.strided(off, end, o.size)
	if len(next) == 0 {
		f.drop(r.stray)
		r.stray = nil
	}
	r.stray = append(running(r.stray), f.prefetch(ctx, o, next, off, end)...)
	return len(next) > 0
}

// close ends what was fetched ahead for the handle.
func (r *reads) close(f *fetcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.dropLocked(f)
}

func (r *reads) dropLocked(f *fetcher) {
	for _, t := range r.seen.tracks {
		f.dropTrack(t)
	}
	f.drop(r.stray)
	r.seen, r.stray = pattern{}, nil
}

func (f *fetcher) dropTrack(t *track) {
	f.ahead.leave(t)
	f.drop(t.spans)
	t.spans = nil
}

// follow fetches ahead of a stream. After an error the stream has to prove
// itself again.
func (f *fetcher) follow(ctx context.Context, o *object, t *track, off, end int64) {
	if f.failed(t.spans) {
		f.dropTrack(t)
		*t = track{start: off, end: end}
		return
	}
	t.spans = running(t.spans)
	window, streams := f.ahead.share(t)
	next := t.plan(off, end, o.size, budget{window, streams, f.speed.largest()})
	t.spans = append(t.spans, f.prefetch(ctx, o, next, off, end)...)
}

// prefetch begins to fetch what of the extents is not here. What the present
// read, of [off, end), waits for is not behind what others wait for.
func (f *fetcher) prefetch(ctx context.Context, o *object, next []extent, off, end int64) (begun []*span) {
	later := backend.WithPriority(ctx, backend.ReadAhead)
	for _, e := range next {
		c := later
		if e.off < end && off < e.end {
			c = ctx
		}
		last := (e.end + blockSize - 1) / blockSize
		for first := e.off / blockSize; first < last; {
			from, to := f.missing(o, first, last)
			if s := f.begin(c, o, from, to, true); s != nil {
				begun = append(begun, s)
			}
			first = to
		}
	}
	return begun
}

// running are those of the spans that have not ended.
func running(spans []*span) []*span {
	kept := spans[:0]
	for _, s := range spans {
		select {
		case <-s.ended:
		default:
			kept = append(kept, s)
		}
	}
	clear(spans[len(kept):])
	return kept
}

func bytesOf(spans []*span) (n int64) {
	for _, s := range spans {
		n += int64(len(s.ids)) * blockSize
	}
	return n
}

func (f *fetcher) failed(spans []*span) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range spans {
		if s.err != nil {
			return true
		}
	}
	return false
}

// shares divides the memory for reading ahead among the streams that read now.
type shares struct {
	max int64

	mu   sync.Mutex
	used map[*track]time.Time
}

// idle is after how long a stream leaves its share to the others.
const idle = 2 * time.Second

// share is how far ahead the stream may be, in bytes, and how many streams
// there are.
func (s *shares) share(t *track) (bytes, streams int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.used[t] = now
	n := int64(0)
	for other, used := range s.used {
		if other == t || now.Sub(used) < idle {
			n++
		}
	}
	return s.max / n, n
}

func (s *shares) leave(t *track) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, t)
}

// speed is how fast one connection to the store has lately been at best, which
// says how many it takes.
type speed struct {
	asking atomic.Int64 // requests under way

	mu   sync.Mutex
	best float64 // bytes per second; 0 is not known
	at   time.Time
}

const (
	speedSample = 1 << 20     // bytes of a request that counts, at least
	speedAlone  = 8           // and requests under way with it at most, which do not slow it down much
	speedLife   = time.Minute // of the best one
	slow        = 20e6        // bytes per second
)

// ask notes the begin of a request, and its result the end.
func (s *speed) ask(bytes int64) (answered func(error)) {
	alone := s.asking.Add(1) <= speedAlone
	begun := time.Now()
	return func(err error) {
		s.asking.Add(-1)
		if alone && bytes >= speedSample && err == nil {
			s.note(float64(bytes) / max(time.Since(begun), time.Microsecond).Seconds())
		}
	}
}

func (s *speed) note(rate float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); rate >= s.best || now.Sub(s.at) > speedLife {
		s.best, s.at = rate, now
	}
}

// largest is how many bytes to fetch by one request, at most: where a
// connection is slow there have to be many.
func (s *speed) largest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.best == 0:
		return maxPiece / 2
	case s.best < slow:
		return maxPiece / 4
	}
	return maxPiece
}
