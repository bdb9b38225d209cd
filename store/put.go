package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/keifs/keifs/backend"
)

const (
	// largePut is the size in bytes above which an object is sent in parts.
	largePut = 64 << 20
	// minPart is the size of such a part, as long as there are not too many.
	minPart = 16 << 20
	// copyPart is the size of a part that the store copies by itself.
	copyPart = 256 << 20
	// partsAtOnce is how many parts of one object are on the wire.
	partsAtOnce = 4
	// smallCopy is the size up to which content is fetched and sent back for
	// the sake of a condition that the store's own copy does not honour.
	smallCopy = 8 << 20
)

// errSource: what was to be copied is another version by now, or gone.
var errSource = errors.New("the source was changed by somebody else")

// put stores an object under a condition. It goes in parts where it is large;
// where the bucket does not honour the condition, it is checked before.
func (s *Store) put(ctx context.Context, caps backend.Caps, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if !caps.Metadata {
		opts.Metadata = nil
	}
	if err := caps.CheckMetadata("put", key, opts.Metadata); err != nil {
		return backend.Info{}, err
	}
	if err := s.markAttrs(ctx, caps); err != nil {
		return backend.Info{}, err
	}
	size := src.Size()
	fits := caps.MaxPut == 0 || size <= caps.MaxPut
	honoured := honours(opts.Cond, caps.CondCreate, caps.CondOverwrite)
	assembler, ok := backend.As[backend.Assembler](s.b)
	// One long request that keeps a condition is better than many that do not.
	inParts := ok && size > 0 && (!fits || size > largePut && (honours(opts.Cond, caps.CondAssemble, caps.CondAssemble) || !honoured))
	if inParts {
		honoured = honours(opts.Cond, caps.CondAssemble, caps.CondAssemble)
	}
	if !honoured {
		if err := s.check(ctx, key, opts.Cond); err != nil {
			return backend.Info{}, err
		}
		opts.Cond = backend.Cond{}
	}
	if !inParts {
		begun := time.Now()
		info, err := s.b.Put(ctx, key, src, opts)
		if err == nil {
			s.clocks.stored(info, time.Since(begun))
		}
		return info, err
	}
	part, err := partSize(caps, key, size, minPart)
	if err != nil {
		return backend.Info{}, err
	}
	opts.NoCopies = true
	return s.assemble(ctx, assembler, key, size, part, opts, func(ctx context.Context, a backend.Assembly, n int, off, length int64) error {
		return a.PutPart(ctx, n, backend.Section(src, off, length))
	})
}

// honours says whether the bucket does, given what it does for each kind.
func honours(cond backend.Cond, create, overwrite bool) bool {
	return (!cond.IfAbsent || create) && (cond.IfMatch == "" || overwrite)
}

// check looks whether a condition holds that the bucket does not honour. That
// somebody comes between check and change is what the bucket cannot prevent.
func (s *Store) check(ctx context.Context, key string, cond backend.Cond) error {
	if cond == (backend.Cond{}) {
		return nil
	}
	info, err := s.b.Stat(ctx, key)
	gone := errors.Is(err, backend.ErrNotExist)
	switch {
	case err != nil && !gone:
		return err
	case cond.IfAbsent && !gone, cond.IfMatch != "" && info.ETag != cond.IfMatch:
		return backend.Fail("check", key, backend.ErrPrecondition, nil)
	}
	return nil
}

// partSize is how large the parts of an object are, at least that much unless
// the store does not take them.
func partSize(caps backend.Caps, key string, size, least int64) (int64, error) {
	const mib = 1 << 20
	part := max(least, caps.MinPart)
	if caps.MaxParts > 0 {
		n := int64(caps.MaxParts)
		part = max(part, (size/n+mib)/mib*mib)
	}
	if caps.MaxPart > 0 && part > caps.MaxPart {
		part = caps.MaxPart
		if caps.MaxParts > 0 && (size+part-1)/part > int64(caps.MaxParts) {
			return 0, backend.Fail("put", key, backend.ErrTooLarge, fmt.Errorf("%d bytes", size))
		}
	}
	return part, nil
}

