package cache

import "github.com/keifs/keifs/store"

// The kernel, too, remembers for the time to live what this volume told it. So
// where an answer of the bucket says something else than the one before, the
// mount is told of exactly that name.

// noticeLocked compares an answer about a name with what was known before,
// however old that is. e is nil where there is nothing.
func (m *metadata) noticeLocked(branch string, p store.Path, e *store.Entry) {
	if m.notice == nil {
		return
	}
	before, known, absent := m.recallLocked(branch, p)
	if known && (absent != (e == nil) || e != nil && !isSame(before, *e)) {
		m.notice(branch, p, e)
	}
}

// noticeRunLocked compares a part of a listing with what was known of it before.
func (m *metadata) noticeRunLocked(key metaKey, r *stretch) {
	if m.notice == nil {
		return
	}
	before := &dirList{}
	if item, ok := m.lru.peek(key); ok {
		before = item.list
	}
	tell := func(name string, e *store.Entry) {
		if p, err := key.path.Join(name); err == nil {
			m.notice(key.branch, p, e)
		}
	}
	for _, e := range r.base { // what was asked about, and not listed yet
		p, err := key.path.Join(e.Name)
		if err != nil || before.covering(store.Behind(e)) != nil {
			continue
		}
		if item, ok := m.lru.peek(metaKey{key.branch, nameKind, p}); ok && (item.absent || !isSame(item.entry, e)) {
			m.notice(key.branch, p, &e)
		}
	}
	for _, old := range before.runs {
		if !old.overlaps(r) {
			continue
		}
		was, is := old.entries(), r.base
		for len(was) > 0 || len(is) > 0 {
			var order int
			switch {
			case len(was) == 0:
				order = 1
			case len(is) == 0:
				order = -1
			default:
				order = store.Order(was[0], is[0])
			}
			switch {
			case order < 0:
				if r.covers(store.Behind(was[0])) {
					tell(was[0].Name, nil)
				}
				was = was[1:]
			case order > 0:
				if old.covers(store.Behind(is[0])) {
					tell(is[0].Name, &is[0])
				}
				is = is[1:]
			default:
				if !isSame(was[0], is[0]) {
					tell(is[0].Name, &is[0])
				}
				was, is = was[1:], is[1:]
			}
		}
	}
}

// isSame says whether b, told after a, is the same object with the same
// attributes, as far as the two tell of them.
func isSame(a, b store.Entry) bool {
	switch {
	case a.IsDir() != b.IsDir() || a.Version != b.Version:
		return false
	case !isListed(a) && !isListed(b):
		return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
			a.Mtime.Equal(b.Mtime) && a.Atime.Equal(b.Atime) && a.Ctime.Equal(b.Ctime)
	case a.Changed.IsZero() || b.Changed.IsZero():
		return true
	case a.Holds != store.Times{}:
		return a.Holds.Has(b.Changed)
	case b.Holds != store.Times{}:
		return b.Holds.Has(a.Changed)
	}
	// The answer to a change may be later than the object.
	return !b.Changed.After(a.Changed)
}

// isListed says whether the attributes of an object are not those that it has
// itself, so that another time is all that a change of them shows by.
func isListed(e store.Entry) bool { return e.Partial || e.Listed }

// overlaps says whether two runs have places in common.
func (r *stretch) overlaps(o *stretch) bool {
	return (r.end || o.from.Compare(r.to) < 0) && (o.end || r.from.Compare(o.to) < 0)
}
