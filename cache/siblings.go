package cache

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// siblings fetches small files ahead of whoever reads those of a directory one
// after another, by their names or by their numbers, as cp -r does, each by one
// request that answers lookup, open and reads. At the end of a directory that is
// read by names it goes on with the next one beside it.
//
// An open takes what was fetched ahead for true once, if it was asked for less
// than the time to live ago, and aheadLife at most: see metadata.takeAhead.
type siblings struct {
	c      *Cache
	budget int64 // bytes fetched ahead of one walk, at most; 0 fetches nothing

	mu    sync.Mutex
	walks []*walk // latest first
}

// walk is the opening of the files of one directory in their order.
type walk struct {
	t   *tree
	dir store.Path

	hash     uint64 // of the directory, for the numbers in it
	byNumber bool   // the order of the walk, which files have as well
	latest   string // opened
	up       [2]int // files opened in the order of names, and of numbers, up to the latest

	run     int           // files opened in order
	last    string        // name of the last of them
	before  string        // and of the one before
	listing bool          // files are being asked for
	files   []store.Entry // of the directory, by name; nil where not known
	listed  time.Time     // when that was
	at      int           // the last one opened, in files
	next    int           // the next one to fetch
	window  int           // how many to fetch ahead
	went    bool          // on to the next directory
}

const (
	maxWalks      = 8
	walkAfter     = 3                // files in order
	turnAfter     = 10               // files in the other order
	firstFiles    = 4                // window
	maxFiles      = 64               // window; and by how much several readers of one directory overtake each other
	skipFiles     = 8                // that a walk leaves out
	smallFile     = 1 << 20          // bytes; what is larger is not fetched ahead
	openWhole     = 128 << 10        // bytes; what is not larger is fetched with the question that its open asks
	maxWalked     = 100_000          // entries of a directory
	aheadFraction = 4                // of the memory that may be used for it
	listLife      = 10 * time.Second // of what is known of a directory, when it is read anew
)

// opened takes that a file was opened to be read. hit: it had been fetched ahead.
func (s *siblings) opened(t *tree, p store.Path, hit bool) {
	if s.budget <= 0 || t.c.meta.ttl < 0 || p.IsRoot() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.walkLocked(t, p.Dir())
	w.noteOrders(p.Name())
	if w.files == nil {
		w.noteUnlisted(p.Name())
	} else {
		w.note(p.Name(), hit)
	}
	s.advanceLocked(w)
}

// walkLocked is the walk in a directory, put in front.
func (s *siblings) walkLocked(t *tree, dir store.Path) *walk {
	i := slices.IndexFunc(s.walks, func(w *walk) bool { return w.t == t && w.dir == dir })
	var w *walk
	if i >= 0 {
		w = s.walks[i]
		s.walks = slices.Delete(s.walks, i, i+1)
	} else {
		w = &walk{t: t, dir: dir, hash: store.NumberDir(t.Name(), dir.String())}
		s.walks = s.walks[:min(len(s.walks), maxWalks-1)]
	}
	s.walks = slices.Insert(s.walks, 0, w)
	return w
}

// compare compares names in the order of the walk, or in the other one.
func (w *walk) compare(a, b string, other bool) int {
	if w.byNumber != other {
		return cmp.Compare(store.Number(w.hash, a), store.Number(w.hash, b))
	}
	return strings.Compare(a, b)
}

// index is where a file is, or would be.
func (w *walk) index(name string) (i int, found bool) {
	return slices.BinarySearchFunc(w.files, name, func(e store.Entry, name string) int { return w.compare(e.Name, name, false) })
}

// noteOrders counts the files that are opened in either order.
func (w *walk) noteOrders(name string) {
	for i, other := range []bool{w.byNumber, !w.byNumber} {
		if w.compare(name, w.latest, other) <= 0 {
			w.up[i] = 0
		}
		w.up[i]++
	}
	w.latest = name
}

// ups are the files opened in the order of the walk, and in the other one.
func (w *walk) ups() (this, other int) {
	if w.byNumber {
		return w.up[1], w.up[0]
	}
	return w.up[0], w.up[1]
}

// turn makes the other order the one of the walk, which is at a name.
func (w *walk) turn(name string) {
	w.byNumber = !w.byNumber
	w.run, _ = w.ups()
	slices.SortFunc(w.files, func(a, b store.Entry) int { return w.compare(a.Name, b.Name, false) })
	if i, found := w.index(name); found {
		w.at, w.next, w.window, w.last, w.went = i, i+1, firstFiles, name, false
	}
}

// noteUnlisted takes a name while the others are not known.
func (w *walk) noteUnlisted(name string) {
	if this, other := w.ups(); this < walkAfter && other >= walkAfter {
		w.turn(name)
	}
	w.run, _ = w.ups()
	w.before, w.last = w.last, name
}

