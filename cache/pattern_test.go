package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const kib, mib = 1 << 10, 1 << 20

// alone is the budget of the only stream.
var alone = budget{maxWindow, 1, maxPiece}

// feed notes reads of n bytes at the offsets, and returns which of them were
// found to belong to a stream.
func feed(p *pattern, n int64, offs ...int64) (streams []bool) {
	for _, off := range offs {
		t, _ := p.note(off, off+n)
		if t != nil {
			t.plan(off, off+n, 1<<40, alone)
		}
		streams = append(streams, t != nil)
	}
	return streams
}

func TestWhichReadsAreAStream(t *testing.T) {
	for what, c := range map[string]struct {
		n    int64
		offs []int64
		want []bool
	}{
		"sequential":                      {mib, []int64{0, mib, 2 * mib}, []bool{false, true, true}},
		"sequential, somewhere":           {kib, []int64{77777, 77777 + kib}, []bool{false, true}},
		"the first two change places":     {mib, []int64{mib, 0, 2 * mib, 3 * mib}, []bool{false, false, true, true}},
		"later ones change places":        {mib, []int64{0, mib, 3 * mib, 2 * mib, 4 * mib}, []bool{false, true, true, true, true}},
		"forward within the window":       {mib, []int64{0, mib, 4 * mib, 5 * mib}, []bool{false, true, true, true}},
		"far forward":                     {mib, []int64{0, mib, 100 * mib, 101 * mib}, []bool{false, true, false, true}},
		"backward":                        {mib, []int64{9 * mib, 8 * mib, 7 * mib, 6 * mib}, []bool{false, false, true, true}},
		"two streams in turn":             {mib, []int64{0, 500 * mib, mib, 501 * mib, 2 * mib, 502 * mib}, []bool{false, false, true, true, true, true}},
		"the same again":                  {mib, []int64{0, 0, 0}, []bool{false, false, false}},
		"a hole between, without a habit": {mib, []int64{0, 2 * mib, 4 * mib}, []bool{false, false, false}},
	} {
		if got := feed(new(pattern), c.n, c.offs...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestReadsAtRandomAreNoStream(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := new(pattern)
	for range 10_000 {
		off := r.Int64N(1<<18) * 4096
		if s, _ := p.note(off, off+4096); s != nil && s.up+s.down > 2 {
			t.Fatalf("a stream at %d: %+v", off, s)
		}
	}
}

func TestAStreamThatIsLeftIsGivenUp(t *testing.T) {
	p := new(pattern)
	feed(p, mib, 0, mib, 2*mib)
	for i := range int64(patience) {
		_, gone := p.note((100+10*i)*mib, (100+10*i)*mib+1)
		if given := slices.ContainsFunc(gone, (*track).stream); given != (i == patience-1) {
			t.Errorf("after %d other reads: %v", i+1, given)
		}
	}
}

func TestAStrideIsSeenAfterThreeSteps(t *testing.T) {
	p := new(pattern)
	const size = 100 * mib
	for i, want := range []int{0, 0, 0, 5, 4} { // as many as are left of the file
		off := int64(15+10*i) * mib
		p.note(off, off+4096)
		got := p.strided(off, off+4096, size)
		if len(got) != want {
			t.Errorf("after %d reads: %v, want %d", i+1, got, want)
		}
		if len(got) > 0 && got[0] != (extent{off + 10*mib, off + 10*mib + 4096}) {
			t.Errorf("after %d reads: %v", i+1, got)
		}
	}
}

func TestTheWindowGrowsWhileItIsUsedUp(t *testing.T) {
	p := new(pattern)
	var windows []int64
	fetched := int64(0)
	for off := int64(0); off < 300*mib; off += mib {
		s, _ := p.note(off, off+mib)
		if s == nil {
			fetched = off + mib
			continue
		}
		for _, e := range s.plan(off, off+mib, 300*mib, alone) {
			if e.off != fetched || e.end-e.off > maxPiece {
				t.Fatalf("at %d MiB: %v after %d", off/mib, e, fetched)
			}
			fetched = e.end
		}
		if fetched > off+mib+s.window {
			t.Errorf("at %d MiB: fetched to %d MiB with a window of %d MiB", off/mib, fetched/mib, s.window/mib)
		}
		if len(windows) == 0 || windows[len(windows)-1] != s.window/mib {
			windows = append(windows, s.window/mib)
		}
	}
	if want := []int64{4, 8, 16, 32, 64}; !slices.Equal(windows, want) {
		t.Errorf("windows %v, want %v", windows, want)
	}
	if fetched != 300*mib {
		t.Errorf("fetched to %d", fetched)
	}
}

func TestABackwardStreamIsFetchedDownToTheBegin(t *testing.T) {
	p := new(pattern)
	const size = 50*mib + 5
	lowest := int64(0)
	for off := int64(size - mib); off > 0; off -= mib {
		s, _ := p.note(off, off+mib)
		if s == nil {
			continue
		}
		for _, e := range s.plan(off, off+mib, size, alone) {
			if lowest != 0 && e.end != lowest {
				t.Fatalf("%v above %d", e, lowest)
			}
			lowest = e.off
			if lowest == 0 && e.end == 0 {
				t.Fatal("an empty piece")
			}
		}
	}
	if got := p.tracks[0].ahead; got != 0 {
		t.Errorf("fetched down to %d", got)
	}
}

func TestAWindowKeepsToItsShare(t *testing.T) {
	p := new(pattern)
	feed(p, mib, 0)
	for off := int64(mib); off < 100*mib; off += mib {
		s, _ := p.note(off, off+mib)
		s.plan(off, off+mib, 1<<40, budget{6 * mib, 10, maxPiece})
		if s.window > 6*mib || s.ahead > off+mib+6*mib {
			t.Fatalf("at %d MiB: window %d, ahead to %d", off/mib, s.window, s.ahead)
		}
	}
}

func TestSlowConnectionsTakeManyRequests(t *testing.T) {
	for _, c := range []struct {
		rate            float64 // bytes a second of a connection
		window, streams int64
		piece           int64 // MiB
	}{
		{0, 4, 1, 1}, {0, 64, 1, 4},
		{90e6, 4, 1, 1}, {90e6, 16, 1, 2}, {90e6, 64, 1, 8}, {90e6, 16, 4, 4}, {90e6, 2, 32, 1},
		{15e6, 64, 1, 2}, {15e6, 16, 4, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s speed
			if c.rate > 0 {
				ask(&s, speedSample, c.rate)
				ask(&s, speedSample, c.rate/2) // nor is it the latest one that counts
			}
			ask(&s, speedSample/2, 1e12) // too little to tell
			for range speedAlone {
				defer s.ask(0)(nil)
			}
			ask(&s, speedSample, 1e12) // one of many, whose times tell nothing
			b := budget{c.window * mib, c.streams, s.largest()}
			if got := b.piece(b.window); got != c.piece*mib {
				t.Errorf("%+v: %d bytes", c, got)
			}
		})
	}
}

func ask(s *speed, bytes int64, rate float64) {
	answered := s.ask(bytes)
	time.Sleep(time.Duration(float64(bytes) / rate * float64(time.Second)))
	answered(nil)
}
