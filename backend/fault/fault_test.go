package fault_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
)

// shelf is a tiny backend that is easy to look into.
type shelf struct {
	backend.Backend
	objects map[string]string
}

func newShelf() *shelf { return &shelf{objects: map[string]string{"main/a": "0123456789"}} }

func (s *shelf) Stat(_ context.Context, key string) (backend.Info, error) {
	if _, ok := s.objects[key]; !ok {
		return backend.Info{}, backend.Fail("stat", key, backend.ErrNotExist, nil)
	}
	return backend.Info{Key: key}, nil
}

func (s *shelf) Get(_ context.Context, key string, _ backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	return fn(backend.Info{Key: key}, strings.NewReader(s.objects[key]))
}

func (s *shelf) Put(_ context.Context, key string, src backend.Source, _ backend.PutOptions) (backend.Info, error) {
	data, err := io.ReadAll(io.NewSectionReader(src, 0, src.Size()))
	s.objects[key] = string(data)
	return backend.Info{Key: key}, err
}

func (s *shelf) Delete(_ context.Context, key string, _ backend.Cond) error {
	delete(s.objects, key)
	return nil
}

func (s *shelf) ListPage(context.Context, backend.ListOptions) (backend.Page, error) {
	return backend.Page{}, nil
}

func put(t *testing.T, b backend.Backend, key string) error {
	_, err := b.Put(t.Context(), key, backend.Bytes([]byte("new")), backend.PutOptions{})
	return err
}

func TestARuleStrikesTheRequestsItSelects(t *testing.T) {
	shelf := newShelf()
	in := fault.New(fault.Rule{Op: "put", Key: "main/*.txt", From: 2, Times: 2, Err: backend.ErrThrottled})
	b := in.Wrap(shelf)
	var struck []string
	for _, key := range []string{"main/1.txt", "main/x", "main/sub/2.txt", "dev/3.txt", "main/4.txt", "main/5.txt"} {
		err := put(t, b, key)
		if err != nil {
			struck = append(struck, key)
			if !errors.Is(err, backend.ErrThrottled) {
				t.Errorf("%s: %v", key, err)
			}
		}
		if _, stored := shelf.objects[key]; stored != (err == nil) {
			t.Errorf("%s: stored %v, error %v", key, stored, err)
		}
	}
	if want := []string{"main/sub/2.txt", "main/4.txt"}; !slices.Equal(struck, want) {
		t.Errorf("struck %v, want %v", struck, want)
	}
	if in.Fired() != 2 {
		t.Errorf("Fired() = %d", in.Fired())
	}
}

func TestKindsOfOperation(t *testing.T) {
	in := fault.New(fault.Rule{Op: "write", Times: fault.Always, Err: backend.ErrPermission})
	b := in.Wrap(newShelf())
	for range 3 {
		if err := put(t, b, "k"); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("put: %v", err)
		}
		if err := b.Delete(t.Context(), "k", backend.Cond{}); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("delete: %v", err)
		}
		if _, err := b.Stat(t.Context(), "main/a"); err != nil {
			t.Errorf("stat: %v", err)
		}
	}
	in.Clear()
	in.Add(fault.Rule{Op: "read", Err: backend.ErrPermission})
	if err := put(t, b, "k"); err != nil {
		t.Errorf("put after the rule is gone: %v", err)
	}
	if _, err := b.Stat(t.Context(), "main/a"); !errors.Is(err, backend.ErrPermission) {
		t.Errorf("stat: %v", err)
	}
}

func TestALostAnswerTakesEffect(t *testing.T) {
	shelf := newShelf()
	b := fault.New(fault.Rule{Op: "put", After: true, Err: backend.ErrTransient}).Wrap(shelf)
	if err := put(t, b, "k"); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("put: %v", err)
	}
	if shelf.objects["k"] != "new" {
		t.Error("the put did not take effect")
	}
	b = fault.New(fault.Rule{Op: "stat", After: true, Err: backend.ErrTransient}).Wrap(shelf)
	if _, err := b.Stat(t.Context(), "none"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("a request that failed by itself must keep its error: %v", err)
	}
}

