package sched_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/sched"
)

// gate is a backend whose Stat runs what the key maps to.
type gate struct {
	backend.Backend
	stat func(ctx context.Context, key string) error
}

func (g *gate) Stat(ctx context.Context, key string) (backend.Info, error) {
	return backend.Info{Key: key}, g.stat(ctx, key)
}

func (g *gate) Get(ctx context.Context, key string, _ backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	return fn(backend.Info{Key: key}, nil)
}

// meter counts how many requests run at once.
type meter struct {
	mu       sync.Mutex
	now, top int
	order    []string
}

func (m *meter) stat(d time.Duration) func(context.Context, string) error {
	return func(_ context.Context, key string) error {
		m.mu.Lock()
		m.now++
		m.top = max(m.top, m.now)
		m.order = append(m.order, key)
		m.mu.Unlock()
		time.Sleep(d)
		m.mu.Lock()
		m.now--
		m.mu.Unlock()
		return nil
	}
}

func checkIdle(t *testing.T, s *sched.Scheduler) {
	t.Helper()
	st := s.Stats()
	if st.InFlight != 0 || st.Waiting != [3]int{} {
		t.Errorf("a slot or a waiter leaked: %+v", st)
	}
	for name, h := range st.Hosts {
		if h.InFlight != 0 {
			t.Errorf("a slot of host %s leaked: %+v", name, h)
		}
	}
}

func TestOneBoundForAllStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 5, Window: 5})
		m := &meter{}
		one := s.Wrap(&gate{stat: m.stat(time.Second)}, "one")
		two := s.Wrap(&gate{stat: m.stat(time.Second)}, "two")
		var wg sync.WaitGroup
		for i := range 50 {
			for _, b := range []backend.Backend{one, two} {
				wg.Go(func() {
					if _, err := b.Stat(t.Context(), fmt.Sprint(i)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		synctest.Wait()
		st := s.Stats()
		if st.InFlight != 5 || st.Waiting != [3]int{95, 0, 0} || st.Slots != 5 {
			t.Errorf("stats under load: %+v", st)
		}
		wg.Wait()
		if m.top != 5 {
			t.Errorf("%d requests at once, want exactly the bound of 5", m.top)
		}
		checkIdle(t, s)
	})
}

func TestTwoStoresShareOneSlotWithoutDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1})
		m := &meter{}
		one := s.Wrap(&gate{stat: m.stat(time.Millisecond)}, "one")
		two := s.Wrap(&gate{stat: m.stat(time.Millisecond)}, "two")
		var wg sync.WaitGroup
		for range 20 {
			// Each worker goes from one store to the other and back, as a
			// copy between two buckets does.
			wg.Go(func() {
				for _, b := range []backend.Backend{one, two, one, two} {
					if err := b.Get(t.Context(), "k", backend.GetOptions{}, func(backend.Info, io.Reader) error {
						time.Sleep(time.Millisecond)
						return nil
					}); err != nil {
						t.Error(err)
					}
					if _, err := b.Stat(t.Context(), "k"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait() // synctest fails the test when everything is blocked
		if m.top != 1 {
			t.Errorf("%d requests at once with one slot", m.top)
		}
		checkIdle(t, s)
	})
}

// enqueue starts the keys one after another behind a request that holds the
// only slot, lets all run, and returns the order in which they did.
func enqueue(t *testing.T, s *sched.Scheduler, hold time.Duration, keys ...string) []string {
	m := &meter{}
	b := s.Wrap(&gate{stat: m.stat(time.Millisecond)}, "host")
	holder := s.Wrap(&gate{stat: func(context.Context, string) error { time.Sleep(hold); return nil }}, "host")
	var wg sync.WaitGroup
	wg.Go(func() { holder.Stat(t.Context(), "holder") })
	synctest.Wait()
	for _, key := range keys {
		p := map[byte]backend.Priority{'i': backend.Interactive, 'r': backend.ReadAhead, 'b': backend.Background}[key[0]]
		wg.Go(func() { b.Stat(backend.WithPriority(t.Context(), p), key) })
		synctest.Wait()
	}
	wg.Wait()
	checkIdle(t, s)
	return m.order
}

func TestUrgentRequestsGoFirstAndEqualOnesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1})
		got := enqueue(t, s, time.Millisecond, "b1", "r1", "i1", "b2", "r2", "i2")
		if want := []string{"i1", "i2", "r1", "r2", "b1", "b2"}; !slices.Equal(got, want) {
			t.Errorf("served %v, want %v", got, want)
		}
	})
}

func TestNoPriorityStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1, Patience: time.Second})
		keys := []string{"b1", "b2"}
		for i := range 30 {
			keys = append(keys, fmt.Sprint("i", i))
		}
		got := enqueue(t, s, 2*time.Second, keys...)
		if i, j := slices.Index(got, "b1"), slices.Index(got, "b2"); i != 7 || j != 15 {
			t.Errorf("aged background requests were served as number %d and %d, want every eighth: %v", i, j, got)
		}
	})
}

func TestALongQueueOfAgedUploadsDoesNotBlockThePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1, Patience: time.Second})
		var keys []string
		for i := range 100 {
			keys = append(keys, fmt.Sprint("b", i))
		}
		got := enqueue(t, s, time.Minute, append(keys, "i")...)
		if i := slices.Index(got, "i"); i != 0 {
			t.Errorf("the interactive request was served as number %d", i)
		}
	})
}

func TestAFullHostDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 10, Window: 2})
		release := make(chan struct{})
		slow := s.Wrap(&gate{stat: func(context.Context, string) error { <-release; return nil }}, "slow")
		fast := s.Wrap(&gate{stat: func(context.Context, string) error { return nil }}, "fast")
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { slow.Stat(t.Context(), "") })
		}
		synctest.Wait()
		if st := s.Stats(); st.Hosts["slow"].InFlight != 2 || st.Waiting[backend.Interactive] != 3 {
			t.Errorf("a window of 2 admits: %+v", st)
		}
		if _, err := fast.Stat(backend.WithPriority(t.Context(), backend.Background), ""); err != nil {
			t.Error(err)
		}
		close(release)
		wg.Wait()
		checkIdle(t, s)
	})
}

func TestThrottlingHalvesTheWindowAndSuccessRegrowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 100, Window: 64, Cooldown: time.Second})
		var answer error
		b := s.Wrap(&gate{stat: func(context.Context, string) error { time.Sleep(100 * time.Millisecond); return answer }}, "host")
		s.Wrap(&gate{}, "other")
		burst := func(n int) {
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() { b.Stat(t.Context(), "") })
			}
			wg.Wait()
		}
		window := func() int { return s.Stats().Hosts["host"].Window }

		answer = backend.Fail("stat", "", backend.ErrThrottled, nil)
		burst(64)
		if w := window(); w != 32 {
			t.Errorf("one burst of throttling cut the window from 64 to %d, want 32", w)
		}
		burst(32) // within the cooldown
		if w := window(); w != 32 {
			t.Errorf("throttling within the cooldown cut the window to %d", w)
		}
		for range 20 {
			time.Sleep(time.Second)
			burst(1)
		}
		if w := window(); w != 1 {
			t.Errorf("lasting throttling cut the window to %d, want 1", w)
		}
		if st := s.Stats(); st.Hosts["host"].Throttled != 64+32+20 || st.Hosts["other"].Window != 64 {
			t.Errorf("stats: %+v", st)
		}

		answer = backend.Fail("stat", "", backend.ErrTransient, nil)
		burst(50)
		if w := window(); w != 1 {
			t.Errorf("failures without an answer moved the window to %d", w)
		}

		answer = nil
		for range 50 {
			burst(1)
		}
		if w := window(); w != 2 {
			t.Errorf("a window of which only one place was used grew to %d, want 2", w)
		}
		answer = backend.Fail("stat", "", backend.ErrNotExist, nil) // an answer like any other
		burst(6000)
		if w := window(); w != 100 {
			t.Errorf("lasting success grew the window to %d, want 100, all slots", w)
		}
		checkIdle(t, s)
	})
}

func TestRequestsFromBeforeACutDoNotCutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 8, Window: 8, Cooldown: time.Millisecond})
		b := s.Wrap(&gate{stat: func(_ context.Context, key string) error {
			d, _ := time.ParseDuration(key)
			time.Sleep(d)
			return backend.ErrThrottled
		}}, "host")
		var wg sync.WaitGroup
		for _, d := range []string{"1s", "2s", "3s", "4s"} {
			wg.Go(func() { b.Stat(t.Context(), d) })
		}
		wg.Wait()
		if w := s.Stats().Hosts["host"].Window; w != 4 {
			t.Errorf("four late answers to one burst cut the window from 8 to %d, want 4", w)
		}
	})
}

func TestCancelledWaitersLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 1})
		release := make(chan struct{})
		ran := 0
		b := s.Wrap(&gate{stat: func(_ context.Context, key string) error {
			if key == "holder" {
				<-release
			}
			ran++
			return nil
		}}, "host")
		var wg sync.WaitGroup
		wg.Go(func() { b.Stat(t.Context(), "holder") })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			wg.Go(func() {
				if _, err := b.Stat(ctx, "x"); !errors.Is(err, context.Canceled) {
					t.Errorf("a cancelled waiter got %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if st := s.Stats(); st.Waiting != [3]int{} || st.InFlight != 1 {
			t.Errorf("after cancelling: %+v", st)
		}
		if _, err := b.Stat(ctx, "x"); !errors.Is(err, context.Canceled) {
			t.Errorf("a request of a dead context got %v", err)
		}
		close(release)
		wg.Wait()
		if ran != 1 {
			t.Errorf("%d requests ran, want only the holder", ran)
		}
		checkIdle(t, s)
	})
}

// A waiter may be cancelled in the very moment in which it gets its slot.
func TestCancellingAtTheMomentOfTheGrantLeaksNoSlot(t *testing.T) {
	s := sched.New(sched.Options{Slots: 2})
	b := s.Wrap(&gate{stat: func(context.Context, string) error { return nil }}, "host")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				if _, err := b.Stat(ctx, ""); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	checkIdle(t, s)
}

func TestAPanicReleasesItsSlot(t *testing.T) {
	s := sched.New(sched.Options{Slots: 1})
	b := s.Wrap(&gate{stat: func(context.Context, string) error { panic("no") }}, "host")
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			b.Stat(t.Context(), "")
		}()
	}
	checkIdle(t, s)
}

// Under a random load of everything at once the bounds hold and all ends.
func TestTheBoundHoldsUnderAnyMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sched.New(sched.Options{Slots: 7, Window: 4, Cooldown: time.Millisecond, Patience: 20 * time.Millisecond})
		m := &meter{}
		hold := m.stat(3 * time.Millisecond)
		var wg sync.WaitGroup
		for i := range 900 {
			b := s.Wrap(&gate{stat: func(ctx context.Context, key string) error {
				hold(ctx, key)
				return []error{nil, backend.ErrThrottled, backend.ErrTransient, backend.ErrNotExist, nil, nil}[i%6]
			}}, fmt.Sprint("host", i%3))
			ctx := backend.WithPriority(t.Context(), backend.Priority(i%4-1))
			if i%11 == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(i)*time.Millisecond/2)
				defer cancel()
			}
			wg.Go(func() { b.Stat(ctx, "") })
		}
		wg.Wait()
		if m.top > 7 {
			t.Errorf("%d requests at once, more than the bound of 7", m.top)
		}
		checkIdle(t, s)
	})
}