// note takes a name. A window grows as long as what is fetched ahead is used.
func (w *walk) note(name string, hit bool) {
	if this, other := w.ups(); other >= turnAfter && other > this {
		w.turn(name)
		return
	}
	i, found := w.index(name)
	switch {
	case !found || i <= w.at && i > w.at-maxFiles: // new, or by another reader
		return
	case i <= w.at || i > w.at+skipFiles && i >= w.next: // elsewhere
		if time.Since(w.listed) > listLife {
			w.files = nil
		}
		w.run, w.window, w.at, w.next, w.last, w.went = 1, 0, i, i+1, name, false
		return
	case i < w.next && !hit: // too long ago
		w.window = max(firstFiles, w.window/2)
	default:
		w.window = min(maxFiles, max(firstFiles, 2*w.window))
	}
	w.run++
	w.at, w.last = i, name
	w.next = max(w.next, i+1)
}

// advanceLocked fetches what the window has room for.
func (s *siblings) advanceLocked(w *walk) {
	if w.run < walkAfter {
		return
	}
	if w.files == nil {
		if !w.listing {
			w.listing = s.c.start(func() { s.list(w) }) == nil
		}
		return
	}
	var bytes int64
	for _, e := range w.files[min(w.at+1, w.next):w.next] {
		bytes += e.Size
	}
	for ; w.next < len(w.files) && w.next <= w.at+w.window; w.next++ {
		e := w.files[w.next]
		if e.Size > smallFile {
			continue
		}
		if bytes += e.Size; bytes > s.budget {
			return
		}
		path, err := w.dir.Join(e.Name)
		if err != nil || w.t.named(path) != nil || w.t.removed(path) != nil {
			continue
		}
		s.fetch(w.t, path, e)
	}
	if w.at+w.window >= len(w.files) && !w.went && !w.byNumber {
		w.went = s.c.start(func() { s.follow(w) }) == nil
	}
}

func (s *siblings) context() context.Context {
	return backend.WithPriority(s.c.ctx, backend.ReadAhead)
}

// fetch begins to ask for one file.
func (s *siblings) fetch(t *tree, p store.Path, seen store.Entry) {
	t.c.meta.askAhead(s.context(), t.Name(), p, t.c.asked.Add(1), func(ctx context.Context) (store.Entry, error) {
		return t.headWhole(ctx, p, seen)
	})
}

// list finds out what files the directory of a walk has.
func (s *siblings) list(w *walk) {
	files := s.files(w.t, w.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.listing = files == nil // not again
	if w.files != nil {
		w.run = 0
		return
	}
	w.files = files
	if w.byNumber {
		slices.SortFunc(w.files, func(a, b store.Entry) int { return w.compare(a.Name, b.Name, false) })
	}
	i, found := w.index(w.last)
	if !found {
		w.files, w.run = nil, 0
		return
	}
	w.listed, w.at, w.next, w.window = time.Now(), i, i+1, firstFiles
	if j, found := w.index(w.before); !found || j >= i || j < i-skipFiles {
		w.run, w.window = 1, 0 // it only looked like an order
	}
	s.advanceLocked(w)
}

// files are the files of a directory.
func (s *siblings) files(t *tree, dir store.Path) []store.Entry {
	all, err := s.c.meta.list(s.context(), t.store, dir, maxWalked)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(e store.Entry) bool { return !e.IsRegular() })
}

// follow begins a walk in the directory behind that of w, which is at its end.
func (s *siblings) follow(w *walk) {
	if w.dir.IsRoot() {
		return
	}
	beside, err := s.c.meta.list(s.context(), w.t.store, w.dir.Dir(), maxWalked)
	if err != nil {
		return
	}
	i := slices.IndexFunc(beside, func(e store.Entry) bool { return e.IsDir() && e.Name > w.dir.Name() })
	if i < 0 {
		return
	}
	dir, err := w.dir.Dir().Join(beside[i].Name)
	if err != nil {
		return
	}
	files := s.files(w.t, dir)
	if len(files) == 0 {
		return
	}
	if _, err := s.c.meta.lookup(s.context(), w.t.store, dir); err != nil { // which its readers do first
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.walkLocked(w.t, dir)
	if next.files == nil {
		*next = walk{t: w.t, dir: dir, hash: next.hash, run: w.run, files: files, listed: time.Now(), at: -1, window: w.window}
	}
	s.advanceLocked(next)
}

// headWhole asks for a file that was seen a moment ago. Unless its content is
// here, it comes with the answer.
func (t *tree) headWhole(ctx context.Context, p store.Path, seen store.Entry) (store.Entry, error) {
	f := t.c.fetch
	object := func(e store.Entry) (*object, error) { return origin{t.store, p, e.Version, e.Size}.object() }
	if o, err := object(seen); err != nil || seen.Size == 0 || f.holds(o) {
		return t.store.Head(ctx, p)
	}
	var data []byte
	e, err := t.store.HeadRead(ctx, p, func(e store.Entry, body io.Reader) error {
		if data = nil; !e.IsRegular() || e.Size > smallFile {
			return nil
		}
		data = make([]byte, e.Size)
		return readFull(body, data)
	})
	if err != nil || len(data) == 0 {
		return e, err
	}
	if o, err := object(e); err == nil {
		f.keep(o, data)
	}
	return e, nil
}
