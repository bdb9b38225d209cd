package fs

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// interruptible is the context of a request as go-fuse makes it.
func interruptible() (ctx context.Context, interrupt func()) {
	cancel := make(chan struct{})
	return &fuse.Context{Caller: fuse.Caller{Owner: fuse.Owner{Uid: 7}}, Cancel: cancel}, func() { close(cancel) }
}

func TestAnInterruptIsNotYetAReasonToGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := interruptible()
		inner, done := (&mounted{patience: time.Second}).patient(ctx)
		defer done()
		interrupt()
		time.Sleep(time.Second - time.Millisecond)
		synctest.Wait()
		if inner.Err() != nil {
			t.Error("given up before the patience was over")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if inner.Err() == nil {
			t.Error("an interrupted request still goes on after the patience")
		}
	})
}

func TestARequestThatNobodyInterruptsNeverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, _ := interruptible()
		inner, done := (&mounted{patience: time.Second}).patient(ctx)
		time.Sleep(time.Hour)
		synctest.Wait()
		if inner.Err() != nil {
			t.Error("given up without an interrupt")
		}
		if caller, ok := fuse.FromContext(inner); !ok || caller.Uid != 7 {
			t.Error("the caller is lost")
		}
		done()
		synctest.Wait() // nothing of it is left, or the test's end reports it
		if inner.Err() == nil {
			t.Error("the context lives on after its request")
		}
	})
}

func TestAnInterruptNeverStopsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := interruptible()
		inner := steadfast(ctx)
		interrupt()
		time.Sleep(time.Hour)
		if inner.Err() != nil {
			t.Error("a change was given up")
		}
		if caller, ok := fuse.FromContext(inner); !ok || caller.Uid != 7 {
			t.Error("the caller is lost")
		}
	})
}
