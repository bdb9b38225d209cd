package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/keifs/keifs/store"
)

func TestConcurrentAskersShareOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[string, int]
		calls, answer := 0, make(chan int)
		ask := func(ctx context.Context) (int, bool, error) {
			return g.do(ctx, "k", func(ctx context.Context, _ func() bool) (int, error) {
				calls++
				select {
				case n := <-answer:
					return n, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			})
		}
		impatient, cancel := context.WithCancel(t.Context())
		go func() {
			if _, _, err := ask(impatient); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		}()
		synctest.Wait()
		got := make(chan int, 10)
		for range 10 {
			go func() {
				n, shared, err := ask(t.Context())
				if err != nil || !shared {
					t.Errorf("shared %v, error %v", shared, err)
				}
				got <- n
			}()
		}
		synctest.Wait()
		cancel() // the one that began it leaves; the others still get the answer
		synctest.Wait()
		answer <- 7
		for range 10 {
			if n := <-got; n != 7 {
				t.Errorf("answer %d", n)
			}
		}
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestWorkThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[string, int]
		ended := false
		ctx, cancel := context.WithCancel(t.Context())
		go g.do(ctx, "k", func(ctx context.Context, _ func() bool) (int, error) {
			<-ctx.Done()
			ended = true
			return 0, ctx.Err()
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !ended {
			t.Error("it goes on")
		}
		g.close()
		if _, _, err := g.do(t.Context(), "k", nil); !errors.Is(err, store.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestWhoAsksAfterAChangeDoesNotShareAnAnswerFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[string, string]
		go1 := make(chan struct{})
		var old string
		var oldFresh bool
		go func() {
			old, _, _ = g.do(t.Context(), "k", func(_ context.Context, fresh func() bool) (string, error) {
				<-go1
				oldFresh = fresh()
				return "before", nil
			})
		}()
		synctest.Wait()
		g.spoil(func(k string) bool { return k == "k" })
		now, shared, _ := g.do(t.Context(), "k", func(_ context.Context, fresh func() bool) (string, error) {
			if !fresh() {
				t.Error("a new answer is not fresh")
			}
			return "after", nil
		})
		if now != "after" || shared {
			t.Errorf("got %q, shared %v", now, shared)
		}
		close(go1)
		synctest.Wait()
		if old != "before" || oldFresh {
			t.Errorf("the old answer is %q, fresh %v", old, oldFresh)
		}
	})
}

func TestCloseEndsWorkThatIsNotSharedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[string, int]
		go func() {
			_, _, err := g.do(t.Context(), "k", func(ctx context.Context, _ func() bool) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		}()
		synctest.Wait()
		g.spoil(func(string) bool { return true })
		g.close()
	})
}
