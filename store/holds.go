package store

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// A listing tells of an object its version, its size and when the store took
// it, and no attributes. Those that were once learnt are still its own where
// all three are the same, unless they can change without a trace: on a store
// whose ETag is that of the content, within the second in which it took the
// object, as most have their times in whole seconds. So attributes that were
// told so soon prove nothing for later. Those that this host stored itself do,
// since no host changes the attributes of an object in place that another one
// has just stored: it waits for some seconds (outwait).

const (
	// settleAfter is for how long an object is new: the second in which it was
	// taken, and what the clocks of a store's machines may be apart.
	settleAfter = 3 * time.Second
	// settleFine is the same where times are finer than seconds.
	settleFine = 100 * time.Millisecond
	// quickly is how long a request takes at most that stores an object at
	// about the time of its answer.
	quickly = time.Second
)

// Times are a span of a store's clock, in nanoseconds since 1970, both ends
// included. The zero value has none.
type Times struct{ First, Last int64 }

// Has says whether t is one of them.
func (s Times) Has(t time.Time) bool {
	return s != Times{} && !t.IsZero() && s.First <= t.UnixNano() && t.UnixNano() <= s.Last
}

// fine says whether the store tells times in more than seconds.
func fine(t time.Time) bool { return t.Nanosecond() != 0 }

// span are the times that t may be, told elsewhere.
func span(t time.Time) Times {
	at := t.UnixNano()
	if fine(t) {
		return Times{at, at}
	}
	return Times{at, at + int64(time.Second) - 1}
}

// provenBy are the times of the object for which what the store told of it
// holds.
func provenBy(info backend.Info) Times {
	settled := settleAfter
	if fine(info.ModTime) {
		settled = settleFine
	}
	if info.Date.IsZero() || info.ModTime.IsZero() || info.Date.Sub(info.ModTime) < settled {
		return Times{}
	}
	return span(info.ModTime)
}

// provenByOwn are those for which what this host has just stored holds. That
// of the answer is as good as that of the object, which not all stores tell.
func provenByOwn(info backend.Info) Times {
	if info.Date.IsZero() || info.ModTime.IsZero() {
		return Times{}
	}
	s := span(info.ModTime)
	if !fine(info.ModTime) {
		s.First -= int64(time.Second)
	}
	return s
}

// ownObjects are those that this host has just stored.
type ownObjects struct {
	mu     sync.Mutex
	all    map[string]ownObject // by key
	traced bool                 // a change of attributes changes the ETag
}

type ownObject struct {
	etag  string
	begun time.Time // the request that stored it
}

const maxOwnObjects = 1 << 14

// noteOwn notes that a request stored an object. Of one that took long, it is
// not known when the store did.
func (c *core) noteOwn(key string, info *backend.Info, begun time.Time) {
	now := time.Now()
	if now.Sub(begun) > quickly {
		info.Date = time.Time{}
	}
	o := &c.own
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[string]ownObject{}
	}
	if len(o.all) >= maxOwnObjects {
		for key, own := range o.all {
			if now.Sub(own.begun) > settleAfter+quickly {
				delete(o.all, key)
			}
		}
		if len(o.all) >= maxOwnObjects {
			clear(o.all)
		}
	}
	o.all[key] = ownObject{info.ETag, begun}
}

// isOwn says whether this host stored that version within the time.
func (c *core) isOwn(key, etag string, within time.Duration) bool {
	c.own.mu.Lock()
	defer c.own.mu.Unlock()
	own, ok := c.own.all[key]
	return ok && own.etag == etag && time.Since(own.begun) < within
}

// noteTrace notes what became of the ETag when the attributes changed.
func (c *core) noteTrace(before, after string) {
	if before != after && !strings.Contains(before, "-") { // that of an object in parts always changes
		c.own.mu.Lock()
		c.own.traced = true
		c.own.mu.Unlock()
	}
}

// outwait waits until an object that somebody else has stored is not new any
// more, before its attributes are changed. True where it took time, so that it
// is to be looked at again.
func (c *core) outwait(ctx context.Context, info backend.Info) (bool, error) {
	if info.Date.IsZero() || info.ModTime.IsZero() || fine(info.ModTime) {
		return false, nil
	}
	c.own.mu.Lock()
	traced := c.own.traced
	c.own.mu.Unlock()
	age := info.Date.Sub(info.ModTime)
	if traced || age >= settleAfter || c.isOwn(info.Key, info.ETag, settleAfter+quickly) {
		return false, nil
	}
	timer := time.NewTimer(min(settleAfter-age, settleAfter))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
