package backendtest

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/keifs/keifs/backend"
)

// partSize is large enough for a part of an assembly that is not the last.
func (s *tester) partSize() int { return max(int(s.caps.MinPart), 100_000) }

func (s *tester) assemble(a backend.Assembler, name string, opts backend.PutOptions) backend.Assembly {
	s.Helper()
	asm, err := a.Assemble(s.ctx, s.key(name), opts)
	if err != nil {
		s.Fatalf("assemble: %v", err)
	}
	return asm
}

func (s *tester) part(asm backend.Assembly, number int, data []byte) {
	s.Helper()
	if err := asm.PutPart(s.ctx, number, backend.Bytes(data)); err != nil {
		s.Fatalf("part %d: %v", number, err)
	}
}

func (s *tester) complete(asm backend.Assembly) backend.Info {
	s.Helper()
	info, err := asm.Complete(s.ctx)
	if err != nil {
		s.Fatalf("complete: %v", err)
	}
	return info
}

func assembly(s *tester) {
	a, ok := backend.As[backend.Assembler](s.b)
	if !ok {
		return
	}
	n := s.partSize()
	one, two, three, tail := content(1, n), content(2, n+1), content(3, n), []byte("the tail")
	attr := map[string]string{"mode": "33188"}

	// Out of order, in parallel, one part sent twice.
	asm := s.assemble(a, "dir/a", backend.PutOptions{Metadata: attr, ContentType: "text/x-keifs"})
	s.part(asm, 2, three)
	for _, err := range race(4, func(i int) error {
		return asm.PutPart(s.ctx, 4-i, backend.Bytes([][]byte{tail, three, two, one}[i]))
	}) {
		if err != nil {
			s.Fatal(err)
		}
	}
	s.absent("dir/a")
	info := s.complete(asm)
	whole := slices.Concat(one, two, three, tail)
	s.holds("dir/a", whole)
	stat, err := s.b.Stat(s.ctx, s.key("dir/a"))
	if err != nil || stat.ETag != info.ETag || info.ETag == "" || stat.Size != int64(len(whole)) {
		s.Errorf("complete tells %+v, stat %+v, %v", info, stat, err)
	}
	if s.caps.Metadata && (!maps.Equal(stat.Metadata, attr) || stat.ContentType != "text/x-keifs") {
		s.Errorf("metadata %q, type %q", stat.Metadata, stat.ContentType)
	}

	// One part, and over what is there.
	asm = s.assemble(a, "dir/a", backend.PutOptions{})
	s.part(asm, 1, tail)
	s.holds("dir/a", whole)
	s.complete(asm)
	s.holds("dir/a", tail)
	s.lists("", false, "dir/a")

	if s.caps.Copy {
		copiedParts(s, a)
	}

	// What is given up leaves nothing, and what was there stays.
	for _, name := range []string{"dir/a", "other/new"} {
		asm = s.assemble(a, name, backend.PutOptions{})
		s.part(asm, 1, one)
		s.part(asm, 3, three)
		if err := asm.Abort(s.ctx); err != nil {
			s.Errorf("abort: %v", err)
		}
	}
	s.holds("dir/a", tail)
	s.absent("other/new")
	for _, key := range s.list(backend.ListOptions{Prefix: s.key("other")}) {
		s.Errorf("an abort leaves %s", key)
	}
}

// copiedParts makes objects of ranges of others, as an append and a change in
// the middle of a large file do.
func copiedParts(s *tester, a backend.Assembler) {
	n := s.partSize()
	data := content(9, 4*n)
	src := s.put("src odd+%41 ü", data)
	key := s.key("src odd+%41 ü")
	cp := func(asm backend.Assembly, number, from, to int) {
		s.Helper()
		if err := asm.CopyPart(s.ctx, number, key, src.ETag, int64(from), int64(to-from)); err != nil {
			s.Fatalf("copied part %d: %v", number, err)
		}
	}
	asm := s.assemble(a, "changed", backend.PutOptions{})
	changed := content(10, n)
	cp(asm, 3, 2*n+1, 4*n)
	s.part(asm, 2, changed)
	cp(asm, 1, 1, n+2)
	s.complete(asm)
	s.holds("changed", slices.Concat(data[1:n+2], changed, data[2*n+1:]))

	// Onto itself.
	asm = s.assemble(a, "src odd+%41 ü", backend.PutOptions{})
	cp(asm, 1, 0, 4*n)
	s.part(asm, 2, []byte("appended"))
	s.complete(asm)
	s.holds("src odd+%41 ü", append(bytes.Clone(data), "appended"...))

	asm = s.assemble(a, "never", backend.PutOptions{})
	s.fails("another source", asm.CopyPart(s.ctx, 1, key, src.ETag, 0, int64(n)), backend.ErrPrecondition)
	s.fails("a source that is not there", asm.CopyPart(s.ctx, 1, s.key("none"), "", 0, int64(n)), backend.ErrNotExist)
	if err := asm.CopyPart(s.ctx, 1, key, "", int64(3*n), int64(2*n)); err == nil {
		s.Error("a range beyond the end is copied")
	}
	if err := asm.Abort(s.ctx); err != nil {
		s.Error(err)
	}
	for _, name := range []string{"src odd+%41 ü", "changed"} {
		if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
			s.Error(err)
		}
	}
}

