package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
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
	ttl    time.Duration // negative: nothing is remembered nor shared
	kept   *kept
	frozen func(branch string) bool // a branch that is a commit: what was said of it stays true
	names  flights[metaKey, store.Entry]
	lists  flights[pageKey, store.Page]
	links  flights[metaKey, string]
	ahead  flights[metaKey, store.Entry] // of files before they are opened

	// notice is told of what somebody else has changed; nil is nobody. It is
	// called with the lock held.
	notice func(branch string, p store.Path, e *store.Entry)

	// mu is taken before the locks of the flights.
	mu      sync.Mutex
	lru     *weighted[metaKey, *metaItem]
	touched *weighted[metaKey, time.Time] // directories whose entries changed here, and when
	flat    flatWalks
	trails  *weighted[metaKey, *trail] // of directories in which names are looked up
	stats   metaStats

	errands errands // what nobody waits for
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

// aheadFor is how much longer a listing is good that was asked for ahead of who
// reads it.
const aheadFor = 5 * time.Second

// pageKey is a question about a part of a listing.
type pageKey struct {
	metaKey
	from store.Cursor
}

// metaItem is one answer. at is when its request began.
type metaItem struct {
	at     time.Time
	entry  store.Entry // of a name
	absent bool        // of a name: there is none
	list   *dirList
	target string
	ticket uint64 // of a question that was asked ahead of an open, not 0 until one has used it
}

func newMetadata(ttl time.Duration, entries int, frozen func(branch string) bool) *metadata {
	return &metadata{
		ttl:     ttl,
		trails:  newWeighted[metaKey, *trail](maxTrails, nil),
		frozen:  frozen,
		lru:     newWeighted[metaKey, *metaItem](int64(entries), nil),
		touched: newWeighted[metaKey, time.Time](maxTouchedDirs, nil),
	}
}

// close ends what is under way.
func (m *metadata) close() {
	m.errands.close()
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
		return nil // what comes next is compared with it
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
	listed, found, at, sure := m.listedLocked(branch, p)
	if !sure || item != nil && !item.at.Before(at) {
		switch {
		case item == nil:
			return store.Entry{}, askBoth, nil
		case item.absent:
			return store.Entry{}, known, store.ErrNotExist
		}
		return item.entry, known, nil
	}
	switch {
	case !found:
		return store.Entry{}, known, store.ErrNotExist
	case !listed.Partial && !listed.Listed:
		return listed, known, nil
	case item != nil && !item.absent && isSame(item.entry, listed):
		return item.entry, known, nil
	case listed.Listed:
		return listed, known, nil
	case listed.IsDir():
		return store.Entry{}, askDir, nil
	}
	return store.Entry{}, askFile, nil
}

// listedLocked is what the listing of the parent says of p.
func (m *metadata) listedLocked(branch string, p store.Path) (e store.Entry, found bool, at time.Time, sure bool) {
	if p.IsRoot() {
		return e, false, at, false
	}
	item, ok := m.lru.get(metaKey{branch, listKind, p.Dir()})
	if !ok {
		return e, false, at, false
	}
	e, found, at, sure = item.list.find(p.Name(), m.good)
	if !found && branch == "" && store.IsRevision(p.Name()) {
		sure = false // a revision is there without being listed
	}
	return e, found, at, sure
}

// good says whether a part of a listing is still good.
func (m *metadata) good(r *stretch) bool { return time.Since(r.given) < m.ttl }

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
	if by := m.trailLocked(s, p, ask); by != byItself {
		m.mu.Unlock()
		m.listAround(ctx, s, p, by)
		m.mu.Lock()
		e, ask, err = m.knownLocked(branch, p)
	}
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
		m.noticeLocked(branch, p, &e)
		m.lru.add(metaKey{branch, nameKind, p}, &metaItem{at: at, entry: e}, 1)
		m.kept.learn(branch, p, e)
	case errors.Is(err, store.ErrNotExist):
		m.noticeLocked(branch, p, nil)
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
		if errors.Is(err, store.ErrNotExist) {
			m.noticeLocked(branch, p, nil)
		}
		m.lru.remove(metaKey{branch, nameKind, p})
		if errors.Is(err, store.ErrNotExist) {
			m.lru.remove(metaKey{branch, listKind, p.Dir()}) // which may say otherwise
		}
	}
	return e, err
}

