package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keifs/keifs/store"
)

// metadata remembers for a while what the bucket said about names: entries,
// names that are not there, whole listings, targets of links. Each is one
// entry of an LRU; a listing counts its names.
//
// Concurrent askers share one request. What this volume changes is noted at
// once, and an answer whose request began before the change is not remembered
// after it.
type metadata struct {
	ttl    time.Duration            // negative: nothing is remembered nor shared
	frozen func(branch string) bool // a branch that is a commit: what was said of it stays true
	names  flights[metaKey, store.Entry]
	lists  flights[metaKey, []store.Entry]
	links  flights[metaKey, string]
	ahead  flights[metaKey, store.Entry] // of files before they are opened

	// mu is taken before the locks of the flights.
	mu      sync.Mutex
	lru     *weighted[metaKey, *metaItem]
	touched *weighted[metaKey, time.Time] // directories whose entries changed here, and when
	stats   metaStats
}

type metaStats struct {
	hits, negatives, misses, collapsed int64 // of entries
	listHits, listMisses               int64
}

type metaKind int

const (
	nameKind metaKind = iota
	listKind
	linkKind
)

type metaKey struct {
	branch string
	kind   metaKind
	path   store.Path
}

// metaItem is one answer. at is when its request began.
type metaItem struct {
	at     time.Time
	entry  store.Entry // of a name
	absent bool        // of a name: there is none
	list   *listing
	target string
	ticket uint64    // of a question that was asked ahead of an open, not 0 until one has used it
	listed time.Time // when a listing was made that is kept good, see emptying
}

func newMetadata(ttl time.Duration, entries int, frozen func(branch string) bool) *metadata {
	return &metadata{
		ttl:     ttl,
		frozen:  frozen,
		lru:     newWeighted[metaKey, *metaItem](int64(entries), nil),
		touched: newWeighted[metaKey, time.Time](maxTouchedDirs, nil),
	}
}

// close ends what is under way.
func (m *metadata) close() {
	m.names.close()
	m.lists.close()
	m.links.close()
	m.ahead.close()
}

// freshLocked is the answer to key, if there is one that is still good.
func (m *metadata) freshLocked(key metaKey) *metaItem {
	item, ok := m.lru.get(key)
	if !ok {
		return nil
	}
	if time.Since(item.at) >= m.ttl && !m.frozen(key.branch) {
		m.lru.remove(key)
		return nil
	}
	return item
}

// hint says which request answers a question about a name.
type hint int

const (
	askBoth hint = iota // it may be an object or a directory
	askFile
	askDir
	known
)

// knownLocked answers a question about a name from what is remembered: the
// newest of entry and listing. ErrNotExist is an answer as well.
func (m *metadata) knownLocked(branch string, p store.Path) (store.Entry, hint, error) {
	item := m.freshLocked(metaKey{branch, nameKind, p})
	var parent *metaItem
	if !p.IsRoot() {
		parent = m.freshLocked(metaKey{branch, listKind, p.Dir()})
	}
	if parent == nil || item != nil && !item.at.Before(parent.at) {
		switch {
		case item == nil:
			return store.Entry{}, askBoth, nil
		case item.absent:
			return store.Entry{}, known, store.ErrNotExist
		}
		return item.entry, known, nil
	}
	listed, ok := parent.list.find(p.Name())
	switch {
	case !ok:
		return store.Entry{}, known, store.ErrNotExist
	case !listed.Partial:
		return listed, known, nil
	case item != nil && !item.absent && item.entry.IsDir() == listed.IsDir() && item.entry.Version == listed.Version:
		return item.entry, known, nil
	case listed.IsDir():
		return store.Entry{}, askDir, nil
	}
	return store.Entry{}, askFile, nil
}

// lookup returns the complete entry at p.
func (m *metadata) lookup(ctx context.Context, s *store.Store, p store.Path) (store.Entry, error) {
	if m.ttl < 0 {
		m.mu.Lock()
		m.stats.misses++
		m.mu.Unlock()
		return s.Lookup(ctx, p)
	}
	branch := s.CurrentBranch()
	m.mu.Lock()
	e, ask, err := m.knownLocked(branch, p)
	switch {
	case ask != known:
		m.stats.misses++
	case err == nil:
		m.stats.hits++
	default:
		m.stats.negatives++
	}
	m.mu.Unlock()
	if ask == known {
		return e, err
	}
	if e, ok := m.ahead.join(ctx, metaKey{branch, nameKind, p}); ok {
		return e, nil
	}
	e, shared, err := m.names.do(ctx, metaKey{branch, nameKind, p}, func(ctx context.Context, fresh func() bool) (store.Entry, error) {
		at := time.Now()
		e, err := fetch(ctx, s, p, ask)
		m.mu.Lock()
		defer m.mu.Unlock()
		if fresh() {
			m.noteLocked(branch, p, at, e, err)
		}
		return e, err
	})
	if shared {
		m.mu.Lock()
		m.stats.collapsed++
		m.mu.Unlock()
	}
	return e, err
}

