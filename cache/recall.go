package cache

import (
	"errors"
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
	item, ok := m.lru.peek(metaKey{branch, nameKind, p})
	if !p.IsRoot() {
		parent, listed := m.lru.peek(metaKey{branch, listKind, p.Dir()})
		if listed && (!ok || item.at.Before(parent.at)) {
			e, found := parent.list.find(p.Name())
			same := ok && !item.absent && item.entry.IsDir() == e.IsDir() && item.entry.Version == e.Version
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
	for _, e := range item.list.entries() {
		if !but[e.Name] {
			return false
		}
	}
	return true
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
	if item.listed.IsZero() {
		item.listed = item.at
	}
	if now := time.Now(); now.Sub(item.listed) < max(emptyingFor, m.ttl) {
		item.at = now
	}
}

// fresh is what is known of p without asking; it wraps store.ErrNotExist where
// that is known, and errUnknown.
func (m *metadata) fresh(branch string, p store.Path) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ask, err := m.knownLocked(branch, p)
	switch {
	case ask == known:
		return e, err
	case ask == askDir, ask == askFile:
		if item, ok := m.lru.peek(metaKey{branch, listKind, p.Dir()}); ok {
			e, _ = item.list.find(p.Name())
		}
		return e, nil
	}
	return e, errUnknown
}

var errUnknown = errors.New("not known")
