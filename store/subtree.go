package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// Run is a part of a directory's listing, found by listing all that is below
// a directory above it.
type Run struct {
	Dir  Path
	From Cursor // where Page begins
	Page
}

// SubtreePage is what one request tells of all that is below a directory.
type SubtreePage struct {
	Runs []Run
	Next Spot
	Done bool
}

// Spot is a place in the order of all keys below a directory. The zero value
// is before all of them.
type Spot struct {
	key   string // behind it; within the branch
	token string
}

// SpotOf is the place of the directory p from which its entries behind from
// come: right before all that is in it for the start.
func (s *Store) SpotOf(p Path, from Cursor) (Spot, error) {
	if p.IsRoot() && from.IsStart() {
		return Spot{}, nil
	}
	pl, err := s.place(p)
	if err != nil {
		return Spot{}, err
	}
	if !from.IsStart() {
		return Spot{key: strings.TrimPrefix(pl.dir, s.prefix) + from.key}, nil
	}
	// '.' is the character before '/', and no key has a greater one behind it.
	return Spot{key: strings.TrimPrefix(pl.key, s.prefix) + "." + lastRune}, nil
}

const lastRune = "\U0010ffff"

// Before orders places.
func (p Spot) Before(o Spot) bool { return p.key < o.key }

// Is says whether both are the same place.
func (p Spot) Is(o Spot) bool { return p.key == o.key }

// Within says whether p is a place in a directory that o is right behind: what
// is listed from p on tells of what comes behind that directory as well.
func (p Spot) Within(o Spot) bool {
	return strings.HasSuffix(o.key, "/") && strings.HasPrefix(p.key, o.key)
}

// CanWalk says whether SubtreePage can begin anywhere.
func (s *Store) CanWalk() bool { return !s.isRoot() && s.b.Caps().ListAfter }

// StrongList says whether a listing shows all that was acknowledged before it,
// as far as that is known.
func (s *Store) StrongList() bool {
	if caps := s.probed.Load(); caps != nil {
		return caps.StrongList
	}
	return s.b.Caps().StrongList
}

// SubtreePage lists what is below dir in the order of the keys, from a place
// on, whatever directory it is in: one request a page. Not for the root.
func (s *Store) SubtreePage(ctx context.Context, dir Path, from Spot) (SubtreePage, error) {
	pl, err := s.place(dir)
	if err != nil {
		return SubtreePage{}, err
	}
	if pl.shadow || s.isRoot() {
		return SubtreePage{}, fmt.Errorf("%q: %w", dir, ErrNotDir)
	}
	w := &subtree{s: s, low: s.prefix + from.key, asked: time.Now()}
	var group sync.WaitGroup
	group.Go(func() { w.known = s.known(ctx) })
	opts := backend.ListOptions{Prefix: pl.dir, Token: from.token}
	if from.key != "" {
		opts.After = w.low
	}
	page, err := s.b.ListPage(ctx, opts)
	group.Wait()
	if err != nil {
		return SubtreePage{}, fail("list", dir, err)
	}
	if len(page.Objects) == 0 && page.Next != "" {
		return SubtreePage{}, backend.Fail("list", pl.dir, backend.ErrIO, fmt.Errorf("an empty page"))
	}
	w.begin(pl)
	// Whether the last object is a prefix, too, only the next key tells: it is
	// left to the next page.
	seen, left := "", page.Next != "" && len(page.Objects) > 1
	if n := len(page.Objects); page.Next != "" {
		seen = page.Objects[n-1].Key
		if left {
			page.Objects, page.Next = page.Objects[:n-1], ""
		}
	}
	for _, info := range page.Objects {
		w.add(info)
	}
	out := SubtreePage{Done: page.Next == "" && !left}
	if !out.Done {
		last := page.Objects[len(page.Objects)-1].Key
		out.Next = Spot{key: strings.TrimPrefix(last, s.prefix), token: page.Next}
		if err := w.cut(ctx, last, seen); err != nil {
			return SubtreePage{}, err
		}
	}
	w.close(0)
	out.Runs = w.runs
	return out, nil
}

// subtree turns keys into listings of directories.
type subtree struct {
	s     *Store
	known knowledge
	low   string // the keys are behind it
	asked time.Time
	open  []folder // the directories of the last key, outermost first
	runs  []Run
}

// folder is a directory whose keys are being read.
type folder struct {
	path    Path
	prefix  string
	lost    bool // it cannot be shown, nor what is below it
	from    Cursor
	entries []Entry
	marker  bool
	to      Cursor
	more    bool // the page ends before the directory does
}

