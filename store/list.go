package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// Page is a run of the entries of a directory, in their order: that of the
// keys, in which a directory counts with its '/'.
type Page struct {
	Entries []Entry
	Next    Cursor // where the next page begins
	Done    bool   // there is none
}

// Cursor is a place in the order of a directory's entries. The zero value is
// before all of them. It stays good whatever changes in the directory.
type Cursor struct {
	key   string
	set   bool
	token string // the store's own name for the place; only for its next page
}

// Behind is the place right behind the entry.
func Behind(e Entry) Cursor { return Cursor{key: e.order(), set: true} }

// Near is a place before the entry of that name, whatever it is, with few
// others between them; the start where there is none.
func Near(name string) Cursor {
	key, _, err := keyComponent(name)
	if err != nil {
		return Cursor{}
	}
	_, size := utf8.DecodeLastRuneInString(key)
	if key = key[:len(key)-size]; key == "" {
		return Cursor{}
	}
	return Cursor{key: key, set: true}
}

// IsStart says whether c is before all entries.
func (c Cursor) IsStart() bool { return !c.set }

// Before says whether the entry is behind c.
func (c Cursor) Before(e Entry) bool { return !c.set || e.order() > c.key }

// Compare orders places.
func (c Cursor) Compare(o Cursor) int {
	switch {
	case c.set != o.set:
		if c.set {
			return 1
		}
		return -1
	}
	return strings.Compare(c.key, o.key)
}

// Order compares two entries of a directory by their places in its listing.
func Order(a, b Entry) int { return strings.Compare(a.order(), b.order()) }

// order is by what entries of a directory are sorted: their keys' components.
func (e Entry) order() string {
	key := e.Name
	if strings.HasPrefix(key, escapeMark) || !utf8.ValidString(key) {
		if component, _, err := keyComponent(key); err == nil {
			key = component
		}
	}
	if e.IsDir() {
		key += "/"
	}
	return key
}

// List implements Tree.
func (s *Store) List(ctx context.Context, dir Path) iter.Seq2[Entry, error] {
	return Pages(func(from Cursor) (Page, error) { return s.ListPage(ctx, dir, from) })
}

