package retry_test

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
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/backend/sched"
)

// one is a backend of one object, "k"; its ETag is its content.
type one struct {
	backend.Backend
	content string // empty: not there
}

func (o *one) check(op string, cond backend.Cond) error {
	switch {
	case cond.IfMatch != "" && o.content == "":
		return backend.Fail(op, "k", backend.ErrNotExist, nil)
	case cond.IfMatch != "" && o.content != cond.IfMatch, cond.IfAbsent && o.content != "":
		return backend.Fail(op, "k", backend.ErrPrecondition, nil)
	}
	return nil
}

func (o *one) Stat(context.Context, string) (backend.Info, error) {
	if o.content == "" {
		return backend.Info{}, backend.Fail("stat", "k", backend.ErrNotExist, nil)
	}
	return backend.Info{ETag: o.content}, nil
}

func (o *one) Get(_ context.Context, _ string, _ backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	return fn(backend.Info{ETag: o.content}, strings.NewReader(o.content))
}

func (o *one) Put(_ context.Context, _ string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := o.check("put", opts.Cond); err != nil {
		return backend.Info{}, err
	}
	data, err := io.ReadAll(io.NewSectionReader(src, 0, src.Size()))
	o.content = string(data)
	return backend.Info{ETag: o.content}, err
}

func (o *one) Delete(_ context.Context, _ string, cond backend.Cond) error {
	if err := o.check("delete", cond); err != nil {
		return err
	}
	o.content = ""
	return nil
}

func (o *one) Rename(_ context.Context, src, _ string, _ backend.Cond) (backend.Info, error) {
	if o.content == "" {
		return backend.Info{}, backend.Fail("rename", src, backend.ErrNotExist, nil)
	}
	o.content = ""
	return backend.Info{}, nil
}

// rig is retry(fault(one)).
func rig(content string, opts retry.Options, rules ...fault.Rule) (*one, *fault.Injector, backend.Backend) {
	inner, in := &one{content: content}, fault.New(rules...)
	return inner, in, retry.Wrap(in.Wrap(inner), opts)
}

func put(t *testing.T, b backend.Backend, content string, cond backend.Cond) error {
	_, err := b.Put(t.Context(), "k", backend.Bytes([]byte(content)), backend.PutOptions{Cond: cond})
	return err
}

func TestPassingFailuresAreRetriedAndOthersNot(t *testing.T) {
	for _, kind := range backend.Sentinels() {
		synctest.Test(t, func(t *testing.T) {
			_, in, b := rig("x", retry.Options{}, fault.Rule{Times: 3, Err: kind})
			info, err := b.Stat(t.Context(), "k")
			if backend.Retryable(kind) {
				if err != nil || info.ETag != "x" || in.Count("stat") != 4 {
					t.Errorf("%v: %v after %d attempts, want success at the fourth", kind, err, in.Count("stat"))
				}
			} else if !errors.Is(err, kind) || in.Count("stat") != 1 {
				t.Errorf("%v: %v after %d attempts, want it at once", kind, err, in.Count("stat"))
			}
		})
	}
}

func TestAttemptsAndTimeAreBounded(t *testing.T) {
	always := fault.Rule{Times: fault.Always, Err: backend.ErrUnreachable}
	synctest.Test(t, func(t *testing.T) {
		_, in, b := rig("x", retry.Options{MaxAttempts: 4}, always)
		if _, err := b.Stat(t.Context(), "k"); !errors.Is(err, backend.ErrUnreachable) || in.Count("stat") != 4 {
			t.Errorf("%v after %d attempts, want 4", err, in.Count("stat"))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, in, b := rig("x", retry.Options{MaxAttempts: 1e6, MaxElapsed: time.Minute, MaxDelay: time.Second}, always)
		began := time.Now()
		_, err := b.Stat(t.Context(), "k")
		took := time.Since(began)
		if !errors.Is(err, backend.ErrUnreachable) || took > time.Minute || took < 30*time.Second {
			t.Errorf("gave up after %v: %v", took, err)
		}
		if n := in.Count("stat"); n < 60 {
			t.Errorf("only %d attempts in a minute with waits of at most a second", n)
		}
	})
}

func TestWaitsAreRandomAndGrowUpToTheirBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var longest [8]time.Duration
		varied := false
		for range 200 {
			var at []time.Time
			_, _, b := rig("x", retry.Options{BaseDelay: time.Second, MaxDelay: 10 * time.Second, MaxElapsed: time.Hour, MaxAttempts: 9},
				fault.Rule{Times: fault.Always, Do: func(context.Context, *backend.Op) error {
					at = append(at, time.Now())
					return backend.ErrTransient
				}})
			b.Stat(t.Context(), "k")
			for i := range longest {
				wait := at[i+1].Sub(at[i])
				varied = varied || longest[i] != 0 && wait != longest[i]
				longest[i] = max(longest[i], wait)
			}
		}
		for i, got := range longest {
			limit := min(time.Second<<i, 10*time.Second)
			if got > limit || got < limit*8/10 {
				t.Errorf("the longest of 200 waits number %d was %v, want nearly %v", i+1, got, limit)
			}
		}
		if !varied {
			t.Error("all waits were the same")
		}
	})
}

func TestACancelledContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, b := rig("x", retry.Options{BaseDelay: time.Hour, MaxDelay: time.Hour, MaxElapsed: 24 * time.Hour},
			fault.Rule{Times: fault.Always, Err: backend.ErrTransient})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := b.Stat(ctx, "k")
		if !errors.Is(err, context.DeadlineExceeded) || backend.Retryable(err) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestABodyCutInTheMiddleIsReadAgainFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, in, b := rig("0123456789", retry.Options{}, fault.Rule{Op: "get", Times: 2, Cut: true, CutAfter: 5})
		data, _, err := backend.ReadAll(t.Context(), b, "k", 100)
		if string(data) != "0123456789" || err != nil || in.Count("get") != 3 {
			t.Errorf("%q, %v after %d attempts", data, err, in.Count("get"))
		}
	})
}

func TestAnErrorOfTheCallbackIsNotRetried(t *testing.T) {
	_, in, b := rig("x", retry.Options{})
	// Even one that looks as if it came from the store.
	mine := backend.Fail("get", "elsewhere", backend.ErrTransient, nil)
	err := b.Get(t.Context(), "k", backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
		io.Copy(io.Discard, body)
		return mine
	})
	if err != mine || in.Count("get") != 1 {
		t.Errorf("%v after %d attempts", err, in.Count("get"))
	}
}

func TestALostConditionAfterALostAnswerIsAmbiguous(t *testing.T) {
	lost := fault.Rule{Op: "write", After: true, Err: backend.ErrTransient}
	synctest.Test(t, func(t *testing.T) {
		inner, _, b := rig("", retry.Options{}, lost)
		err := put(t, b, "mine", backend.Cond{IfAbsent: true})
		if !errors.Is(err, backend.ErrPrecondition) || !errors.Is(err, backend.ErrAmbiguous) {
			t.Errorf("create: %v, want a precondition that may be our own doing", err)
		}
		if inner.content != "mine" {
			t.Errorf("content %q", inner.content)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, _, b := rig("old", retry.Options{}, lost)
		if err := put(t, b, "mine", backend.Cond{IfMatch: "old"}); !errors.Is(err, backend.ErrAmbiguous) {
			t.Errorf("overwrite: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, _, b := rig("old", retry.Options{}, lost)
		r, ok := backend.As[backend.Renamer](b)
		if !ok {
			t.Fatal("the power is hidden")
		}
		if _, err := r.Rename(t.Context(), "k", "l", backend.Cond{}); !errors.Is(err, backend.ErrNotExist) || !errors.Is(err, backend.ErrAmbiguous) {
			t.Errorf("rename: %v", err)
		}
	})
}

func TestALostConditionWithoutALostAnswerIsNotAmbiguous(t *testing.T) {
	for _, answered := range []error{nil, backend.ErrThrottled, backend.ErrUnreachable} {
		synctest.Test(t, func(t *testing.T) {
			_, _, b := rig("theirs", retry.Options{}, fault.Rule{Op: "write", Err: answered})
			err := put(t, b, "mine", backend.Cond{IfAbsent: true})
			if !errors.Is(err, backend.ErrPrecondition) || errors.Is(err, backend.ErrAmbiguous) {
				t.Errorf("after %v: %v", answered, err)
			}
		})
	}
}

func TestADeleteWhoseAnswerWasLostSucceeds(t *testing.T) {
	for _, cond := range []backend.Cond{{}, {IfMatch: "old"}} {
		synctest.Test(t, func(t *testing.T) {
			inner, in, b := rig("old", retry.Options{}, fault.Rule{Op: "delete", After: true, Err: backend.ErrTransient})
			if err := b.Delete(t.Context(), "k", cond); err != nil || inner.content != "" || in.Count("delete") != 2 {
				t.Errorf("%+v: %v after %d attempts", cond, err, in.Count("delete"))
			}
		})
	}
	_, _, b := rig("", retry.Options{})
	if err := b.Delete(t.Context(), "k", backend.Cond{IfMatch: "old"}); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("without a lost answer: %v", err)
	}
}

func TestBackingOffHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1})
		in := fault.New(fault.Rule{Key: "sick", Times: fault.Always, Err: backend.ErrTransient})
		b := retry.Wrap(s.Wrap(in.Wrap(&one{content: "x"}), "host"), retry.Options{BaseDelay: time.Hour, MaxDelay: time.Hour, MaxElapsed: 1e6 * time.Hour})
		done := make(chan error)
		go func() { _, err := b.Stat(t.Context(), "sick"); done <- err }()
		synctest.Wait()
		began := time.Now()
		if _, err := b.Stat(t.Context(), "k"); err != nil || time.Since(began) != 0 {
			t.Errorf("the healthy request waited %v: %v", time.Since(began), err)
		}
		if err := <-done; !errors.Is(err, backend.ErrTransient) {
			t.Error(err)
		}
		if !slices.Contains(in.Requests(), "STAT k") {
			t.Error("the healthy request never came through")
		}
	})
}
