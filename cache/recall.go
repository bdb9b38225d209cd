package cache

import (
	"errors"
	"slices"
	"time"

	"github.com/keifs/keifs/store"
)

// emptyingFor is how long a listing is believed at most, beyond its time to
// live, because this volume is busy removing what it lists.
const emptyingFor = 10 * time.Second

// recall is what is remembered of p, however old it is: for changes that name
// the version they are about, and so do no harm where it has another by now.
// known says that there is an answer; absent, that there is nothing at p.
func (m *metadata) recall(branch string, p store.Path) (e store.Entry, known, absent bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recallLocked(branch, p)
}

func (m *metadata) recallLocked(branch string, p store.Path) (e store.Entry, known, absent bool) {
	item, ok := m.lru.peek(metaKey{branch, nameKind, p})
	if parent, listed := m.lru.peek(metaKey{branch, listKind, p.Dir()}); listed && !p.IsRoot() {
		e, found, at, sure := parent.list.find(p.Name(), anyAge)
		if sure && (!ok || item.at.Before(at)) {
			same := ok && !item.absent && isSame(item.entry, e)
			if found && same {
				return item.entry, true, false
			}
			return e, true, !found
		}
	}
	if !ok {
		return store.Entry{}, false, false
	}
	return item.entry, true, item.absent
}

// recallEmpty says whether the directory, as it was listed last, has nothing
// in it but those names.
func (m *metadata) recallEmpty(branch string, dir store.Path, but map[string]bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.lru.peek(metaKey{branch, listKind, dir})
	if !ok {
		return false
	}
	all, whole := item.list.all()
	return whole && !slices.ContainsFunc(all, func(e store.Entry) bool { return !but[e.Name] })
}

// emptying keeps the listing of a directory good while this volume removes one
// name after the other from it: or each would have to be asked for anew as
// soon as that takes longer than the time to live.
func (m *metadata) emptying(branch string, dir store.Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.lru.peek(metaKey{branch, listKind, dir})
	if !ok || m.ttl < 0 {
		return
	}
	now := time.Now()
	for _, r := range item.list.runs {
		if now.Sub(r.at) < max(emptyingFor, m.ttl) {
			r.given = now
		}
	}
}

// anyAge takes every part of a listing for good.
func anyAge(*stretch) bool { return true }

// fresh is what is known of p without asking; it wraps store.ErrNotExist where
// that is known, and errUnknown.
func (m *metadata) fresh(branch string, p store.Path) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ask, err := m.knownLocked(branch, p)
	switch ask {
	case known:
		return e, err
	case askDir, askFile:
		if item, ok := m.lru.peek(metaKey{branch, listKind, p.Dir()}); ok {
			e, _, _, _ = item.list.find(p.Name(), m.good)
		}
		return e, nil
	}
	return e, errUnknown
}

var errUnknown = errors.New("not known")
