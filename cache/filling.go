package cache

import (
	"context"
	"io"
	"sync"

	"github.com/keifs/keifs/backend"
)

// filling is what is known of the reads of a file that belong to no stream, by
// all its handles, and how much they fetch. The first ones fetch the blocks
// that they are in, in case that more is read around there. Where that was for
// nothing, a small read fetches what it asks for and no more, but the second in
// a block all of that. When many have shown that most of the file will be
// wanted, all of it is fetched: from the begin on, and before that what is
// around each read.
type filling struct {
	mu      sync.Mutex
	fetched int                // reads that had to fetch
	found   int                // and others
	touched map[int64]struct{} // blocks of which a small part was fetched
	cancel  context.CancelFunc // while all is fetched, and after that
	around  []*span            // fetched meanwhile
}

const (
	sparseAfter = 8       // reads that had to fetch
	maxTouched  = 1 << 16 // blocks that are remembered

	fillAfter = 500     // reads that had to fetch; and
	fillShare = 2 << 20 // bytes of the file for each
	fillPiece = 4 << 20
	wayside   = 1 << 20 // bytes around a read meanwhile
)

// readAt fills p for a read of no stream.
func (l *filling) readAt(ctx context.Context, f *fetcher, o *object, p []byte, off int64) error {
	first, end := blocksAt(off, len(p))
	if there := f.has(o, first); !there && len(p) <= smallRead && end == first+1 && l.sparse(first) {
		// On its own, and straight to where it is wanted, it costs the least.
		f.misses.Add(1)
		err := o.read(ctx, off, int64(len(p)), func(body io.Reader) error { return readFull(body, p) })
		if err == nil {
			l.note(ctx, f, o, true)
		}
		return err
	} else if !there {
		l.fetchAround(ctx, f, o, off, off+int64(len(p)))
	}
	fetched, err := f.readAt(ctx, o, p, off, false)
	if err == nil {
		l.note(ctx, f, o, fetched > 0)
	}
	return err
}

// fetchAround begins to fetch what is around a read of [off, end), while all of
// the file is fetched.
func (l *filling) fetchAround(ctx context.Context, f *fetcher, o *object, off, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel == nil {
		return
	}
	from := floor(off, wayside)
	next := []extent{{from, min(from+wayside, o.size)}}
	l.around = append(running(l.around), f.prefetch(ctx, o, next, off, end)...)
}

// sparse says whether a small read, of a block that is not here, is to fetch
// no more than it asks for.
func (l *filling) sparse(block int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fetched < sparseAfter || l.found >= l.fetched || l.cancel != nil {
		return false
	}
	if _, again := l.touched[block]; again {
		return false
	}
	if l.touched == nil || len(l.touched) == maxTouched {
		l.touched = map[int64]struct{}{}
	}
	l.touched[block] = struct{}{}
	return true
}

// note takes a read of no stream that was done.
func (l *filling) note(ctx context.Context, f *fetcher, o *object, fetched bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !fetched {
		l.found++
		return
	}
	l.fetched++
	if l.cancel != nil || l.fetched < fillAfter || int64(l.fetched)*fillShare < o.size ||
		f.ahead.max < 2*fillPiece || o.size > f.disk.disk.max/2 {
		return
	}
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.start(func() { f.fetchAll(backend.WithPriority(ctx, backend.ReadAhead), o) })
}

// close ends it. It may begin again.
func (l *filling) close(f *fetcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.drop(l.around)
	if l.cancel != nil {
		l.cancel()
	}
	l.cancel, l.fetched, l.found, l.touched, l.around = nil, 0, 0, nil, nil
}

// fetchAll fetches what is missing of the object, until an error.
func (f *fetcher) fetchAll(ctx context.Context, o *object) {
	t := new(track)
	defer f.dropTrack(t)
	for off := int64(0); off < o.size; off += fillPiece {
		for len(t.spans) > 0 {
			if window, _ := f.ahead.share(t); bytesOf(t.spans)+fillPiece <= window {
				break
			}
			select {
			case <-t.spans[0].ended:
			case <-ctx.Done():
				return
			}
			if f.failed(t.spans) {
				return
			}
			t.spans = running(t.spans)
		}
		if ctx.Err() != nil || f.check() != nil {
			return
		}
		t.spans = append(t.spans, f.prefetch(ctx, o, []extent{{off, min(off+fillPiece, o.size)}}, -1, -1)...)
	}
	for _, s := range t.spans {
		select {
		case <-s.ended:
		case <-ctx.Done():
			return
		}
	}
}
