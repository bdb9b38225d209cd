package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// Warming is how far a Warm is. All methods are safe for concurrent use.
type Warming struct {
	names, dirs, files, bytes atomic.Int64
}

// Names is how many names are listed, and Dirs in how many directories.
func (w *Warming) Names() int64 { return w.names.Load() }

// Dirs is the number of directories listed.
func (w *Warming) Dirs() int64 { return w.dirs.Load() }

// Files is how many files were fetched or asked for what no listing tells.
func (w *Warming) Files() int64 { return w.files.Load() }

// Bytes is how much content is in the cache of what was asked for.
func (w *Warming) Bytes() int64 { return w.bytes.Load() }

const (
	warmPieces = 8  // of a tree that are listed side by side
	warmFiles  = 32 // that are asked about, or fetched, side by side
	warmAgain  = 3  // times that a page is listed again because of changes here
)

// Warm learns the names and attributes of all that is at p in the branch and
// below it, by a listing of all keys in pieces side by side; with data also the
// contents of the files, as far as the cache has room. The times to live count
// from its end. For the branch "" it is about all branches. store.ErrNotExist.
func (c *Cache) Warm(ctx context.Context, branch string, p store.Path, data bool, progress *Warming) error {
	if err := c.check(); err != nil {
		return err
	}
	ctx, cancel := c.bound(backend.WithPriority(ctx, backend.ReadAhead))
	defer cancel()
	if branch == "" {
		return c.warmRoot(ctx, data, progress)
	}
	of, err := c.Branch(ctx, branch)
	if err != nil {
		return err
	}
	w := &warmer{t: of.(*tree), p: p, progress: progress, began: time.Now()}
	w.rest = sync.NewCond(&w.mu)
	return w.run(ctx, data)
}

// warmRoot warms one branch after the other.
func (c *Cache) warmRoot(ctx context.Context, data bool, progress *Warming) error {
	for e, err := range c.Root().List(ctx, store.Path{}) {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if err := c.Warm(ctx, e.Name, store.Path{}, data, progress); err != nil {
				return err
			}
		}
	}
	return nil
}

// warmer is one Warm of one branch.
type warmer struct {
	t        *tree
	p        store.Path
	progress *Warming
	began    time.Time

	mu    sync.Mutex
	rest  *sync.Cond // what follows has changed
	todo  []*keySpan
	busy  int // who lists one
	idle  int // who waits for one to list
	err   error
	files []wanted
}

// keySpan is a part of the keys of a tree.
type keySpan struct {
	pos  store.Spot
	end  store.Spot
	open bool // it has no end
}

// wanted is a file to be asked about, or fetched.
type wanted struct {
	path store.Path
	size int64
}

func (w *warmer) run(ctx context.Context, data bool) error {
	m, s := w.t.c.meta, w.t.store
	e, err := w.t.Lookup(ctx, w.p)
	if err != nil {
		return err
	}
	switch {
	case !e.IsDir():
		w.want(data, w.p.Dir(), []store.Entry{e})
	case s.CanWalk():
		w.todo = []*keySpan{{open: true}}
		if w.todo[0].pos, err = s.SpotOf(w.p, store.Cursor{}); err != nil {
			return err
		}
		var group sync.WaitGroup
		for range warmPieces {
			group.Go(func() { w.work(ctx, data) })
		}
		group.Wait()
	default:
		group, gctx := errgroup.WithContext(ctx)
		room := make(chan struct{}, warmPieces)
		group.Go(func() error { return w.listDir(gctx, group, room, w.p, data) })
		w.err = group.Wait()
	}
	if w.err == nil {
		w.err = w.fetch(ctx, data)
	}
	m.date(s.CurrentBranch(), w.p, w.began)
	return w.err
}

// listDir lists one directory after the other, where the store cannot list
// from any key on.
func (w *warmer) listDir(ctx context.Context, group *errgroup.Group, room chan struct{}, dir store.Path, data bool) error {
	room <- struct{}{}
	defer func() { <-room }()
	w.progress.dirs.Add(1)
	for from := (store.Cursor{}); ; {
		page, err := w.t.c.meta.listPage(ctx, w.t.store, dir, from)
		if err != nil {
			return err
		}
		w.want(data, dir, page.Entries)
		for _, e := range page.Entries {
			if p, err := dir.Join(e.Name); err == nil && e.IsDir() {
				group.Go(func() error { return w.listDir(ctx, group, room, p, data) })
			}
		}
		if page.Done {
			return nil
		}
		from = page.Next
	}
}

// work lists spans until there are none left.
func (w *warmer) work(ctx context.Context, data bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.todo) == 0 && w.busy > 0 && w.err == nil {
			w.idle++
			w.rest.Wait()
			w.idle--
		}
		if len(w.todo) == 0 || w.err != nil {
			return
		}
		next := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		w.busy++
		w.mu.Unlock()
		err := w.list(ctx, next, data)
		w.mu.Lock()
		w.busy--
		w.err = errors.Join(w.err, err)
		w.rest.Broadcast()
	}
}

// list lists a span, and leaves parts of it to who has nothing to do.
func (w *warmer) list(ctx context.Context, sp *keySpan, data bool) error {
	for again := 0; ; {
		page, whole, err := w.t.c.meta.warmPage(ctx, w.t.store, w.p, sp)
		if err != nil {
			return err
		}
		if !whole && again < warmAgain {
			again++
			continue
		}
		again = 0
		for _, r := range page.Runs {
			if r.From.IsStart() {
				w.progress.dirs.Add(1)
			}
			w.want(data, r.Dir, r.Entries)
		}
		sp.pos = page.Next
		if page.Done || !sp.open && !sp.pos.Before(sp.end) {
			return nil
		}
		w.mu.Lock()
		free := w.idle - len(w.todo)
		w.mu.Unlock()
		if free <= 0 {
			continue
		}
		parts := w.split(ctx, sp, page.Runs, free)
		w.mu.Lock()
		w.todo = append(w.todo, parts...)
		w.rest.Broadcast()
		w.mu.Unlock()
	}
}

