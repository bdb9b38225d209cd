package cache

import (
	"time"

	"github.com/keifs/keifs/store"
)

// put notes that p is e now, by a change of this volume that the bucket has
// acknowledged.
func (m *metadata) put(branch string, p store.Path, e store.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropLocked(branch, p, false)
	m.relistLocked(branch, p, &e)
	m.noteLocked(branch, p, time.Now(), e, nil)
}

// empty notes that the directory p, just made here, had nothing in it when the
// bucket was asked. So the first names in it cost no question.
func (m *metadata) empty(branch string, p store.Path, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ttl >= 0 {
		m.addRunLocked(metaKey{branch, listKind, p}, &stretch{end: true, at: at, given: time.Now(), pass: new(int)})
	}
}

// gone notes that there is nothing at p any more. subtree: what was below it
// has gone with it, and not one by one before.
func (m *metadata) gone(branch string, p store.Path, subtree bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropLocked(branch, p, subtree)
	m.dropListLocked(branch, p)
	m.relistLocked(branch, p, nil)
	m.noteLocked(branch, p, time.Now(), store.Entry{}, store.ErrNotExist)
}

// forget notes that nothing is known about p, and with subtree about what is
// below it: a change failed, and may have happened all the same.
func (m *metadata) forget(branch string, p store.Path, subtree bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropLocked(branch, p, subtree)
	m.dropListLocked(branch, p)
	m.lru.remove(metaKey{branch, listKind, p.Dir()})
}

// isFile says whether p is known not to be a directory, so that there is
// nothing below it to forget.
func (m *metadata) isFile(branch string, p store.Path) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ask, err := m.knownLocked(branch, p)
	return ask == askFile || ask == known && err == nil && !e.IsDir()
}

// dropLocked forgets what is known about p, and sees to it that no answer
// under way, to who asked before, is remembered. With subtree it looks at
// everything that is remembered.
func (m *metadata) dropLocked(branch string, p store.Path, subtree bool) {
	within := func(key metaKey) bool {
		if subtree {
			return key.branch == branch && p.Contains(key.path)
		}
		return key.branch == branch && key.path == p && key.kind != listKind // what a directory lists stays
	}
	if subtree {
		for _, key := range m.lru.keys() {
			if within(key) {
				m.lru.remove(key)
			}
		}
	} else {
		m.lru.remove(metaKey{branch, nameKind, p})
		m.lru.remove(metaKey{branch, linkKind, p})
	}
	m.names.spoil(within)
	m.links.spoil(within)
	m.ahead.spoil(within)
	parent := metaKey{branch, listKind, p.Dir()}
	m.lists.spoil(func(key pageKey) bool { return key.metaKey == parent || within(key.metaKey) })
	m.flat.spoilLocked(branch, p, subtree)
}

// dropListLocked forgets what the directory p lists. What is remembered of
// each name in it stays.
func (m *metadata) dropListLocked(branch string, p store.Path) {
	list := metaKey{branch, listKind, p}
	m.lru.remove(list)
	m.lists.spoil(func(key pageKey) bool { return key.metaKey == list })
}

// relistLocked changes the name of p in the listing of its parent, if that is known.
func (m *metadata) relistLocked(branch string, p store.Path, e *store.Entry) {
	if p.IsRoot() {
		return
	}
	key := metaKey{branch, listKind, p.Dir()}
	if item, ok := m.lru.get(key); ok {
		item.list.change(p.Name(), e)
		m.lru.add(key, item, item.list.cost())
	}
}

// touch notes that the entries of dir have changed here. Objects do not keep
// that time, so the directory has it only in this volume, for as long as
// there is room to remember it.
func (m *metadata) touch(branch string, dir store.Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touched.add(metaKey{branch: branch, path: dir}, time.Now(), 1)
}

// untouch forgets it: somebody has set the time, or the directory is gone.
func (m *metadata) untouch(branch string, dir store.Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touched.remove(metaKey{branch: branch, path: dir})
}

// moveTouched lets the times of renamed directories follow.
func (m *metadata) moveTouched(branch string, from, to store.Path) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range m.touched.keys() {
		if key.branch == branch && from.Contains(key.path) {
			at, _ := m.touched.get(key)
			m.touched.remove(key)
			key.path = key.path.Rebase(from, to)
			m.touched.add(key, at, 1)
		}
	}
}

// dress gives a directory the time at which its entries changed here.
func (m *metadata) dress(branch string, p store.Path, e store.Entry) store.Entry {
	if !e.IsDir() {
		return e
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.touched.get(metaKey{branch: branch, path: p}); ok && at.After(e.Mtime) {
		e.Mtime = at
		if at.After(e.Ctime) {
			e.Ctime = at
		}
	}
	return e
}
