package cache

import (
	"slices"
	"time"

	"github.com/keifs/keifs/store"
)

// dirList is what is known of the entries of one directory: stretches of its
// listing. It is guarded by metadata.mu, but for the slices it gave away, which
// never change.
type dirList struct {
	runs   []*stretch // in order, disjoint
	readAt time.Time  // when a program last began to list it

	walked   store.Path // the directory in it that a program last began to list
	walkedAt time.Time
}

// stretch is a part of a directory's listing, as the bucket gave it in one answer,
// with what has changed here since.
type stretch struct {
	from  store.Cursor // behind it
	to    store.Cursor // up to it, unless it is the end
	end   bool
	at    time.Time // when its request began: what came later may be missing
	given time.Time // from when its time to live counts
	ahead bool      // nobody has read it yet: it was asked for before anybody came
	pass  *int      // the same for the runs that one listing asked for in a row

	base []store.Entry
	over map[string]*store.Entry // by name; nil: it is gone
}

func (l *dirList) cost() int64 {
	n := 1
	for _, r := range l.runs {
		n += len(r.base) + len(r.over)
	}
	return int64(n)
}

// position is where an entry of that name and kind has its place.
func position(name string, mode uint32) store.Cursor {
	return store.Behind(store.Entry{Name: name, Attr: store.Attr{Mode: mode}})
}

// covers says whether an entry of that place would be in the run.
func (r *stretch) covers(at store.Cursor) bool {
	return r.from.Compare(at) < 0 && (r.end || at.Compare(r.to) <= 0)
}

// covering is the run that has the place.
func (l *dirList) covering(at store.Cursor) *stretch {
	i, _ := slices.BinarySearchFunc(l.runs, at, func(r *stretch, at store.Cursor) int { return r.from.Compare(at) })
	if i--; i >= 0 && l.runs[i].covers(at) {
		return l.runs[i]
	}
	return nil
}

// behind is the run in which what comes behind the place begins.
func (l *dirList) behind(from store.Cursor) *stretch {
	i, found := slices.BinarySearchFunc(l.runs, from, func(r *stretch, from store.Cursor) int { return r.from.Compare(from) })
	if !found {
		i--
	}
	if i >= 0 && l.runs[i].from.Compare(from) <= 0 && (l.runs[i].end || from.Compare(l.runs[i].to) < 0) {
		return l.runs[i]
	}
	return nil
}

// find looks for a name: the entry, when what says so was asked, and whether
// that is known at all. A name has two places, as a file's and as a directory's.
func (l *dirList) find(name string, fresh func(*stretch) bool) (e store.Entry, found bool, at time.Time, sure bool) {
	sure = true
	for _, mode := range []uint32{store.ModeRegular, store.ModeDir} {
		r := l.covering(position(name, mode))
		if r == nil || !fresh(r) {
			sure = false
			continue
		}
		if at.IsZero() || r.at.Before(at) {
			at = r.at
		}
		if e, ok := r.find(name, mode); ok {
			return e, true, r.at, true
		}
	}
	return store.Entry{}, false, at, sure
}

func (r *stretch) find(name string, mode uint32) (store.Entry, bool) {
	if e, ok := r.over[name]; ok {
		if e == nil || e.IsDir() != (mode == store.ModeDir) {
			return store.Entry{}, false
		}
		return *e, true
	}
	probe := store.Entry{Name: name, Attr: store.Attr{Mode: mode}}
	i, ok := slices.BinarySearchFunc(r.base, probe, store.Order)
	if !ok || r.base[i].Name != name {
		return store.Entry{}, false
	}
	return r.base[i], true
}

// change notes that the name is e now, or gone.
func (l *dirList) change(name string, e *store.Entry) {
	for _, mode := range []uint32{store.ModeRegular, store.ModeDir} {
		r := l.covering(position(name, mode))
		if r == nil {
			continue
		}
		if r.over == nil {
			r.over = map[string]*store.Entry{}
		}
		if e != nil && r.covers(store.Behind(*e)) {
			r.over[name] = e
		} else {
			r.over[name] = nil
		}
	}
}

