package commit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/keifs/keifs/backend"
)

// Writer makes ranges of sorted entries and writes those that are new. What it
// holds in memory is bounded whatever the number of entries: one range and
// uploadsAtOnce more on their way. It is not for concurrent use.
type Writer struct {
	repo  *Repo
	known map[string]bool // ids of ranges that are there and reachable

	ranges []Range
	last   string // path
	cur    Range  // being filled
	data   []byte // its canonical encoding

	ctx    context.Context
	cancel context.CancelCauseFunc
	slots  chan struct{}
	wg     sync.WaitGroup
}

const uploadsAtOnce = 2

// Writer returns a writer. Ranges that one of the known commits has, which
// must be reachable, are not written again. Close must be called.
func (r *Repo) Writer(ctx context.Context, known ...*Manifest) *Writer {
	w := &Writer{repo: r, known: map[string]bool{}, slots: make(chan struct{}, uploadsAtOnce)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	for _, m := range known {
		if m == nil {
			continue
		}
		for _, r := range m.Ranges {
			w.known[r.ID] = true
		}
	}
	return w
}

// Add adds an entry, whose path must sort after all before.
func (w *Writer) Add(e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("%w: %w", backend.ErrInvalid, err)
	}
	if e.Path <= w.last {
		return fmt.Errorf("%w: entry %q after %q", backend.ErrInvalid, e.Path, w.last)
	}
	if w.cur.Bytes > math.MaxInt64-e.Size {
		return fmt.Errorf("%w: bytes of a range", backend.ErrTooLarge)
	}
	w.last = e.Path
	if w.cur.Entries == 0 {
		w.cur.First = e.Path
	}
	w.cur.Last = e.Path
	w.cur.Entries++
	w.cur.Bytes += e.Size
	w.data = e.append(w.data)
	if w.cutAfter(e.Path) {
		return w.cut()
	}
	return context.Cause(w.ctx)
}

// cutAfter says whether the range ends with this path. It depends on the path
// and on the number of entries since the last cut alone: after the same cut,
// the same entries make the same ranges.
func (w *Writer) cutAfter(path string) bool {
	opts := w.repo.opts
	switch {
	case w.cur.Entries >= int64(opts.MaxEntries), len(w.data) >= maxRangeFile/2:
		return true
	case w.cur.Entries < int64(opts.MinEntries):
		return false
	}
	hash := sha256.Sum256([]byte(path))
	return binary.BigEndian.Uint64(hash[:])>>(64-opts.CutBits) == 0
}

// AtCut says whether the next entry begins a range, so that Keep is possible.
func (w *Writer) AtCut() bool { return w.cur.Entries == 0 }

// Keep adds a range of a known commit without reading it. It is only for where
// AtCut, and for a range that did not end its tree, or does end this one:
// else it would not be the range that Add makes of the same entries.
func (w *Writer) Keep(r Range) error {
	if !w.AtCut() || r.First <= w.last || !w.known[r.ID] {
		return fmt.Errorf("%w: range %.12s cannot be kept", backend.ErrInvalid, r.ID)
	}
	w.ranges = append(w.ranges, r)
	w.last = r.Last
	return nil
}

// cut ends the range, and sends it on its way if it is new.
func (w *Writer) cut() error {
	r := w.cur
	r.ID = rangeID(w.data)
	w.cur = Range{}
	w.ranges = append(w.ranges, r)
	if w.known[r.ID] {
		w.data = w.data[:0]
		return context.Cause(w.ctx)
	}
	data := w.data
	w.data = make([]byte, 0, len(data)/2)
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		file, err := encodeRange(data)
		if err == nil {
			// Without a condition: whoever wrote it before wrote the same, and
			// its age is what collectors of garbage go by.
			_, err = w.repo.b.Put(w.ctx, RangeKey(r.ID), backend.Bytes(file),
				backend.PutOptions{ContentType: "application/vnd.apache.parquet"})
		}
		if err != nil {
			w.cancel(fmt.Errorf("range %.12s: %w", r.ID, err))
		}
	})
	return nil
}

// errWriterClosed ends what is left of a writer.
var errWriterClosed = errors.New("writer closed")

// Close ends the last range and returns all of them when they are in the
// bucket.
func (w *Writer) Close() ([]Range, error) {
	var err error
	if w.cur.Entries > 0 {
		err = w.cut()
	}
	w.wg.Wait()
	if err == nil {
		err = context.Cause(w.ctx)
	}
	w.cancel(errWriterClosed)
	if err != nil {
		return nil, err
	}
	return w.ranges, nil
}

// Abort gives up. It may be called after Close.
func (w *Writer) Abort() {
	w.cancel(errWriterClosed)
	w.wg.Wait()
}
