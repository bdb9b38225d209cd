package cache

import (
	"slices"
)

// pattern finds the streams among the reads of one handle, and says what to
// fetch ahead of them. Several threads may read through one handle, and the
// kernel, which reads ahead too, does not keep to the order.
type pattern struct {
	tracks []*track // latest first

	last, stride int64 // offset of the last read of no stream, and its distance to the one before
	strides      int   // how often in a row the distance was that
}

// track is a run of reads, each beginning where another ended.
type track struct {
	start, end int64 // what was read
	up, down   int   // how often it grew at the end, and at the start
	strange    int   // reads since the last one that continued it

	// Of a stream:
	window int64 // how far ahead to be, 0 before the first time
	ahead  int64 // up, or down, to where it was fetched
	grown  int64 // where it was read when the window grew
	spans  []*span
}

// extent is a range of an object in bytes.
type extent struct{ off, end int64 }

const (
	maxTracks    = 4
	patience     = 8       // reads of something else until a stream counts as broken
	longPatience = 256     // and until one does that has gone on for so long
	slack        = 4 << 20 // by how much reads of one stream overtake each other
	firstWindow  = 4 << 20
	maxWindow    = 64 << 20
	minPiece     = 1 << 20
	maxPiece     = 8 << 20
	maxStride    = 64 << 20
	strideAhead  = 8 // reads
)

// note takes one read. It returns the stream that it belongs to, or nil, and
// tracks that are given up.
func (p *pattern) note(off, end int64) (stream *track, gone []*track) {
	i := slices.IndexFunc(p.tracks, func(t *track) bool { return t.take(off, end) })
	if i < 0 {
		p.tracks = slices.DeleteFunc(p.tracks, func(t *track) bool {
			t.strange++
			if t.strange >= max(patience, min(t.up+t.down, longPatience)) && t.stream() {
				gone = append(gone, t)
				return true
			}
			return false
		})
		if len(p.tracks) == maxTracks {
			i := maxTracks - 1
			for i > 0 && p.tracks[i].stream() { // any other goes before
				i--
			}
			if p.tracks[i].stream() {
				i = maxTracks - 1
				gone = append(gone, p.tracks[i])
			}
			p.tracks = slices.Delete(p.tracks, i, i+1)
		}
		p.tracks = slices.Insert(p.tracks, 0, &track{start: off, end: end})
		if d := off - p.last; d == p.stride {
			p.strides++
		} else {
			p.stride, p.strides = d, 1
		}
		p.last = off
		return nil, gone
	}
	t := p.tracks[i]
	t.strange, p.strides = 0, 0
	p.tracks = slices.Insert(slices.Delete(p.tracks, i, i+1), 0, t)
	if !t.stream() {
		return nil, nil
	}
	return t, nil
}

// strided is what to fetch after a read of no stream that has the same
// distance to the one before as those before it had to each other.
func (p *pattern) strided(off, end, size int64) (next []extent) {
	if p.strides < 3 || p.stride == 0 || max(p.stride, -p.stride) > maxStride {
		return nil
	}
	for i := range int64(strideAhead) {
		if e := (extent{off + (i+1)*p.stride, end + (i+1)*p.stride}); e.off >= 0 && e.off < size {
			next = append(next, extent{e.off, min(e.end, size)})
		}
	}
	return next
}

// stream says whether the track has been continued often enough. Downwards it
// takes more, as the kernel's first two requests may come in the wrong order.
func (t *track) stream() bool { return t.up > 0 || t.back() }

func (t *track) back() bool { return t.up == 0 && t.down > 1 }

// take adds a read to the track if it belongs to it.
func (t *track) take(off, end int64) bool {
	switch {
	case off <= t.end && off > t.start && end > t.end || off == t.end:
		t.up++
	case end >= t.start && end < t.end && off < t.start || end == t.start:
		t.down++
	case off >= t.start && end <= t.end && t.window == 0: // read again
		return true
	case t.window == 0:
		return false
	case t.back():
		if end > t.start+slack || end <= min(t.ahead, t.start)-slack {
			return false
		}
	default:
		if off < t.end-slack || off >= max(t.ahead, t.end)+slack {
			return false
		}
	}
	t.start, t.end = min(t.start, off), max(t.end, end)
	return true
}

// plan is what to fetch now, in pieces, and moves the window. off is where the
// read is that the stream just got.
func (t *track) plan(off, end, size int64, b budget) (next []extent) {
	at := t.end
	if t.back() {
		at = t.start
	}
	switch {
	case t.window == 0:
		t.window, t.grown = firstWindow, at
		t.ahead = floor(off, blockSize)
		if t.back() {
			t.ahead = min(size, floor(end+blockSize-1, blockSize))
		}
	case max(at-t.grown, t.grown-at) >= t.window/2:
		t.window, t.grown = min(2*t.window, maxWindow), at
	}
	t.window = max(minPiece, min(t.window, b.window))
	piece := b.piece(t.window)
	if t.back() {
		goal := max(0, at-t.window)
		for t.ahead > 0 {
			from := floor(t.ahead-1, piece)
			if from < goal {
				break
			}
			next = append(next, extent{from, t.ahead})
			t.ahead = from
		}
		return next
	}
	goal := min(size, at+t.window)
	for t.ahead < size {
		to := min(floor(t.ahead+piece, piece), size)
		if to > goal {
			break
		}
		next = append(next, extent{t.ahead, to})
		t.ahead = to
	}
	return next
}

// budget is what a stream may use.
type budget struct {
	window  int64 // bytes ahead, at most
	streams int64 // that share the memory
	largest int64 // bytes of a request
}

// piece is how much one request fetches of a window: many requests at once for
// the bandwidth, but large ones for the CPU. It is a power of two.
func (b budget) piece(window int64) int64 {
	atOnce := max(4, 8/b.streams)
	piece := int64(minPiece)
	for piece*2 <= min(window/atOnce, b.largest) {
		piece *= 2
	}
	return piece
}

func floor(n, unit int64) int64 { return n - n%unit }