// entries merges the changes in.
func (r *stretch) entries() []store.Entry {
	if len(r.over) == 0 {
		return r.base
	}
	var changed []store.Entry
	for _, e := range r.over {
		if e != nil {
			changed = append(changed, *e)
		}
	}
	slices.SortFunc(changed, store.Order)
	kept := make([]store.Entry, 0, len(r.base)+len(changed))
	for _, e := range r.base {
		if _, ok := r.over[e.Name]; !ok {
			kept = append(kept, e)
		}
	}
	page := store.Page{Entries: kept, Done: true}
	r.base, r.over = page.Merge(store.Cursor{}, changed).Entries, nil
	return r.base
}

// page is what comes behind the place, which the run has.
func (r *stretch) page(from store.Cursor) store.Page {
	all := r.entries()
	if r.from.Compare(from) < 0 {
		i, _ := slices.BinarySearchFunc(all, from, func(e store.Entry, from store.Cursor) int {
			if from.Before(e) {
				return 1
			}
			return -1
		})
		all = all[i:]
	}
	return store.Page{Entries: all, Next: r.to, Done: r.end}
}

// without is what is left of a run beside r.
func (r *stretch) without(n *stretch) []*stretch {
	if !r.end && r.to.Compare(n.from) <= 0 || !n.end && n.to.Compare(r.from) <= 0 {
		return []*stretch{r}
	}
	var left []*stretch
	if r.from.Compare(n.from) < 0 {
		l := *r
		l.to, l.end, l.over = n.from, false, nil
		l.base = slices.DeleteFunc(slices.Clone(r.entries()), n.from.Before)
		left = append(left, &l)
	}
	if !n.end && (r.end || n.to.Compare(r.to) < 0) {
		l := *r
		l.from, l.base, l.over = n.to, r.page(n.to).Entries, nil
		left = append(left, &l)
	}
	return left
}

// add puts in a run, in place of what it overlaps.
func (l *dirList) add(r *stretch) {
	var runs []*stretch
	for _, old := range l.runs {
		runs = append(runs, old.without(r)...)
	}
	l.runs = runs
	i, _ := slices.BinarySearchFunc(l.runs, r.from, func(old *stretch, from store.Cursor) int { return old.from.Compare(from) })
	l.runs = slices.Insert(l.runs, i, r)
	if r.pass != nil {
		return
	}
	// What one listing asked for piece by piece counts from its last answer
	// on: who lists a large directory looks at the names when it has them all.
	r.pass = new(int)
	if i > 0 && !l.runs[i-1].end && l.runs[i-1].to.Compare(r.from) == 0 {
		r.pass = l.runs[i-1].pass
	}
	for _, old := range l.runs[:i] {
		if old.pass == r.pass {
			old.given = r.given
		}
	}
}

// shrink drops the oldest runs until no more than that many entries are left
// beside those of the newest.
func (l *dirList) shrink(limit int64) {
	for l.cost() > limit && len(l.runs) > 1 {
		oldest := 0
		for i, r := range l.runs {
			if r.at.Before(l.runs[oldest].at) {
				oldest = i
			}
		}
		l.runs = slices.Delete(l.runs, oldest, oldest+1)
	}
}

// all are all entries, if they are known.
func (l *dirList) all() (all []store.Entry, whole bool) {
	var at store.Cursor
	for _, r := range l.runs {
		if r.from.Compare(at) != 0 {
			return nil, false
		}
		all = append(all, r.entries()...)
		if r.end {
			return all, true
		}
		at = r.to
	}
	return nil, false
}

// dirs returns up to n names of directories behind a place, as far as they
// are known.
func (l *dirList) dirs(from store.Cursor, n int) []string {
	var names []string
	for {
		r := l.behind(from)
		if r == nil {
			return names
		}
		for _, e := range r.page(from).Entries {
			if e.IsDir() {
				if names = append(names, e.Name); len(names) == n {
					return names
				}
			}
		}
		if r.end {
			return names
		}
		from = r.to
	}
}

// dirBefore is the last directory before the place, "" where there is none. Not
// known: that may have been forgotten.
func (l *dirList) dirBefore(at store.Cursor) (name string, known bool) {
	for r := l.covering(at); r != nil; r = l.covering(r.from) {
		for _, e := range slices.Backward(r.entries()) {
			if e.IsDir() && at.Compare(store.Behind(e)) > 0 {
				return e.Name, true
			}
		}
		if r.from.IsStart() {
			return "", true
		}
	}
	return "", false
}
