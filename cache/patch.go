package cache

import (
	"context"
	"io"
	"slices"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// patchFrom is the size in bytes from which on a file is not staged as a whole
// for the sake of a change.
const patchFrom = 8 << 20

// patch says which bytes of a staged file are its own. The others, below limit,
// are those of the version that the inode is based on.
type patch struct {
	limit int64
	have  extents // staged; whatever is at or above limit is, too
	dirty extents // changed since the version was published
}

// wrote notes that the staged file has the range, which has changed.
func (p *patch) wrote(off, n int64) {
	if p != nil {
		p.have.add(store.Range{Off: off, Len: n})
		p.dirty.add(store.Range{Off: off, Len: n})
	}
}

// cut notes that the file ends there.
func (p *patch) cut(size int64) {
	if p != nil {
		p.limit = min(p.limit, size)
		p.have.cut(size)
		p.dirty.cut(size)
	}
}

// missing is what of the range is not staged.
func (p *patch) missing(r store.Range) []store.Range {
	if p == nil || r.Off >= p.limit {
		return nil
	}
	return p.have.missing(store.Range{Off: r.Off, Len: min(r.End(), p.limit) - r.Off})
}

// wholeLocked says whether all of the content is staged.
func (in *inode) wholeLocked() bool {
	return in.file != nil && len(in.patch.missing(store.Range{Len: in.entry.Size})) == 0
}

// missing is what of a range is read from the bucket.
func (in *inode) missing(r store.Range) []store.Range {
	missing, _ := in.staged(r)
	return missing
}

// staged is missing, with the count of moves at that moment.
func (in *inode) staged(r store.Range) (missing []store.Range, moves uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.patch.missing(r), in.moves
}

// readStaged reads from the staged file and, where that has not all of it, from
// the version it is based on.
func (in *inode) readStaged(ctx context.Context, file *stagedFile, r *reads, p []byte, off int64) (int, error) {
	want := store.Range{Off: off, Len: int64(len(p))}
	missing, moves := in.staged(want)
	n, err := file.ReadAt(p, off)
	if now, m := in.staged(want); m != moves || !slices.Equal(now, missing) { // it was just staged, or given up
		return in.readStaged(ctx, file, r, p, off)
	}
	if err == io.EOF && (n > 0 || len(missing) > 0) { // just cut by somebody else
		err = nil
	}
	if err != nil || len(missing) == 0 {
		return n, err
	}
	from := in.under()
	for _, m := range missing {
		if _, err := in.t.c.readObject(ctx, from, r, p[m.Off-off:m.End()-off], m.Off); err != nil {
			return 0, err
		}
		n = max(n, int(m.End()-off))
	}
	return n, nil
}

// under is the version that the inode is based on.
func (in *inode) under() origin {
	in.t.mu.Lock()
	defer in.t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	size := in.base.Size
	if in.patch != nil {
		size = max(size, in.patch.limit)
	}
	return origin{in.t.store, in.path, in.entry.Version, size}
}

// complete stages ranges that are not; nobody changes the file meanwhile.
func (in *inode) complete(ctx context.Context, ranges ...store.Range) error {
	in.mu.Lock()
	file := in.file
	in.mu.Unlock()
	from := in.under()
	for _, r := range ranges {
		for _, m := range in.missing(r) {
			if err := in.t.c.download(ctx, from, file, m); err != nil {
				return err
			}
			in.mu.Lock()
			in.patch.have.add(m)
			in.mu.Unlock()
		}
	}
	return nil
}

// patchable says whether a version of that size need not be downloaded to be
// changed.
func (in *inode) patchable(ctx context.Context, size int64) bool {
	if size < in.t.c.opts.patchFrom {
		return false
	}
	_, ok, err := in.t.store.PlanPatch(ctx, size, size, nil)
	return ok && err == nil
}

// publishPatch publishes a file that is staged in part: as a patch where the
// store can, else as a whole after all.
func (in *inode) publishPatch(ctx context.Context, path store.Path, source backend.Source, plan *patch, opts store.PublishOptions) (store.Entry, error) {
	s, size := in.t.store, source.Size()
	if opts.Base != "" {
		p, ok, err := s.PlanPatch(ctx, size, plan.limit, plan.dirty.list)
		if err != nil {
			return store.Entry{}, err
		}
		// What is here as a whole, and to be sent for the most part, is sent as
		// a whole.
		if ok && (p.Sent() <= size-size/4 || len(in.missing(store.Range{Len: size})) > 0) {
			if err := in.complete(ctx, p.Local()...); err != nil {
				return store.Entry{}, err
			}
			return s.PublishPatch(ctx, path, source, p, opts)
		}
	}
	if err := in.complete(ctx, store.Range{Len: size}); err != nil {
		return store.Entry{}, err
	}
	return s.Publish(ctx, path, source, opts)
}

// publishedLocked notes that the bucket has the file as it is staged.
func (in *inode) publishedLocked() {
	size := in.entry.Size
	switch {
	case in.file == nil:
	case in.patch != nil:
		in.patch.have.add(store.Range{Off: in.patch.limit, Len: size - in.patch.limit})
		in.patch.limit, in.patch.dirty = size, extents{}
	case size >= in.t.c.opts.patchFrom:
		in.patch = &patch{limit: size}
		in.patch.have.add(store.Range{Len: size})
	}
}

// extents is a set of bytes: ranges in order, which do not touch.
type extents struct{ list []store.Range }

func (e *extents) add(r store.Range) {
	if r.Len <= 0 {
		return
	}
	first, _ := slices.BinarySearchFunc(e.list, r.Off, func(x store.Range, off int64) int {
		if x.End() < off {
			return -1
		}
		return 1
	})
	last := first
	for last < len(e.list) && e.list[last].Off <= r.End() {
		end := max(r.End(), e.list[last].End())
		r.Off = min(r.Off, e.list[last].Off)
		r.Len = end - r.Off
		last++
	}
	e.list = slices.Replace(e.list, first, last, r)
}

func (e *extents) cut(size int64) {
	for n := len(e.list); n > 0 && e.list[n-1].End() > size; n-- {
		if r := &e.list[n-1]; r.Off < size {
			r.Len = size - r.Off
			return
		}
		e.list = e.list[:n-1]
	}
}

// missing is what of the range is not in the set.
func (e *extents) missing(r store.Range) (all []store.Range) {
	at := r.Off
	for _, x := range e.list {
		if x.Off >= r.End() {
			break
		}
		if x.Off > at {
			all = append(all, store.Range{Off: at, Len: x.Off - at})
		}
		at = max(at, x.End())
	}
	if at < r.End() {
		all = append(all, store.Range{Off: at, Len: r.End() - at})
	}
	return all
}