func TestACutBodyGivesItsBytesAndThenFails(t *testing.T) {
	for _, n := range []int64{0, 4, 10} {
		b := fault.New(fault.Rule{Op: "get", Cut: true, CutAfter: n}).Wrap(newShelf())
		read := func() (data []byte, err error) {
			err = b.Get(t.Context(), "main/a", backend.GetOptions{}, func(_ backend.Info, body io.Reader) (err error) {
				data, err = io.ReadAll(body)
				return err
			})
			return data, err
		}
		if data, err := read(); string(data) != "0123456789"[:n] || !errors.Is(err, backend.ErrTransient) {
			t.Errorf("cut after %d: %q, %v", n, data, err)
		}
		if data, err := read(); string(data) != "0123456789" || err != nil {
			t.Errorf("the get after it: %q, %v", data, err)
		}
	}
}

func TestDelayPassesOrTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fault.New(fault.Rule{Delay: time.Second, Times: fault.Always}).Wrap(newShelf())
		began := time.Now()
		if err := put(t, b, "k"); err != nil || time.Since(began) != time.Second {
			t.Errorf("put took %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := b.Stat(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stat: %v", err)
		}
	})
}

func TestDoRunsInThePlaceOfTheFault(t *testing.T) {
	for _, after := range []bool{false, true} {
		shelf := newShelf()
		mine := errors.New("mine")
		var seen string
		b := fault.New(fault.Rule{Op: "put", After: after, Do: func(_ context.Context, op *backend.Op) error {
			seen = shelf.objects[op.Key]
			return mine
		}}).Wrap(shelf)
		if err := put(t, b, "main/a"); !errors.Is(err, mine) {
			t.Errorf("put: %v", err)
		}
		if want := map[bool]string{false: "0123456789", true: "new"}[after]; seen != want {
			t.Errorf("after=%v: Do saw %q, want %q", after, seen, want)
		}
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	in := fault.New(fault.Rule{Op: "delete", Err: backend.ErrIO})
	b, other := in.Wrap(newShelf()), in.Wrap(newShelf())
	b.Put(t.Context(), "main/a", backend.Bytes(nil), backend.PutOptions{Cond: backend.Cond{IfAbsent: true}})
	b.Delete(t.Context(), "main/a", backend.Cond{IfMatch: "e"})
	other.ListPage(t.Context(), backend.ListOptions{Prefix: "main/"})
	b.ListPage(t.Context(), backend.ListOptions{})
	want := []string{"PUT main/a if-absent", "DELETE main/a if-match", "LIST main/", "LIST"}
	if got := in.Requests(); !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if in.Count("list") != 2 || in.Count("") != 4 || in.Count("li") != 0 {
		t.Errorf("counts: %d lists, %d in all", in.Count("list"), in.Count(""))
	}
	in.ResetRequests()
	if got := in.Requests(); len(got) != 0 {
		t.Errorf("after the reset: %q", got)
	}
}

func TestSweepFailsEachRequestOnceAndEndsUntouched(t *testing.T) {
	var failed []string
	rounds := 0
	for n, in := range fault.Sweep(fault.Rule{Err: backend.ErrIO}) {
		rounds++
		b := in.Wrap(newShelf())
		scenario := func() error {
			if _, err := b.Stat(t.Context(), "main/a"); err != nil {
				return err
			}
			if err := put(t, b, "main/b"); err != nil {
				return err
			}
			return b.Delete(t.Context(), "main/a", backend.Cond{})
		}
		err := scenario()
		if (n == 4) != (err == nil) {
			t.Errorf("round %d: %v", n, err)
		}
		if err != nil {
			failed = append(failed, in.Requests()[len(in.Requests())-1])
		}
	}
	if want := []string{"STAT main/a", "PUT main/b", "DELETE main/a"}; !slices.Equal(failed, want) || rounds != 4 {
		t.Errorf("%d rounds failed %q, want 4 and %q", rounds, failed, want)
	}
}

func TestKeyPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab/c", true}, {"*a", "ba", true}, {"*a", "ab", false},
		{"a*b", "ab", true}, {"a*b*c", "a/b/c", true}, {"a*b*c", "a/c/b", false}, {"ab*ba", "aba", false},
		{"*", "", true}, {"*/x/*", "m/x/y", true}, {"*/x/*", "x/y", false}, {"[a]", "[a]", true},
	} {
		in := fault.New(fault.Rule{Key: c.pattern})
		in.Wrap(newShelf()).Stat(t.Context(), c.key)
		if got := in.Fired() == 1; got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.key, got)
		}
	}
}
