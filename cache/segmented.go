package cache

// segmented is an LRU in two parts, bounded together by the sum of costs: what
// proved to be wanted again stays before what was not, so that one long scan
// evicts only what other scans left. It is guarded by its owner's lock.
type segmented[K comparable, V any] struct {
	max           int64
	fresh, proven *weighted[K, V]
}

func newSegmented[K comparable, V any](max int64, evicted func(K, V)) *segmented[K, V] {
	return &segmented[K, V]{max, newWeighted(max, evicted), newWeighted(max, evicted)}
}

func (s *segmented[K, V]) total() int64     { return s.fresh.total + s.proven.total }
func (s *segmented[K, V]) evictions() int64 { return s.fresh.evictions + s.proven.evictions }

// part is where the entry is, or has to be.
func (s *segmented[K, V]) part(key K) *weighted[K, V] {
	if _, ok := s.proven.peek(key); ok {
		return s.proven
	}
	return s.fresh
}

// add puts the entry in front of its part.
func (s *segmented[K, V]) add(key K, value V, cost int64) {
	s.part(key).add(key, value, cost)
	s.proven.shrink(max(0, s.max-cost))
	s.shrink(s.max)
}

// prove notes that the entry was wanted again.
func (s *segmented[K, V]) prove(key K) {
	value, ok := s.fresh.peek(key)
	if !ok {
		return
	}
	cost := s.fresh.cost(key)
	s.fresh.remove(key)
	s.proven.add(key, value, cost)
	// A quarter is left to what is new.
	for s.proven.total > s.max/4*3 {
		key, value, cost, ok := s.proven.oldest()
		if !ok {
			break
		}
		s.proven.remove(key)
		s.fresh.add(key, value, cost)
	}
}

func (s *segmented[K, V]) get(key K) (V, bool)  { return s.part(key).get(key) }
func (s *segmented[K, V]) peek(key K) (V, bool) { return s.part(key).peek(key) }
func (s *segmented[K, V]) set(key K, value V)   { s.part(key).set(key, value) }
func (s *segmented[K, V]) cost(key K) int64     { return s.part(key).cost(key) }
func (s *segmented[K, V]) remove(key K)         { s.part(key).remove(key) }

// shrink evicts until the total is at most limit; false if there was nothing to evict.
func (s *segmented[K, V]) shrink(limit int64) bool {
	evicted := s.fresh.shrink(max(0, limit-s.proven.total))
	return s.proven.shrink(max(0, limit-s.fresh.total)) || evicted
}