// begin opens the directories that the page begins in.
func (w *subtree) begin(pl place) {
	w.open = append(w.open, folder{path: pl.path, prefix: pl.dir})
	for {
		f := &w.open[len(w.open)-1]
		rest, inside := strings.CutPrefix(w.low, f.prefix)
		if !inside || w.low == w.s.prefix {
			return
		}
		component, _, deeper := strings.Cut(rest, "/")
		if !deeper {
			f.from = Cursor{key: component, set: true}
			return
		}
		f.from = Cursor{key: component + "/", set: true}
		w.push(component)
	}
}

// push opens a directory in the last one.
func (w *subtree) push(component string) {
	parent := &w.open[len(w.open)-1]
	name := displayName(component)
	f := folder{prefix: parent.prefix + component + "/", lost: parent.lost || len(name) > MaxName}
	if !f.lost {
		f.path = parent.path.join(name)
	}
	w.open = append(w.open, f)
}

// close ends the directories from depth n on.
func (w *subtree) close(n int) {
	for len(w.open) > n {
		f := w.open[len(w.open)-1]
		w.open = w.open[:len(w.open)-1]
		if !f.lost {
			w.note(&f)
			w.runs = append(w.runs, Run{Dir: f.path, From: f.from, Page: Page{Entries: f.entries, Next: f.to, Done: !f.more}})
		}
	}
}

// note remembers what keeps the directory alive, if the page begins with it.
func (w *subtree) note(f *folder) {
	switch {
	case f.marker:
		w.s.noteMarker(f.prefix)
	case !f.from.set:
		w.s.noteOthers(f.prefix, len(f.entries), w.asked)
	}
}

// add takes the next key.
func (w *subtree) add(info backend.Info) {
	depth := 1
	for depth < len(w.open) && strings.HasPrefix(info.Key, w.open[depth].prefix) {
		depth++
	}
	w.close(depth)
	for {
		f := &w.open[len(w.open)-1]
		component, _, deeper := strings.Cut(strings.TrimPrefix(info.Key, f.prefix), "/")
		if !deeper {
			break
		}
		w.directory(f, component, info)
		w.push(component)
	}
	f := &w.open[len(w.open)-1]
	component := strings.TrimPrefix(info.Key, f.prefix)
	if component == "" && info.Size == 0 {
		f.marker = true
		return
	}
	name := displayName(component)
	if len(name) > MaxName {
		w.s.notShown(info.Key)
		return
	}
	f.entries = append(f.entries, w.known.file(&w.s.opts, name, info))
}

// directory adds a directory whose first key info is.
func (w *subtree) directory(f *folder, component string, info backend.Info) {
	name := displayName(component)
	if len(name) > MaxName {
		w.s.notShown(f.prefix + component + "/")
		return
	}
	f.shadow(w.s, component)
	e := w.known.dir(&w.s.opts, name)
	marker := info.Key == f.prefix+component+"/" && info.Size == 0
	switch {
	case !marker || info.ModTime.Before(w.known.before):
		e = knowledge{all: true}.dir(&w.s.opts, name)
		e.Marker = marker
	case e.Partial:
		e.Marker, e.Changed = true, info.ModTime
	}
	f.entries = append(f.entries, e)
}

// shadow gives the object of a key that is a prefix, too, its other name.
func (f *folder) shadow(s *Store, component string) {
	i, found := slices.BinarySearchFunc(f.entries, component, func(e Entry, c string) int { return strings.Compare(e.order(), c) })
	if !found {
		return
	}
	name, ok := shadowName(component)
	if !ok {
		s.notShown(f.prefix + component)
		f.entries = slices.Delete(f.entries, i, i+1)
		return
	}
	f.entries[i].Name = name
}

// cut notes that the page ends with the key last, while one as far as seen is known.
func (w *subtree) cut(ctx context.Context, last, seen string) error {
	for i := range w.open {
		f := &w.open[i]
		component, _, deeper := strings.Cut(strings.TrimPrefix(last, f.prefix), "/")
		if deeper {
			component += "/"
		}
		f.more, f.to = true, Cursor{key: component, set: true}
		rest, inside := strings.CutPrefix(seen, f.prefix)
		if !inside {
			continue
		}
		// Objects of which it does not show yet whether they are prefixes.
		for _, e := range slices.Backward(f.entries) {
			own := e.order()
			if e.IsDir() || !strings.HasPrefix(rest, own) {
				continue
			}
			if strings.HasPrefix(rest, own+"/") {
				f.shadow(w.s, own)
			}
			if rest >= own+"/" {
				continue
			}
			first, err := w.s.peek(ctx, f.prefix+own+"/", 1)
			if err != nil {
				return err
			}
			if len(first) > 0 {
				f.shadow(w.s, own)
			}
		}
	}
	return nil
}