// assemble builds an object of parts, which send puts or copies.
func (s *Store) assemble(ctx context.Context, assembler backend.Assembler, key string, size, part int64, opts backend.PutOptions,
	send func(ctx context.Context, a backend.Assembly, n int, off, length int64) error,
) (info backend.Info, err error) {
	return s.assembleParts(ctx, assembler, key, opts, int((size+part-1)/part), func(ctx context.Context, a backend.Assembly, i int) error {
		off := int64(i) * part
		return send(ctx, a, i+1, off, min(part, size-off))
	})
}

// assembleParts builds an object of so many parts, counted from 0.
func (s *Store) assembleParts(ctx context.Context, assembler backend.Assembler, key string, opts backend.PutOptions, parts int,
	send func(ctx context.Context, a backend.Assembly, i int) error,
) (info backend.Info, err error) {
	a, err := assembler.Assemble(ctx, key, opts)
	if err != nil {
		return backend.Info{}, err
	}
	defer func() {
		if err != nil {
			_ = s.abandon(ctx, a, key)
		}
	}()
	numbers := slices.Collect(func(yield func(int) bool) {
		for i := range parts {
			if !yield(i) {
				return
			}
		}
	})
	err = backend.Parallel(ctx, partsAtOnce, numbers, func(ctx context.Context, i int) error { return send(ctx, a, i) })
	if err != nil {
		return backend.Info{}, err
	}
	return a.Complete(ctx)
}

// abandon aborts an assembly. Parts that are left over cost money: they are
// taken away even when the caller has gone.
func (s *Store) abandon(ctx context.Context, a backend.Assembly, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := a.Abort(ctx)
	if err != nil {
		s.log.Warn("an unfinished upload is left in the store", "store", s.BackendName(), "key", key, "err", err)
	}
	return err
}

// transfer makes dst an object with the content that src has, which must
// still be that version, else errSource. Without Metadata in opts, dst has all
// that src has beside the content. cheap is for many at a time: where the
// store's copy does not honour the condition, it goes without.
func (s *Store) transfer(ctx context.Context, caps backend.Caps, src backend.Info, dst string, opts backend.PutOptions, cheap bool) (backend.Info, error) {
	if !caps.Metadata {
		opts.Metadata = nil
	}
	if err := caps.CheckMetadata("copy", dst, opts.Metadata); err != nil {
		return backend.Info{}, err
	}
	if opts.Metadata != nil {
		if err := s.markAttrs(ctx, caps); err != nil {
			return backend.Info{}, err
		}
	}
	info, err := s.transferOnce(ctx, caps, src, dst, opts, cheap)
	if err == nil || errors.Is(err, errSource) || !errors.Is(err, backend.ErrPrecondition) && !errors.Is(err, backend.ErrNotExist) {
		return info, err
	}
	// Was it the source, or the destination?
	now, statErr := s.b.Stat(ctx, src.Key)
	switch {
	case errors.Is(statErr, backend.ErrNotExist):
		return backend.Info{}, fmt.Errorf("%w (%w)", errSource, backend.ErrNotExist)
	case statErr == nil && now.ETag != src.ETag:
		return backend.Info{}, errSource
	}
	return backend.Info{}, err
}