func assemblyConditions(s *tester) {
	a, ok := backend.As[backend.Assembler](s.b)
	if !ok {
		return
	}
	old := s.put("a", []byte("one"))
	now := s.put("a", []byte("two"))
	do := func(name, data string, cond backend.Cond) error {
		asm, err := a.Assemble(s.ctx, s.key(name), backend.PutOptions{Cond: cond})
		if err != nil {
			return err
		}
		if err := asm.PutPart(s.ctx, 1, backend.Bytes([]byte(data))); err != nil {
			return err
		}
		_, err = asm.Complete(s.ctx)
		if err != nil {
			if err := asm.Abort(s.ctx); err != nil {
				s.Errorf("abort after %v", err)
			}
		}
		return err
	}
	if !s.caps.CondAssemble {
		err := do("a", "three", backend.Cond{IfMatch: old.ETag})
		s.lesser(err)
		s.holds("a", map[bool][]byte{true: []byte("three"), false: []byte("two")}[err == nil])
		return
	}
	s.fails("creating what is there", do("a", "x", backend.Cond{IfAbsent: true}), backend.ErrPrecondition)
	s.fails("a stale ETag", do("a", "x", backend.Cond{IfMatch: old.ETag}), backend.ErrPrecondition)
	s.fails("nothing there", do("none", "x", backend.Cond{IfMatch: stale}), backend.ErrPrecondition)
	s.absent("none")
	s.holds("a", []byte("two"))
	if err := do("a", "three", backend.Cond{IfMatch: now.ETag}); err != nil {
		s.Error(err)
	}
	s.holds("a", []byte("three"))

	// The condition is that of the end, not of the beginning.
	asm := s.assemble(a, "late", backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	s.part(asm, 1, []byte("mine"))
	s.put("late", []byte("theirs"))
	_, err := asm.Complete(s.ctx)
	s.fails("somebody was first", err, backend.ErrPrecondition)
	if err := asm.Abort(s.ctx); err != nil {
		s.Error(err)
	}
	s.holds("late", []byte("theirs"))

	data := make([]string, 8)
	won := s.oneWinner(race(len(data), func(i int) error {
		data[i] = string(content(uint64(i), 100))
		return do("new", data[i], backend.Cond{IfAbsent: true})
	}))
	s.holds("new", []byte(data[won]))
}

func assemblyErrors(s *tester) {
	a, ok := backend.As[backend.Assembler](s.b)
	if !ok {
		return
	}
	n := s.partSize()
	asm := s.assemble(a, "a", backend.PutOptions{})
	s.fails("part 0", asm.PutPart(s.ctx, 0, backend.Bytes(nil)), backend.ErrInvalid)
	_, err := asm.Complete(s.ctx)
	s.fails("no parts", err, backend.ErrInvalid)
	s.part(asm, 1, content(1, n))
	s.part(asm, 3, []byte("tail"))
	_, err = asm.Complete(s.ctx)
	s.fails("no part 2", err, backend.ErrInvalid)
	s.absent("a")

	broken := errors.New("the disk is gone")
	err = asm.PutPart(s.ctx, 2, brokenSource{bytes.NewReader(nil), int64(n), broken})
	if !errors.Is(err, broken) {
		s.Errorf("a broken source: %v", err)
	}
	err = asm.PutPart(s.ctx, 2, brokenSource{bytes.NewReader(nil), int64(n), nil})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("a short source: %v", err)
	}
	_, err = asm.Complete(s.ctx)
	s.fails("still no part 2", err, backend.ErrInvalid)
	s.part(asm, 2, content(2, n))
	s.complete(asm)
	s.holds("a", slices.Concat(content(1, n), content(2, n), []byte("tail")))

	if d, ok := backend.As[backend.Discarder](s.b); ok {
		asm = s.assemble(a, "discarded", backend.PutOptions{})
		s.part(asm, 1, content(1, n))
		for range 2 { // the second finds nothing any more
			if err := d.Discard(s.ctx, s.key("discarded"), backend.AssemblyID(asm)); err != nil {
				s.Error(err)
			}
		}
		if _, err := asm.Complete(s.ctx); err == nil {
			s.Error("what was discarded is complete")
		}
		s.absent("discarded")
	}

	_, err = a.Assemble(s.ctx, s.key("a"), backend.PutOptions{Metadata: map[string]string{"a": "x\ny"}})
	s.fails("bad metadata", err, backend.ErrInvalid)
	if max := s.caps.MaxParts; max > 0 {
		asm = s.assemble(a, "b", backend.PutOptions{})
		s.fails("too many parts", asm.PutPart(s.ctx, max+1, backend.Bytes(nil)), backend.ErrTooLarge)
		if err := asm.Abort(s.ctx); err != nil {
			s.Error(err)
		}
	}
}