// fetch sends the request that is needed.
func fetch(ctx context.Context, s *store.Store, p store.Path, ask hint) (e store.Entry, err error) {
	switch ask {
	case askFile:
		e, err = s.Head(ctx, p)
	case askDir:
		e, err = s.HeadDir(ctx, p)
	default:
		return s.Lookup(ctx, p)
	}
	if errors.Is(err, store.ErrNotExist) { // somebody has changed it since the listing
		return s.Lookup(ctx, p)
	}
	return e, err
}

// noteLocked remembers an answer about a name.
func (m *metadata) noteLocked(branch string, p store.Path, at time.Time, e store.Entry, err error) {
	switch {
	case m.ttl < 0:
	case err == nil:
		m.lru.add(metaKey{branch, nameKind, p}, &metaItem{at: at, entry: e}, 1)
	case errors.Is(err, store.ErrNotExist):
		m.lru.add(metaKey{branch, nameKind, p}, &metaItem{at: at, absent: true}, 1)
	}
}

// head asks the bucket about a file, whatever is remembered, and remembers
// the answer.
func (m *metadata) head(ctx context.Context, s *store.Store, p store.Path) (store.Entry, error) {
	return m.question(s, p, func() (store.Entry, error) { return s.Head(ctx, p) })
}

// question remembers the answer that ask brings.
func (m *metadata) question(s *store.Store, p store.Path, ask func() (store.Entry, error)) (store.Entry, error) {
	branch := s.CurrentBranch()
	at := time.Now()
	e, err := ask()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		// Who asks holds a claim on the name, so nothing here changed it meanwhile.
		m.noteLocked(branch, p, at, e, nil)
	} else {
		m.lru.remove(metaKey{branch, nameKind, p})
		if errors.Is(err, store.ErrNotExist) {
			m.lru.remove(metaKey{branch, listKind, p.Dir()}) // which may say otherwise
		}
	}
	return e, err
}

// list returns the entries of a directory. The result is shared: nobody may
// change it.
func (m *metadata) list(ctx context.Context, s *store.Store, dir store.Path) ([]store.Entry, error) {
	key := metaKey{s.CurrentBranch(), listKind, dir}
	m.mu.Lock()
	if item := m.freshLocked(key); item != nil {
		defer m.mu.Unlock()
		m.stats.listHits++
		return item.list.entries(), nil
	}
	m.stats.listMisses++
	m.mu.Unlock()
	collect := func(ctx context.Context) (all []store.Entry, err error) {
		for e, err := range s.List(ctx, dir) {
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
		return all, nil
	}
	if m.ttl < 0 {
		return collect(ctx)
	}
	all, _, err := m.lists.do(ctx, key, func(ctx context.Context, fresh func() bool) ([]store.Entry, error) {
		at := time.Now()
		all, err := collect(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		if err == nil && fresh() {
			l := &listing{base: all}
			m.lru.add(key, &metaItem{at: at, list: l}, l.cost())
		}
		return all, err
	})
	return all, err
}

// readlink returns the target of a symbolic link.
func (m *metadata) readlink(ctx context.Context, s *store.Store, p store.Path) (string, error) {
	if m.ttl < 0 {
		return s.Readlink(ctx, p)
	}
	key := metaKey{s.CurrentBranch(), linkKind, p}
	m.mu.Lock()
	item := m.freshLocked(key)
	m.mu.Unlock()
	if item != nil {
		return item.target, nil
	}
	target, _, err := m.links.do(ctx, key, func(ctx context.Context, fresh func() bool) (string, error) {
		at := time.Now()
		target, err := s.Readlink(ctx, p)
		m.mu.Lock()
		defer m.mu.Unlock()
		if err == nil && fresh() {
			m.lru.add(key, &metaItem{at: at, target: target}, 1)
		}
		return target, err
	})
	return target, err
}