func (s *Store) transferOnce(ctx context.Context, caps backend.Caps, src backend.Info, dst string, opts backend.PutOptions, cheap bool) (backend.Info, error) {
	copier, ok := backend.As[backend.Copier](s.b)
	byCopy := ok && caps.Copy && (caps.MaxCopy == 0 || src.Size <= caps.MaxCopy)
	assembler, ok := backend.As[backend.Assembler](s.b)
	byParts := ok && caps.Copy && src.Size > 0
	unconditional := opts.Cond == backend.Cond{}

	metadata := opts.Metadata
	if src.Key != dst && src.Metadata != nil && maps.Equal(metadata, src.Metadata) {
		metadata = nil // kept, which some stores do with one request less than replaced
	}
	wholly := func(cond backend.Cond) (backend.Info, error) {
		return copier.Copy(ctx, src.Key, dst, backend.CopyOptions{SourceETag: src.ETag, Cond: cond, Metadata: metadata})
	}
	inParts := func(cond backend.Cond) (backend.Info, error) {
		part, err := partSize(caps, dst, src.Size, copyPart)
		if err != nil {
			return backend.Info{}, err
		}
		opts.Cond = cond
		return s.assemble(ctx, assembler, dst, src.Size, part, opts, func(ctx context.Context, a backend.Assembly, n int, off, length int64) error {
			return a.CopyPart(ctx, n, src.Key, src.ETag, off, length)
		})
	}
	switch {
	case byCopy && (unconditional || caps.CondCopy):
		return wholly(opts.Cond)

	case byCopy && cheap:
		return wholly(backend.Cond{})
	}
	if opts.Metadata == nil && caps.Metadata {
		if err := s.markAttrs(ctx, caps); err != nil {
			return backend.Info{}, err
		}
		now, err := s.b.Stat(ctx, src.Key)
		if err == nil && now.ETag != src.ETag {
			err = errSource
		}
		if err != nil {
			return backend.Info{}, sourceLost(err)
		}
		opts.Metadata, opts.ContentType = s.withTimes(now), now.ContentType
	}
	switch {
	case src.Size <= smallCopy:
		var data []byte
		if src.Size > 0 {
			var err error
			if data, err = s.fetch(ctx, src); err != nil {
				return backend.Info{}, err
			}
		}
		return s.put(ctx, caps, dst, backend.Bytes(data), opts)

	case byParts && (unconditional || caps.CondAssemble):
		return inParts(opts.Cond)

	case byCopy, byParts:
		if err := s.check(ctx, dst, opts.Cond); err != nil {
			return backend.Info{}, err
		}
		if byCopy {
			return wholly(backend.Cond{})
		}
		return inParts(backend.Cond{})
	}
	return s.spool(ctx, caps, src, dst, opts)
}

// fetch reads a small object.
func (s *Store) fetch(ctx context.Context, src backend.Info) ([]byte, error) {
	data := make([]byte, src.Size)
	err := s.b.Get(ctx, src.Key, backend.GetOptions{IfMatch: src.ETag}, func(_ backend.Info, body io.Reader) error {
		_, err := io.ReadFull(body, data)
		return err
	})
	return data, sourceLost(err)
}

func sourceLost(err error) error {
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("%w (%w)", errSource, backend.ErrNotExist)
	case errors.Is(err, backend.ErrPrecondition):
		return errSource
	}
	return err
}

// spool copies a large object by way of a temporary file, for stores that
// cannot copy by themselves.
func (s *Store) spool(ctx context.Context, caps backend.Caps, src backend.Info, dst string, opts backend.PutOptions) (backend.Info, error) {
	file, err := os.CreateTemp("", "keifs-copy-*")
	if err != nil {
		return backend.Info{}, fmt.Errorf("%w: %v", ErrCache, err)
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // it lives as long as it is open
		return backend.Info{}, fmt.Errorf("%w: %v", ErrCache, err)
	}
	err = s.b.Get(ctx, src.Key, backend.GetOptions{IfMatch: src.ETag}, func(_ backend.Info, body io.Reader) error {
		_, err := io.Copy(io.NewOffsetWriter(file, 0), body)
		return err
	})
	if err != nil {
		return backend.Info{}, sourceLost(err)
	}
	return s.put(ctx, caps, dst, io.NewSectionReader(file, 0, src.Size), opts)
}

// sameBytes says whether an object has the content of src. It reads all of it.
func (s *Store) sameBytes(ctx context.Context, object backend.Info, src backend.Source) (bool, error) {
	if object.Size != src.Size() {
		return false, nil
	}
	same := false
	err := s.b.Get(ctx, object.Key, backend.GetOptions{IfMatch: object.ETag}, func(_ backend.Info, body io.Reader) error {
		same = false
		ours := io.NewSectionReader(src, 0, src.Size())
		theirs, want := make([]byte, 256<<10), make([]byte, 256<<10)
		for left := src.Size(); left > 0; {
			n := min(left, int64(len(theirs)))
			if _, err := io.ReadFull(body, theirs[:n]); err != nil {
				return err
			}
			if _, err := io.ReadFull(ours, want[:n]); err != nil {
				return err
			}
			if !bytes.Equal(theirs[:n], want[:n]) {
				return nil
			}
			left -= n
		}
		same = true
		return nil
	})
	if errors.Is(err, backend.ErrPrecondition) || errors.Is(err, backend.ErrNotExist) {
		return false, nil // gone already: then it is not ours
	}
	return same, err
}
