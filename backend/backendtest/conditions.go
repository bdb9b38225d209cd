package backendtest

import (
	"errors"
	"fmt"

	"github.com/keifs/keifs/backend"
)

// stale has the form of an ETag, and is none of an object here.
const stale = "0123456789abcdef0123456789abcdef"

// lesser checks a call with a condition that Caps says is not honoured: it is
// refused, or ignored, or kept by chance.
func (s *tester) lesser(err error) {
	s.Helper()
	if err != nil && !errors.Is(err, backend.ErrUnsupported) && !errors.Is(err, backend.ErrPrecondition) {
		s.Errorf("a condition that is not honoured gives %v", err)
	}
}

func (s *tester) putIf(name, data string, cond backend.Cond) (backend.Info, error) {
	return s.b.Put(s.ctx, s.key(name), backend.Bytes([]byte(data)), backend.PutOptions{Cond: cond})
}

func conditionalCreate(s *tester) {
	absent := backend.Cond{IfAbsent: true}
	if !s.caps.CondCreate {
		s.put("a", []byte("old"))
		_, err := s.putIf("a", "new", absent)
		s.lesser(err)
		s.holds("a", map[bool][]byte{true: []byte("new"), false: []byte("old")}[err == nil])
		return
	}
	if _, err := s.putIf("a", "first", absent); err != nil {
		s.Fatal(err)
	}
	_, err := s.putIf("a", "second", absent)
	s.fails("a second creation", err, backend.ErrPrecondition)
	s.holds("a", []byte("first"))
	s.put("empty", nil)
	_, err = s.putIf("empty", "", absent)
	s.fails("creating what is there, though empty", err, backend.ErrPrecondition)
	if err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{}); err != nil {
		s.Fatal(err)
	}
	if _, err := s.putIf("a", "again", absent); err != nil {
		s.Errorf("creating what was deleted: %v", err)
	}
	if _, err := s.putIf("marker/", "", absent); err != nil {
		s.Error(err)
	}
	_, err = s.putIf("marker/", "", absent)
	s.fails("a second marker", err, backend.ErrPrecondition)

	for round := range 3 {
		name := fmt.Sprintf("race-%d", round)
		won := s.oneWinner(race(16, func(i int) error {
			_, err := s.putIf(name, fmt.Sprint("by ", i), absent)
			return err
		}))
		s.holds(name, fmt.Append(nil, "by ", won))
	}
}

func conditionalOverwrite(s *tester) {
	old := s.put("a", []byte("one"))
	now := s.put("a", []byte("two"))
	if !s.caps.CondOverwrite {
		_, err := s.putIf("a", "three", backend.Cond{IfMatch: old.ETag})
		s.lesser(err)
		s.holds("a", map[bool][]byte{true: []byte("three"), false: []byte("two")}[err == nil])
		return
	}
	_, err := s.putIf("a", "three", backend.Cond{IfMatch: old.ETag})
	s.fails("a stale ETag", err, backend.ErrPrecondition)
	s.holds("a", []byte("two"))
	_, err = s.putIf("none", "x", backend.Cond{IfMatch: stale})
	s.fails("an object that is not there", err, backend.ErrPrecondition)
	s.absent("none")
	next, err := s.putIf("a", "three", backend.Cond{IfMatch: now.ETag})
	if err != nil {
		s.Fatal(err)
	}
	s.holds("a", []byte("three"))

	for round := range 3 {
		data := make([]string, 16)
		won := s.oneWinner(race(16, func(i int) error {
			data[i] = fmt.Sprint("round ", round, " by ", i)
			_, err := s.putIf("a", data[i], backend.Cond{IfMatch: next.ETag})
			return err
		}))
		s.holds("a", []byte(data[won]))
		if next, err = s.b.Stat(s.ctx, s.key("a")); err != nil {
			s.Fatal(err)
		}
	}
}

func conditionalDelete(s *tester) {
	old := s.put("a", []byte("one"))
	now := s.put("a", []byte("two"))
	err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{IfMatch: old.ETag})
	if !s.caps.CondDelete {
		s.lesser(err)
		if err == nil {
			s.absent("a")
		} else {
			s.holds("a", []byte("two"))
		}
		return
	}
	s.fails("a stale ETag", err, backend.ErrPrecondition)
	s.holds("a", []byte("two"))
	s.fails("nothing there", s.b.Delete(s.ctx, s.key("none"), backend.Cond{IfMatch: stale}), backend.ErrNotExist)
	if err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{IfMatch: now.ETag}); err != nil {
		s.Error(err)
	}
	s.absent("a")
}

func conditionalBatch(s *tester) {
	d, ok := backend.As[backend.BatchDeleter](s.b)
	if !ok {
		return
	}
	old := s.put("changed", []byte("one"))
	s.put("changed", []byte("two"))
	same := s.put("same", []byte("one"))
	s.put("any", []byte("one"))
	errs, err := d.DeleteBatch(s.ctx, []backend.Deletion{
		{Key: s.key("changed"), IfMatch: old.ETag}, {Key: s.key("same"), IfMatch: same.ETag},
		{Key: s.key("any")}, {Key: s.key("none"), IfMatch: stale},
	})
	if !s.caps.CondBatch {
		if err == nil {
			err = errs[0]
		}
		s.lesser(err)
		return
	}
	if err != nil || len(errs) != 4 {
		s.Fatal(errs, err)
	}
	s.fails("a stale ETag", errs[0], backend.ErrPrecondition)
	s.holds("changed", []byte("two"))
	for i, name := range []string{"same", "any"} {
		if errs[i+1] != nil {
			s.Error(errs[i+1])
		}
		s.absent(name)
	}
	if errs[3] != nil {
		s.fails("nothing there", errs[3], backend.ErrNotExist)
	}
}

func malformedConditions(s *tester) {
	info := s.put("a", []byte("a"))
	_, err := s.putIf("a", "b", backend.Cond{IfAbsent: true, IfMatch: info.ETag})
	s.fails("two conditions", err, backend.ErrInvalid)
	s.fails("deleting what is absent", s.b.Delete(s.ctx, s.key("a"), backend.Cond{IfAbsent: true}), backend.ErrInvalid)
	s.holds("a", []byte("a"))
}
