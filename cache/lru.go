package cache

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// weighted is an LRU bounded by the sum of its entries' costs. It is guarded
// by its owner's lock.
type weighted[K comparable, V any] struct {
	lru       *simplelru.LRU[K, weighed[V]]
	max       int64
	total     int64
	evictions int64
	evicted   func(K, V) // for what fell out for want of room; may be nil
}

type weighed[V any] struct {
	value V
	cost  int64
}

func newWeighted[K comparable, V any](max int64, evicted func(K, V)) *weighted[K, V] {
	w := &weighted[K, V]{max: max, evicted: evicted}
	w.lru, _ = simplelru.NewLRU(math.MaxInt, func(_ K, e weighed[V]) { w.total -= e.cost })
	return w
}

// add puts the entry in front, in place of an older one of that key, and
// evicts from the other end until all fits.
func (w *weighted[K, V]) add(key K, value V, cost int64) {
	w.lru.Remove(key)
	w.lru.Add(key, weighed[V]{value, cost})
	w.total += cost
	w.shrink(w.max)
}

func (w *weighted[K, V]) get(key K) (V, bool) {
	e, ok := w.lru.Get(key)
	return e.value, ok
}

func (w *weighted[K, V]) remove(key K) { w.lru.Remove(key) }

// shrink evicts until the total is at most limit; false if there was nothing to evict.
func (w *weighted[K, V]) shrink(limit int64) bool {
	evicted := false
	for w.total > limit {
		key, e, ok := w.lru.RemoveOldest()
		if !ok {
			break
		}
		evicted = true
		w.evictions++
		if w.evicted != nil {
			w.evicted(key, e.value)
		}
	}
	return evicted
}

func (w *weighted[K, V]) keys() []K { return w.lru.Keys() }

// set changes the value of an entry that is there.
func (w *weighted[K, V]) set(key K, value V) {
	if e, ok := w.lru.Peek(key); ok {
		w.lru.Add(key, weighed[V]{value, e.cost})
	}
}

func (w *weighted[K, V]) peek(key K) (V, bool) {
	e, ok := w.lru.Peek(key)
	return e.value, ok
}

// oldest is the entry that would be evicted next.
func (w *weighted[K, V]) oldest() (key K, value V, cost int64, ok bool) {
	key, e, ok := w.lru.GetOldest()
	return key, e.value, e.cost, ok
}

// cost is that of the entry, 0 if there is none.
func (w *weighted[K, V]) cost(key K) int64 {
	e, _ := w.lru.Peek(key)
	return e.cost
}
