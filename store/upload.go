package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/keifs/keifs/backend"
)

// Upload is a file that goes into the bucket by parts while it is still being
// written, and is in it from Finish on. Its attributes are those that it was
// begun with, as most stores have to know them before the first part.
//
// Part and Send may be called in parallel, Finish or Discard once, when nothing
// else is under way: either ends the upload, whatever comes of it.
type Upload struct {
	s    *Store
	pub  publication
	a    backend.Assembly
	part int64 // bytes of the first part
	step int   // so many parts are of one size
	left bool  // see Left
}

// BeginUpload begins an upload of a file whose size is not known yet. opts are
// those of Publish, without Exclusive; part is the size of the first part in
// bytes, or less than the store takes. ErrUnsupported where the bucket takes no
// parts, or not under that condition.
func (s *Store) BeginUpload(ctx context.Context, p Path, part int64, opts PublishOptions) (*Upload, error) {
	pub, err := s.publication(ctx, p, ModeRegular, -1, opts)
	if err != nil {
		return nil, err
	}
	caps, cond := pub.caps, pub.condition()
	assembler, ok := backend.As[backend.Assembler](s.b)
	if !ok || opts.Exclusive || !honours(cond, caps.CondAssemble, caps.CondAssemble) {
		return nil, fail("upload", p, backend.ErrUnsupported)
	}
	put := pub.putOptions(cond)
	put.NoCopies = true
	if !caps.Metadata {
		put.Metadata = nil
	}
	if err := caps.CheckMetadata("upload", pub.key, put.Metadata); err != nil {
		return nil, fail("upload", p, err)
	}
	if err := s.markAttrs(ctx, caps); err != nil {
		return nil, err
	}
	a, err := assembler.Assemble(ctx, pub.key, put)
	if err != nil {
		return nil, fail("upload", p, err)
	}
	return &Upload{s: s, pub: pub, a: a, part: max(part, caps.MinPart, 1), step: caps.MaxParts / partSizes}, nil
}

// partSizes is how many sizes parts have at most, each twice the one before:
// with 16 MiB and 10,000 parts, what is sent in parts of at most 4 GiB is 8 TiB.
const partSizes = 10

// Part is where part n of the file lies, counted from 0, if the file has all of
// it. A part is the larger, the farther behind it is, so that any size fits into as many
// parts as a store takes.
func (u *Upload) Part(n int) Range {
	if u.step == 0 {
		return Range{int64(n) * u.part, u.part}
	}
	at, size := int64(0), u.part
	for ; n >= u.step; n -= u.step {
		at += int64(u.step) * size
		size *= 2
	}
	return Range{at + int64(n)*size, size}
}

// PartAt is the number of the part that has the byte at off.
func (u *Upload) PartAt(off int64) int {
	n, at, size := 0, int64(0), u.part
	for u.step > 0 && off-at >= int64(u.step)*size {
		at += int64(u.step) * size
		n += u.step
		size *= 2
	}
	return n + int((off-at)/size)
}

// ID is what Store.DiscardUpload knows the upload by; empty where the store
// keeps nothing of an upload that is given up.
func (u *Upload) ID() string {
	if _, ok := backend.As[backend.Discarder](u.s.b); !ok {
		return ""
	}
	return backend.AssemblyID(u.a)
}

// Send sends part n, which src has nothing but. Sent again, it replaces the
// one before. The source must not change meanwhile.
func (u *Upload) Send(ctx context.Context, n int, src backend.Source) error {
	return u.a.PutPart(ctx, n+1, src)
}

// Finish is Publish of src, of which all parts have been sent.
func (u *Upload) Finish(ctx context.Context, src backend.Source) (Entry, error) {
	s, pub := u.s, u.pub
	pub.size = src.Size()
	finished := false
	pub.put = func(ctx context.Context, key string, opts backend.PutOptions) (backend.Info, error) {
		if finished {
			return s.put(ctx, pub.caps, key, src, opts)
		}
		finished = true
		info, err := u.a.Complete(ctx)
		if err == nil {
			return info, nil
		}
		u.left = s.abandon(ctx, u.a, key) != nil
		switch {
		case errors.Is(err, backend.ErrAmbiguous) && !errors.Is(err, backend.ErrPrecondition):
			// It is used up, and so an answer got lost: the object tells.
			return info, fmt.Errorf("%w (%w)", backend.ErrPrecondition, err)
		case errors.Is(err, backend.ErrPrecondition) && s.check(ctx, key, opts.Cond) == nil:
			// What the condition meant has become something else since the
			// beginning, by a commit.
			return s.put(ctx, pub.caps, key, src, opts)
		}
		return info, err
	}
	pub.same = func(context.Context, backend.Info) (bool, error) {
		return pub.caps.Metadata, nil // as in PublishPatch
	}
	return s.publish(ctx, pub)
}

// Discard gives the upload up. A failure is logged: nothing comes of it but
// costs.
func (u *Upload) Discard(ctx context.Context) { u.left = u.s.abandon(ctx, u.a, u.pub.key) != nil }

// Left says whether parts were left in the store after Discard or Finish.
func (u *Upload) Left() bool { return u.left }

// DiscardUpload is Upload.Discard for an upload of a process before.
func (s *Store) DiscardUpload(ctx context.Context, p Path, id string) error {
	pl, err := s.place(p)
	if err != nil {
		return err
	}
	discarder, ok := backend.As[backend.Discarder](s.b)
	if !ok {
		return fail("discard", p, backend.ErrUnsupported)
	}
	return fail("discard", p, discarder.Discard(ctx, pl.key, id))
}