// Pages yields the entries of all pages that next returns.
func Pages(next func(from Cursor) (Page, error)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var page Page
		var err error
		for !page.Done {
			if page, err = next(page.Next); err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Merge puts entries into a page that begins at from: those in its range. They
// are sorted by Order, and take the place of what has the same name.
func (p Page) Merge(from Cursor, over []Entry) Page {
	over = slices.DeleteFunc(slices.Clone(over), func(e Entry) bool {
		return !from.Before(e) || !p.Done && p.Next.Before(e)
	})
	if len(over) == 0 {
		return p
	}
	names := make(map[string]struct{}, len(over))
	for _, e := range over {
		names[e.Name] = struct{}{}
	}
	merged := make([]Entry, 0, len(p.Entries)+len(over))
	for _, e := range p.Entries {
		if _, replaced := names[e.Name]; replaced {
			continue
		}
		for len(over) > 0 && Order(over[0], e) < 0 {
			merged, over = append(merged, over[0]), over[1:]
		}
		merged = append(merged, e)
	}
	p.Entries = append(merged, over...)
	return p
}

// ListPage implements Tree: one request, as a rule. The root is one page.
func (s *Store) ListPage(ctx context.Context, dir Path, from Cursor) (Page, error) {
	page, err := s.listPage(ctx, dir, from)
	return page, fail("list", dir, err)
}

func (s *Store) listPage(ctx context.Context, dir Path, from Cursor) (Page, error) {
	pl, err := s.place(dir)
	if err != nil {
		return Page{}, err
	}
	if pl.shadow {
		return Page{}, fmt.Errorf("%q: %w", dir, ErrNotDir)
	}
	l := &lister{s: s, dir: pl.dir, from: from}
	var group sync.WaitGroup
	group.Go(func() { l.known = s.known(ctx) })
	err = l.ask(ctx)
	group.Wait()
	if err != nil {
		return Page{}, err
	}
	switch {
	case pl.dir == "":
		for name, err := range s.refs(ctx) {
			if err != nil {
				return Page{}, err
			}
			if _, found := slices.BinarySearch(l.page.Prefixes, name+"/"); !found {
				l.page.Prefixes = append(l.page.Prefixes, name+"/")
				slices.Sort(l.page.Prefixes)
			}
		}
	case !from.set && len(l.page.Objects)+len(l.page.Prefixes) == 0 && l.page.Next == "":
		if err := s.existsEmpty(ctx, pl); err != nil {
			return Page{}, err
		}
	}
	return l.entries(ctx)
}

// lister makes a page of what the bucket lists.
type lister struct {
	s     *Store
	dir   string // prefix of the keys
	from  Cursor
	known knowledge
	page  backend.Page
	asked time.Time // the request began
}

// ask asks for a page, or for as many as it takes to get on.
func (l *lister) ask(ctx context.Context) error {
	l.asked = time.Now()
	opts := backend.ListOptions{Prefix: l.dir, Delimited: true, Token: l.from.token}
	if l.from.set && opts.Token == "" && l.s.b.Caps().ListAfter {
		opts.After = l.dir + l.from.key
	}
	for {
		page, err := l.s.b.ListPage(ctx, opts)
		if err != nil {
			return err
		}
		if l.from.set { // where the store did not begin behind it
			behind := func(key string) bool { return strings.TrimPrefix(key, l.dir) <= l.from.key }
			page.Objects = slices.DeleteFunc(page.Objects, func(i backend.Info) bool { return behind(i.Key) })
			page.Prefixes = slices.DeleteFunc(page.Prefixes, behind)
		}
		l.page.Objects = append(l.page.Objects, page.Objects...)
		l.page.Prefixes = append(l.page.Prefixes, page.Prefixes...)
		l.page.Next = page.Next
		whole := l.dir == "" // the refs of branches are to be sorted in
		if page.Next == "" || !whole && len(l.page.Objects)+len(l.page.Prefixes) > 0 {
			return nil
		}
		opts.Token, opts.After = page.Next, ""
	}
}

// entries are those of the page.
func (l *lister) entries(ctx context.Context) (Page, error) {
	objects, prefixes := l.page.Objects, l.page.Prefixes
	out := Page{Entries: make([]Entry, 0, len(objects)+len(prefixes)), Done: l.page.Next == ""}
	last := ""
	if n := len(objects); n > 0 {
		last = objects[n-1].Key
	}
	if n := len(prefixes); n > 0 {
		last = max(last, prefixes[n-1])
	}
	if !out.Done {
		out.Next = Cursor{key: strings.TrimPrefix(last, l.dir), set: true, token: l.page.Next}
		// Whether the last object is a prefix, too, only what follows tells: it
		// is left to the next page.
		if n := len(objects); n > 1 && objects[n-1].Key == last && l.s.b.Caps().ListAfter {
			objects = objects[:n-1]
			before := objects[n-2].Key
			if n := len(prefixes); n > 0 {
				before = max(before, prefixes[n-1])
			}
			out.Next = Cursor{key: strings.TrimPrefix(before, l.dir), set: true}
		}
	}
	marker := false
	for len(objects) > 0 || len(prefixes) > 0 {
		if len(objects) == 0 || len(prefixes) > 0 && prefixes[0] < objects[0].Key {
			if e, ok := l.prefix(prefixes[0]); ok {
				out.Entries = append(out.Entries, e)
			}
			prefixes = prefixes[1:]
			continue
		}
		info := objects[0]
		objects = objects[1:]
		if info.Key == l.dir && info.Size == 0 {
			marker = true
			continue
		}
		both, err := l.isPrefix(ctx, info.Key, prefixes, last)
		if err != nil {
			return Page{}, err
		}
		if e, ok := l.object(info, both); ok {
			out.Entries = append(out.Entries, e)
		}
	}
	if marker {
		l.s.noteMarker(l.dir)
	} else if !l.from.set {
		l.s.noteOthers(l.dir, len(out.Entries), l.asked)
	}
	return out, nil
}

// isPrefix says whether there are keys below that of an object, too. Where
// the page ends before that shows, the bucket is asked.
func (l *lister) isPrefix(ctx context.Context, key string, prefixes []string, last string) (bool, error) {
	if _, found := slices.BinarySearch(prefixes, key+"/"); found {
		return true, nil
	}
	if l.page.Next == "" || last >= key+"/" {
		return false, nil
	}
	first, err := l.s.peek(ctx, key+"/", 1)
	return len(first) > 0, err
}

// prefix is the directory of a common prefix; not ok where it cannot be shown.
func (l *lister) prefix(key string) (Entry, bool) {
	component := strings.TrimSuffix(strings.TrimPrefix(key, l.dir), "/")
	if l.dir == "" && strings.HasPrefix(component, reserved) {
		if component != reserved {
			l.s.notShown(key)
		}
		return Entry{}, false
	}
	name := displayName(component)
	if len(name) > MaxName {
		l.s.notShown(key)
		return Entry{}, false
	}
	return l.known.dir(&l.s.opts, name), true
}

// object is the file of an object; both: there is a directory of that key, too.
func (l *lister) object(info backend.Info, both bool) (Entry, bool) {
	component := strings.TrimPrefix(info.Key, l.dir)
	if l.dir == "" && strings.HasPrefix(component, reserved) {
		l.s.notShown(info.Key)
		return Entry{}, false
	}
	name, ok := displayName(component), true
	if both {
		name, ok = shadowName(component)
	}
	if !ok || len(name) > MaxName {
		l.s.notShown(info.Key)
		return Entry{}, false
	}
	return l.known.file(&l.s.opts, name, info), true
}
