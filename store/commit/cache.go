package commit

import (
	"context"
	"errors"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache remembers decoded records by id, up to a number of bytes, and reads
// what several ask for at once one time.
type cache struct {
	limit int64

	mu      sync.Mutex
	items   *simplelru.LRU[string, item]
	size    int64
	loading map[string]*loading
}

type item struct {
	value any
	size  int64
}

type loading struct {
	done  chan struct{}
	value any
	err   error
}

func newCache(limit int64) *cache {
	c := &cache{limit: limit, loading: map[string]*loading{}}
	var err error
	// Bounded by bytes below, not by count.
	c.items, err = simplelru.NewLRU(math.MaxInt, func(_ string, it item) { c.size -= it.size })
	if err != nil {
		panic(err) // only of a size below 1
	}
	return c
}

// get returns what is remembered of id, or what load returns. A load that ends
// with the context of another caller is tried again.
func (c *cache) get(ctx context.Context, id string, load func(context.Context) (value any, size int64, err error)) (any, error) {
	for {
		c.mu.Lock()
		if it, ok := c.items.Get(id); ok {
			c.mu.Unlock()
			return it.value, nil
		}
		l, waits := c.loading[id]
		if !waits {
			l = &loading{done: make(chan struct{})}
			c.loading[id] = l
		}
		c.mu.Unlock()
		if !waits {
			return c.load(ctx, id, l, load)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.done:
		}
		if !errors.Is(l.err, context.Canceled) && !errors.Is(l.err, context.DeadlineExceeded) {
			return l.value, l.err
		}
	}
}

func (c *cache) load(ctx context.Context, id string, l *loading, load func(context.Context) (any, int64, error)) (any, error) {
	value, size, err := load(ctx)
	l.value, l.err = value, err
	c.mu.Lock()
	delete(c.loading, id)
	if err == nil {
		c.items.Add(id, item{value, size})
		for c.size += size; c.size > c.limit && c.items.Len() > 1; {
			c.items.RemoveOldest()
		}
	}
	c.mu.Unlock()
	close(l.done)
	return value, err
}