// listPage returns entries of a directory, from a place on. The result is
// shared: nobody may change it.
func (m *metadata) listPage(ctx context.Context, s *store.Store, dir store.Path, from store.Cursor) (store.Page, error) {
	if m.ttl < 0 {
		m.mu.Lock()
		m.stats.listMisses++
		m.mu.Unlock()
		return s.ListPage(ctx, dir, from)
	}
	key := metaKey{s.CurrentBranch(), listKind, dir}
	m.mu.Lock()
	w := m.walkLocked(s, key, from)
	page, ok := m.pageLocked(key, from)
	if ok {
		m.stats.listHits++
		m.advanceLocked(w, s, dir)
	} else {
		m.stats.listMisses++
	}
	m.readLocked(key, from)
	m.mu.Unlock()
	if ok {
		return page, nil
	}
	if w != nil {
		if page, ok, err := m.reach(ctx, w, s, dir, from); ok || err != nil {
			return page, err
		}
	}
	page, shared, err := m.askPage(ctx, s, key, from)
	if err != nil && shared && ctx.Err() == nil {
		// It was asked for ahead, before anybody came, or by somebody else: the
		// bucket may answer by now.
		page, _, err = m.askPage(ctx, s, key, from)
	}
	if err == nil && !page.Done && !from.IsStart() {
		m.prefetch(s, key, page.Next)
	}
	return page, err
}

// askPage asks the bucket for a page. shared: the question was another one's.
func (m *metadata) askPage(ctx context.Context, s *store.Store, key metaKey, from store.Cursor) (page store.Page, shared bool, err error) {
	return m.lists.do(ctx, pageKey{key, from}, m.pageQuestion(s, key, from))
}

// pageQuestion is what asks for a page and remembers it.
func (m *metadata) pageQuestion(s *store.Store, key metaKey, from store.Cursor) func(context.Context, func() bool) (store.Page, error) {
	return func(ctx context.Context, fresh func() bool) (store.Page, error) {
		at := time.Now()
		m.mu.Lock()
		page, ok := m.pageLocked(key, from) // somebody has just asked
		m.mu.Unlock()
		if ok {
			return page, nil
		}
		page, err := s.ListPage(ctx, key.path, from)
		m.kept.complete(key.branch, key.path, page.Entries)
		m.mu.Lock()
		defer m.mu.Unlock()
		if err == nil && fresh() {
			m.addRunLocked(key, &stretch{from: from, to: page.Next, end: page.Done, at: at, given: time.Now(), base: page.Entries})
		}
		return page, err
	}
}

// list returns all entries of a directory, or an error where they are more
// than limit. It is for what is done ahead of programs, and no sign of one
// that lists.
func (m *metadata) list(ctx context.Context, s *store.Store, dir store.Path, limit int) ([]store.Entry, error) {
	key := metaKey{s.CurrentBranch(), listKind, dir}
	var all []store.Entry
	for page := (store.Page{}); !page.Done; {
		from := page.Next
		m.mu.Lock()
		next, ok := m.pageLocked(key, from)
		m.mu.Unlock()
		if !ok {
			var err error
			if next, _, err = m.askPage(ctx, s, key, from); err != nil {
				return nil, err
			}
		}
		if all = append(all, next.Entries...); len(all) > limit {
			return nil, fmt.Errorf("%s: more than %d entries: %w", dir, limit, store.ErrTooBig)
		}
		page = next
	}
	return all, nil
}

// prefetch asks for the page that a reader will come to next. It is under way
// when this returns, so that a reader who is faster shares it.
func (m *metadata) prefetch(s *store.Store, key metaKey, from store.Cursor) {
	ctx := backend.WithPriority(context.Background(), backend.ReadAhead) // it ends with the metadata
	m.lists.begin(ctx, pageKey{key, from}, m.pageQuestion(s, key, from))
}

// pageLocked is the page from there on, if it is known.
func (m *metadata) pageLocked(key metaKey, from store.Cursor) (store.Page, bool) {
	item, ok := m.lru.get(key)
	if !ok {
		return store.Page{}, false
	}
	r := item.list.behind(from)
	if r == nil || !m.good(r) && !(r.ahead && time.Since(r.at)-aheadFor < m.ttl) {
		return store.Page{}, false
	}
	if r.ahead {
		r.ahead, r.given = false, time.Now()
	}
	return r.page(from), true
}

// addRunLocked remembers a part of a listing.
func (m *metadata) addRunLocked(key metaKey, r *stretch) {
	if !r.end && r.from.Compare(r.to) == 0 {
		return // a page that is all within one of the directories
	}
	m.noticeRunLocked(key, r)
	item, ok := m.lru.get(key)
	if !ok {
		item = &metaItem{list: &dirList{}}
	}
	if m.frozen(key.branch) {
		r.given = time.Now().AddDate(100, 0, 0)
	}
	item.list.add(r)
	item.list.shrink(m.lru.max / 2)
	m.lru.add(key, item, item.list.cost())
}

// readLocked notes that a program lists the directory.
func (m *metadata) readLocked(key metaKey, from store.Cursor) {
	if !from.IsStart() {
		return
	}
	item, ok := m.lru.get(key)
	if !ok {
		item = &metaItem{list: &dirList{}}
		m.lru.add(key, item, 1)
	}
	item.list.readAt = time.Now()
	if key.path.IsRoot() {
		return
	}
	if parent, ok := m.lru.peek(metaKey{key.branch, listKind, key.path.Dir()}); ok {
		parent.list.walked, parent.list.walkedAt = key.path, item.list.readAt
	}
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