// split cuts what is left of a span, at directories beside the one that it has
// come to, and returns the parts behind the first. None where that is not known
// to pay.
func (w *warmer) split(ctx context.Context, sp *keySpan, runs []store.Run, free int) []*keySpan {
	m, s := w.t.c.meta, w.t.store
	open := slices.DeleteFunc(slices.Clone(runs), func(r store.Run) bool { return r.Done })
	for i, r := range slices.Backward(open) { // from the outermost on
		seen := 0
		for _, e := range r.Entries {
			if e.IsDir() {
				seen++
			}
		}
		if seen == 0 && i == 0 {
			break // a directory of files comes one page after the other anyway
		}
		next, _, err := m.askPage(ctx, s, metaKey{s.CurrentBranch(), listKind, r.Dir}, r.Next)
		if err != nil {
			break // whose turn it is finds out
		}
		var cuts []store.Spot
		for _, e := range next.Entries {
			p, err := r.Dir.Join(e.Name)
			if err != nil || !e.IsDir() {
				continue
			}
			spot, err := s.SpotOf(p, store.Cursor{})
			if err != nil || !sp.open && !spot.Before(sp.end) {
				continue
			}
			cuts = append(cuts, spot)
		}
		n := min(free+1, len(cuts)+1)
		if seen > 0 {
			n = min(n, len(cuts)/seen+1) // as many as there are pages
		}
		if n < 2 {
			if len(cuts) > 0 {
				return nil
			}
			continue
		}
		var parts []*keySpan
		for part := 1; part < n; part++ {
			cut := cuts[part*len(cuts)/n]
			parts = append(parts, &keySpan{pos: cut, end: sp.end, open: sp.open})
			before := sp
			if part > 1 {
				before = parts[part-2]
			}
			before.end, before.open = cut, false
		}
		return parts
	}
	return nil
}

// want notes the files that have to be asked about, or fetched.
func (w *warmer) want(data bool, dir store.Path, all []store.Entry) {
	w.progress.names.Add(int64(len(all)))
	var files []wanted
	for _, e := range all {
		if !e.Partial && !(data && e.IsRegular()) {
			continue
		}
		if p, err := dir.Join(e.Name); err == nil {
			files = append(files, wanted{p, e.Size})
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files, files...)
}

// fetch asks about the files of which the listing does not tell everything,
// and with data reads them all.
func (w *warmer) fetch(ctx context.Context, data bool) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(warmFiles)
	var bytes int64
	for _, f := range w.files {
		if bytes += f.size; data && bytes > w.t.c.opts.Size {
			data = false
		}
		read := data
		group.Go(func() error {
			e, err := w.t.Lookup(ctx, f.path)
			if err == nil && read && e.IsRegular() {
				err = w.read(ctx, f.path)
			}
			if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrStale) { // somebody was faster
				err = nil
			}
			w.progress.files.Add(1)
			return err
		})
	}
	return group.Wait()
}

// read reads a file, so that its content is in the cache.
func (w *warmer) read(ctx context.Context, p store.Path) (err error) {
	f, err := w.t.Open(ctx, p, store.OpenFlags{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(context.WithoutCancel(ctx))) }()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := f.ReadAt(ctx, buf, off)
		w.progress.bytes.Add(int64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		off += int64(n)
	}
}

// warmPage lists from the beginning of a span on, and remembers what it finds,
// but for the directories that are changed here meanwhile: whole says that there
// were none.
func (m *metadata) warmPage(ctx context.Context, s *store.Store, anchor store.Path, sp *keySpan) (page store.SubtreePage, whole bool, err error) {
	p := &piece{
		branch: s.CurrentBranch(), anchor: anchor, start: sp.pos, pos: sp.pos, end: sp.end, open: sp.open, changed: make(chan struct{}),
	}
	m.mu.Lock()
	if m.flat.pieces == nil {
		m.flat.pieces = map[*piece]struct{}{}
	}
	m.flat.pieces[p] = struct{}{}
	m.mu.Unlock()
	at := time.Now()
	page, err = s.SubtreePage(ctx, anchor, sp.pos)
	for _, r := range page.Runs {
		m.kept.complete(p.branch, r.Dir, r.Entries)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	whole = true
	for _, r := range page.Runs {
		if p.spoils(r.Dir) {
			whole = false
		} else if m.ttl >= 0 {
			m.addRunLocked(metaKey{p.branch, listKind, r.Dir}, &stretch{
				from: r.From, to: r.Next, end: r.Done, at: at, given: time.Now(), base: r.Entries, pass: new(int),
			})
		}
	}
	p.done = true
	delete(m.flat.pieces, p)
	close(p.changed)
	return page, whole, err
}

// date lets the times to live of what was listed below p since then begin now.
func (m *metadata) date(branch string, p store.Path, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, key := range m.lru.keys() {
		if key.branch != branch || !p.Contains(key.path) {
			continue
		}
		item, _ := m.lru.peek(key)
		if item.list == nil {
			if item.at.After(since) {
				item.at, item.ticket = now, 0 // what was fetched ahead of an open is as old as it was
			}
			continue
		}
		for _, r := range item.list.runs {
			if r.at.After(since) && r.given.Before(now) {
				r.given = now
			}
		}
	}
}
