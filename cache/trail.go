package cache

import (
	"context"
	"slices"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// A program that looks up one name of a directory after another (git status,
// rsync, make) never lists it, and each name would cost a question of its own.
// So who looks up a second one is answered by a listing of the directory, which
// answers for a thousand; who looks up a second directory in one, by a flat
// listing of what is below, which tells of the directories' own objects, too.
// Of what a listing does not tell, the files behind the one that was asked
// about are asked for ahead, side by side.

// trail is the looking up of names in one directory.
type trail struct {
	at     time.Time // of the last miss
	missed string    // the name of the last one that no listing told of
	misses int       // how many there were, since the last listing
	need   int       // how many it takes until the directory is listed
	spared int       // lookups that a listing answered
	dirs   int       // directories whose own object was asked about
	walks  bool      // its subdirectories are gone through

	// Of files that a listing does not complete:
	last   string       // looked up last
	run    int          // in order
	window int          // how many to ask for ahead
	asked  store.Cursor // up to where that was done
}

const (
	maxTrails   = 2000
	trailLife   = 10 * time.Second
	listAfter   = 2  // misses
	maxNeed     = 64 // misses, where listings are of no use
	usefulAfter = 4  // lookups spared
	askAfter    = 3  // files in order
	maxSkipped  = 2  // others that an order may leave out
	firstAsked  = 8
	maxAsked    = 64
)

// means is how a question about a name is best answered.
type means int

const (
	byItself  means = iota
	byListing       // of its directory
	byWalk          // a flat listing from there on
)

// trailLocked notes a lookup, and says how to answer it.
func (m *metadata) trailLocked(s *store.Store, p store.Path, ask hint) means {
	if p.IsRoot() || s.CurrentBranch() == "" || !s.StrongList() {
		return byItself
	}
	key := metaKey{s.CurrentBranch(), listKind, p.Dir()}
	t, ok := m.trails.get(key)
	if ask == known {
		if ok {
			t.spared++
			if t.window > 0 {
				m.askOnLocked(s, key, t, p.Name())
			}
		}
		return byItself
	}
	now := time.Now()
	if !ok || now.Sub(t.at) > trailLife {
		t = &trail{need: listAfter}
		if up, ok := m.trails.peek(metaKey{key.branch, listKind, key.path.Dir()}); ok && !key.path.IsRoot() && up.walks && now.Sub(up.at) < trailLife {
			t.need = 1
		}
		m.trails.add(key, t, 1)
	}
	t.at = now
	switch ask {
	case askFile:
		m.askOnLocked(s, key, t, p.Name())
	case askDir:
		if t.dirs++; t.dirs >= listAfter && s.CanWalk() {
			t.walks = true
			return byWalk
		}
	case askBoth:
		if w, _ := m.cutBeforeLocked(s, key, p.Name()); w != nil {
			return byListing
		}
		if t.misses > 0 && p.Name() == t.missed {
			break // by another asker
		}
		t.missed = p.Name()
		if t.misses++; t.misses >= t.need {
			t.misses = 0
			return byListing
		}
	}
	return byItself
}

// listAround lists what answers the question about p, if that is to be had.
// An error is left to who asks by itself.
func (m *metadata) listAround(ctx context.Context, s *store.Store, p store.Path, by means) {
	if by == byWalk {
		m.walkTo(ctx, s, p)
		return
	}
	key := metaKey{s.CurrentBranch(), listKind, p.Dir()}
	m.mu.Lock()
	w, from := m.cutBeforeLocked(s, key, p.Name())
	_, begun := m.pageLocked(key, store.Cursor{})
	m.mu.Unlock()
	if w != nil {
		if _, ok, err := m.reach(ctx, w, s, key.path, from); ok || err != nil {
			return
		}
	}
	if !begun {
		if _, err := m.listPage(ctx, s, key.path, store.Cursor{}); err != nil {
			return
		}
	}
	m.mu.Lock()
	_, _, _, sure := m.listedLocked(key.branch, p)
	if !sure {
		if t, ok := m.trails.peek(key); ok { // a large one: are listings worth it?
			if t.spared < usefulAfter {
				t.need = min(2*max(t.need, 1), maxNeed)
			} else {
				t.need = listAfter
			}
			t.spared = 0
		}
	}
	m.mu.Unlock()
	if near := store.Near(p.Name()); !sure && s.CanWalk() && !near.IsStart() {
		_, _, _ = m.askPage(ctx, s, key, near)
	}
}

// cutBeforeLocked is the walk whose last request ended in the directory before
// the name, and where.
func (m *metadata) cutBeforeLocked(s *store.Store, dir metaKey, name string) (*flatWalk, store.Cursor) {
	item, ok := m.lru.peek(dir)
	if !ok {
		return nil, store.Cursor{}
	}
	here := position(name, store.ModeRegular)
	for _, r := range slices.Backward(item.list.runs) {
		if !r.end && r.to.Compare(here) <= 0 {
			return m.cutLocked(s, dir, r.to), r.to
		}
	}
	return nil, store.Cursor{}
}

// walkTo lists from the directory p on, with all below it and what comes behind.
func (m *metadata) walkTo(ctx context.Context, s *store.Store, p store.Path) {
	branch := s.CurrentBranch()
	spot, err := s.SpotOf(p, store.Cursor{})
	if err != nil {
		return
	}
	for begun := false; ; {
		m.mu.Lock()
		if e, found, _, sure := m.listedLocked(branch, p); sure && (!found || !e.Partial || e.Marker) {
			m.mu.Unlock()
			return
		}
		coming := m.flat.comingLocked(branch, p, spot)
		if coming == nil && !begun {
			begun = true
			coming = &piece{start: spot, open: true}
			w := m.flat.walkLocked(metaKey{branch, listKind, p.Dir()})
			*w = flatWalk{anchor: w.anchor, used: time.Now(), running: w.running}
			if !m.startLocked(w, s, coming, 1) {
				coming = nil
			}
		}
		if coming == nil {
			m.mu.Unlock()
			return
		}
		changed := coming.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// askOnLocked notes that a file of a directory was looked up of which the
// listing does not tell everything, and asks for those behind it.
func (m *metadata) askOnLocked(s *store.Store, key metaKey, t *trail, name string) {
	item, ok := m.lru.peek(key)
	switch {
	case name == t.last:
		return
	case !ok:
		return
	case m.followsLocked(item.list, t.last, name):
		t.run++
	default:
		t.run, t.window, t.asked = 1, 0, store.Cursor{}
	}
	t.last = name
	if t.run < askAfter {
		return
	}
	here := position(name, store.ModeRegular)
	if t.asked.Compare(here) <= 0 {
		t.asked = here
		t.window = min(max(firstAsked, 2*t.window), maxAsked)
	}
	begun := 0
	for room := t.window; room > 0 && begun < maxAsked; {
		r := item.list.behind(here)
		if r == nil || !m.good(r) {
			return
		}
		for _, e := range r.page(here).Entries {
			here = store.Behind(e)
			if e.IsDir() {
				continue
			}
			if room--; room < 0 {
				return
			}
			if here.Compare(t.asked) <= 0 {
				continue
			}
			if t.asked = here; e.Partial && m.askLocked(s, key, e) {
				begun++
			}
		}
		if r.end {
			return
		}
		here = r.to
	}
}

// followsLocked says whether who looks up last, and then name, goes through the
// files of a directory in order. Those do not count that a listing completes.
func (m *metadata) followsLocked(l *dirList, last, name string) bool {
	if last == "" {
		return false
	}
	skipped := 0
	for here := position(last, store.ModeRegular); ; {
		r := l.behind(here)
		if r == nil {
			return false
		}
		for _, e := range r.page(here).Entries {
			switch {
			case e.Name == name:
				return true
			case e.IsDir() || !e.Partial || e.Name == last:
			default:
				if skipped++; skipped > maxSkipped {
					return false
				}
			}
		}
		if r.end {
			return false
		}
		here = r.to
	}
}

// askLocked asks for the attributes of one file, unless they are known.
func (m *metadata) askLocked(s *store.Store, dir metaKey, e store.Entry) bool {
	p, err := dir.path.Join(e.Name)
	if err != nil {
		return false
	}
	if _, ask, _ := m.knownLocked(dir.branch, p); ask != askFile {
		return false
	}
	ctx := backend.WithPriority(context.Background(), backend.ReadAhead) // it ends with the metadata
	m.askAhead(ctx, dir.branch, p, 0, func(ctx context.Context) (store.Entry, error) { return s.Head(ctx, p) })
	return true
}
