package store

import (
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// A listing tells of an object its version, its size and when the store took
// it, and no attributes. Those that were once told are still its own where all
// three are the same, unless they can change without a trace: on a store whose
// ETag is that of the content, within the second in which it took the object,
// as most have their times in whole seconds. So attributes that are told so soon
// prove nothing for later, not even to the host that has stored them: another
// one may have stored the same content right after.

const (
	// settleAfter is for how long an object is new: the second in which it was
	// taken, and what the clocks of a store's machines may be apart.
	settleAfter = 3 * time.Second
	// settleFine is the same where times are finer than seconds.
	settleFine = 100 * time.Millisecond
)

// Times are a span of a store's clock, in nanoseconds since 1970, both ends
// included. The zero value has none.
type Times struct{ First, Last int64 }

// Has says whether t is one of them.
func (s Times) Has(t time.Time) bool {
	return s != Times{} && !t.IsZero() && s.First <= t.UnixNano() && t.UnixNano() <= s.Last
}

// clocks are that of a store's answers and that of its objects, which are not
// the same where a proxy in between puts in its own. Then no age is known.
type clocks struct {
	mu        sync.Mutex
	key, etag string    // what was stored last
	date      time.Time // of the answer
	apart     bool
}

const (
	quickly   = time.Second     // that a request takes at most, so that its answer dates what it stored
	clocksOff = 2 * time.Second // that answers are later by roundings and requests
)

// stored notes what a request stored that took so long.
func (c *clocks) stored(info backend.Info, took time.Duration) {
	if took > quickly || info.Date.IsZero() || info.ETag == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.etag, c.date = info.Key, info.ETag, info.Date
}

// told compares the clocks, if info tells of what was stored last, and says
// whether they may be one. An object that is older than the answer which dates
// it is one whose age is not known.
func (c *clocks) told(info backend.Info) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if info.Key == c.key && info.ETag == c.etag && c.date.Sub(info.ModTime) > clocksOff {
		c.apart = true
	}
	return !c.apart
}

// provenBy are the times of the object for which what the store told of it
// holds.
func (c *core) provenBy(info backend.Info) Times {
	fine := info.ModTime.Nanosecond() != 0
	settled := settleAfter
	if fine {
		settled = settleFine
	}
	if info.Date.IsZero() || info.ModTime.IsZero() || !c.clocks.told(info) || info.Date.Sub(info.ModTime) < settled {
		return Times{}
	}
	at := info.ModTime.UnixNano()
	if fine {
		return Times{at, at}
	}
	return Times{at, at + int64(time.Second) - 1} // a listing may tell more of it
}
