package store

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/keifs/keifs/backend"
)

// Range is a piece of a file, in bytes.
type Range struct{ Off, Len int64 }

// End is the first byte behind it.
func (r Range) End() int64 { return r.Off + r.Len }

// Patch is how a changed file is put together: what is new is sent, and the
// store copies the rest from the version before.
type Patch struct {
	parts []patchPart // in order, and without gaps
}

type patchPart struct {
	Range
	copied bool
}

// Local is the ranges that are sent: those that changed, and what has to go
// with them as parts have a least size.
func (p Patch) Local() []Range {
	var all []Range
	for _, part := range p.parts {
		if !part.copied {
			all = append(all, part.Range)
		}
	}
	return all
}

// Sent is how many bytes are.
func (p Patch) Sent() int64 {
	var sent int64
	for _, r := range p.Local() {
		sent += r.Len
	}
	return sent
}

// maxPatchParts is how many parts a patch has at most, as each is a request;
// but as many as its size needs.
const maxPatchParts = 64

// PlanPatch plans how to publish a file of that size of which the bytes below
// limit, but for the changed ranges, are those of a version in the bucket. False
// where this store cannot.
func (s *Store) PlanPatch(ctx context.Context, size, limit int64, changed []Range) (Patch, bool, error) {
	caps, err := s.change(ctx)
	if err != nil {
		return Patch{}, false, err
	}
	_, ok := backend.As[backend.Assembler](s.b)
	if !ok || !caps.Copy || !caps.CondAssemble || size == 0 {
		return Patch{}, false, nil
	}
	put, err := partSize(caps, "", size, minPart)
	if err != nil {
		return Patch{}, false, err
	}
	copied, err := partSize(caps, "", size, copyPart)
	if err != nil {
		return Patch{}, false, err
	}
	var parts []patchPart
	for least := max(caps.MinPart, 1); ; least *= 2 {
		sent := sentRanges(size, limit, least, changed)
		if len(sent) <= maxPatchParts/2 {
			parts = patchParts(size, put, copied, sent)
			break
		}
	}
	return Patch{parts}, caps.MaxParts == 0 || len(parts) <= caps.MaxParts, nil
}

// sentRanges is what has to be sent, so that no part but the last is smaller
// than least.
func sentRanges(size, limit, least int64, changed []Range) []Range {
	all := slices.Clone(changed)
	if limit < size {
		all = append(all, Range{limit, size - limit})
	}
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	var sent []Range
	for _, r := range all {
		start, end := r.Off, min(max(r.End(), r.Off+least), size)
		if start >= size || r.Len <= 0 {
			continue
		}
		if start < least {
			start = 0
		}
		if n := len(sent); n > 0 && start-sent[n-1].End() < least { // too little to copy between them
			start = sent[n-1].Off
			end = max(end, sent[n-1].End())
			sent = sent[:n-1]
		}
		sent = append(sent, Range{start, end - start})
	}
	return sent
}

// patchParts cuts everything into parts.
func patchParts(size, put, copied int64, sent []Range) []patchPart {
	var parts []patchPart
	cut := func(start, end, most int64, copied bool) {
		if start >= end {
			return
		}
		n := (end - start + most - 1) / most
		for ; n > 0; n-- { // alike, so that none is too small
			length := (end - start) / n
			parts = append(parts, patchPart{Range{start, length}, copied})
			start += length
		}
	}
	at := int64(0)
	for _, r := range sent {
		cut(at, r.Off, copied, true)
		cut(r.Off, r.End(), put, false)
		at = r.End()
	}
	cut(at, size, copied, true)
	return parts
}

// PublishPatch is Publish for a file of which src has, of all its bytes, only
// those of plan.Local; the others are those of opts.Base at the same path. On a
// lost race that version is gone, and so the content cannot be stored beside:
// the error is a *ConflictError that names no place.
func (s *Store) PublishPatch(ctx context.Context, p Path, src backend.Source, plan Patch, opts PublishOptions) (Entry, error) {
	pub, err := s.publication(ctx, p, ModeRegular, src.Size(), opts)
	if err != nil {
		return Entry{}, err
	}
	assembler, ok := backend.As[backend.Assembler](s.b)
	if !ok || opts.Base == "" {
		return Entry{}, fail("publish", p, backend.ErrUnsupported)
	}
	base := pub.key
	lost := false
	pub.put = func(ctx context.Context, key string, opts2 backend.PutOptions) (backend.Info, error) {
		if !pub.caps.Metadata {
			opts2.Metadata = nil
		}
		if err := pub.caps.CheckMetadata("put", key, opts2.Metadata); err != nil {
			return backend.Info{}, err
		}
		info, err := s.assembleParts(ctx, assembler, key, opts2, len(plan.parts), func(ctx context.Context, a backend.Assembly, i int) error {
			part := plan.parts[i]
			if !part.copied {
				return a.PutPart(ctx, i+1, backend.Section(src, part.Off, part.Len))
			}
			return sourceLost(a.CopyPart(ctx, i+1, base, opts.Base, part.Off, part.Len))
		})
		lost = errors.Is(err, errSource)
		return info, err
	}
	pub.same = func(context.Context, backend.Info) (bool, error) {
		// Size and attributes are equal by now, and among these is the time
		// of the change, to the nanosecond.
		return pub.caps.Metadata, nil
	}
	e, err := s.publish(ctx, pub)
	if lost {
		return Entry{}, &ConflictError{Path: p}
	}
	return e, err
}
