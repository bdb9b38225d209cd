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
	item, ok := m.lru.peek(key)
	if !ok || m.notice == nil {
		return
	}
	tell := func(name string, e *store.Entry) {
		if p, err := key.path.Join(name); err == nil {
			m.notice(key.branch, p, e)
		}
	}
	for _, old := range item.list.runs {
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

// isSame says whether two entries of one name are of the same object, or both
// directories.
func isSame(a, b store.Entry) bool {
	return a.IsDir() == b.IsDir() && (a.IsDir() || a.Version == b.Version && a.Size == b.Size)
}

// overlaps says whether two runs have places in common.
func (r *stretch) overlaps(o *stretch) bool {
	return (r.end || o.from.Compare(r.to) < 0) && (o.end || r.from.Compare(o.to) < 0)
}
