package cache

import (
	"context"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// A program that lists one directory after another, each with its own request,
// pays a round trip a directory. So who lists a directory right after the one
// before it, or the first one right after that above it, is taken to walk the
// tree: the bucket is asked for everything from there on, whatever directory it
// is in, a thousand keys a request. As long as the walk goes on where it was
// expected, more is asked for ahead, in pieces side by side.

const (
	walkStart    = time.Second      // from a directory to the first one in it
	walkMemory   = 30 * time.Second // between two directories of one walk
	maxFlatWalks = 64
	maxBudget    = 16 // pages ahead of a walk
	piecePages   = 4  // that a piece is cut to have
	maxPages     = 8  // that it has at most, where it is larger than expected
	maxPieces    = 4  // of one walk at a time
)

// flatWalks are those under way. They are guarded by metadata.mu.
type flatWalks struct {
	all    map[metaKey]*flatWalk // by the directory whose subdirectories are walked
	pieces map[*piece]struct{}
}

// flatWalk goes through the subdirectories of one directory.
type flatWalk struct {
	anchor metaKey
	used   time.Time
	last   store.Path // the subdirectory that was listed last

	frontier store.Spot // up to which the tree was asked for
	child    string     // the subdirectory that the frontier is in, or behind
	begun    bool       // frontier and child mean something
	ended    bool       // there is nothing behind it
	ahead    float64    // subdirectories between last and child
	stride   float64    // subdirectories that a page has
	budget   float64    // pages that may be asked for ahead
	running  int        // pieces
}

// piece is a part of a tree that is being listed.
type piece struct {
	branch  string
	anchor  store.Path
	start   store.Spot
	end     store.Spot
	open    bool // it has no end
	pos     store.Spot
	changed chan struct{} // closed and replaced with each page, closed at the end
	done    bool

	// What has changed here since it began: of these directories nothing that
	// it finds is remembered, nor of what is below those names.
	dirs, names map[store.Path]bool
}

// spoils says whether what the piece finds of a directory is not remembered.
func (p *piece) spoils(dir store.Path) bool {
	if p.dirs[dir] {
		return true
	}
	for len(p.names) > 0 {
		if p.names[dir] {
			return true
		}
		if dir.IsRoot() {
			break
		}
		dir = dir.Dir()
	}
	return false
}

// walkLocked is the walk in which the directory is the next one, or nil.
func (m *metadata) walkLocked(s *store.Store, key metaKey, from store.Cursor) *flatWalk {
	if key.path.IsRoot() || !s.CanWalk() {
		return nil
	}
	anchor := metaKey{key.branch, listKind, key.path.Dir()}
	if !from.IsStart() {
		return m.cutLocked(s, key, from)
	}
	parent, ok := m.lru.peek(anchor)
	if !ok || time.Since(parent.list.readAt) > walkMemory {
		return nil
	}
	p, ok := m.beforeLocked(anchor, parent.list, key.path)
	if !ok {
		return nil
	}
	parent.list.readAt = time.Now()
	w := m.flat.walkLocked(anchor)
	if time.Since(w.used) > walkMemory || w.last != p {
		*w = flatWalk{anchor: anchor, running: w.running}
	}
	w.used, w.last = time.Now(), key.path
	w.ahead = max(w.ahead-1, 0)
	return w
}

// cutLocked is the walk whose last request ended at that place of the directory,
// or within what is right before it there.
func (m *metadata) cutLocked(s *store.Store, key metaKey, from store.Cursor) *flatWalk {
	if len(m.flat.all) == 0 {
		return nil
	}
	spot, err := s.SpotOf(key.path, from)
	if err != nil {
		return nil
	}
	for dir := key.path; !dir.IsRoot(); {
		dir = dir.Dir()
		w := m.flat.all[metaKey{key.branch, listKind, dir}]
		if w != nil && w.begun && !w.ended && time.Since(w.used) <= walkMemory && (w.frontier.Is(spot) || w.frontier.Within(spot)) {
			return w
		}
	}
	return nil
}

// beforeLocked is the directory that is listed right before dir by who walks
// through the directory above them, if it has been. Who removes a tree has
// removed that by then.
func (m *metadata) beforeLocked(anchor metaKey, parent *dirList, dir store.Path) (store.Path, bool) {
	place := position(dir.Name(), store.ModeDir)
	before, known := parent.dirBefore(place)
	if !known {
		return store.Path{}, false
	}
	if before != "" {
		p, err := anchor.path.Join(before)
		if err != nil {
			return store.Path{}, false
		}
		sibling, ok := m.lru.peek(metaKey{anchor.branch, listKind, p})
		if ok && !sibling.list.readAt.IsZero() && time.Since(sibling.list.readAt) <= walkMemory {
			return p, true
		}
	}
	last := parent.walked
	if before == "" && time.Since(parent.readAt) < walkStart && parent.walkedAt.Before(parent.readAt) {
		return anchor.path, true // it is the first
	}
	if last.IsRoot() || time.Since(parent.walkedAt) > walkMemory {
		return store.Path{}, false
	}
	at := position(last.Name(), store.ModeDir)
	nothingBetween := before == "" || position(before, store.ModeDir).Compare(at) <= 0
	return last, nothingBetween && at.Compare(place) < 0
}

// walkLocked is the walk through the subdirectories of a directory.
func (w *flatWalks) walkLocked(anchor metaKey) *flatWalk {
	walk := w.all[anchor]
	if walk == nil {
		if w.all == nil || len(w.all) >= maxFlatWalks {
			w.all = map[metaKey]*flatWalk{}
		}
		walk = &flatWalk{anchor: anchor}
		w.all[anchor] = walk
	}
	return walk
}

// reach waits until the page of the directory is known by a flat listing.
// Not ok: it has to be asked for by itself.
func (m *metadata) reach(ctx context.Context, w *flatWalk, s *store.Store, dir store.Path, from store.Cursor) (store.Page, bool, error) {
	key := metaKey{s.CurrentBranch(), listKind, dir}
	spot, err := s.SpotOf(dir, from)
	if err != nil {
		return store.Page{}, false, err
	}
	for tries := 0; ; {
		m.mu.Lock()
		if page, ok := m.pageLocked(key, from); ok {
			m.advanceLocked(w, s, dir)
			m.mu.Unlock()
			return page, true, nil
		}
		if w.begun && w.frontier.Within(spot) {
			spot = w.frontier
		}
		p := m.flat.comingLocked(key.branch, dir, spot)
		if p == nil && tries == 0 {
			tries++
			p = &piece{start: spot, open: true}
			if !m.startLocked(w, s, p, 1) {
				p = nil
			}
		}
		if p == nil {
			m.mu.Unlock()
			return store.Page{}, false, nil
		}
		changed := p.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return store.Page{}, false, ctx.Err()
		}
	}
}

// comingLocked is a piece that will come to the directory.
func (w *flatWalks) comingLocked(branch string, dir store.Path, spot store.Spot) *piece {
	for p := range w.pieces {
		if p.branch == branch && !p.done && !p.spoils(dir) && p.anchor.Contains(dir) &&
			!spot.Before(p.start) && (p.open || spot.Before(p.end)) && !spot.Before(p.pos) {
			return p
		}
	}
	return nil
}

// startLocked lists a piece of at most that many pages.
func (m *metadata) startLocked(w *flatWalk, s *store.Store, p *piece, pages int) bool {
	p.branch, p.anchor, p.pos, p.changed = w.anchor.branch, w.anchor.path, p.start, make(chan struct{})
	started := m.errands.start(func(ctx context.Context) { m.listPiece(ctx, w, s, p, pages) })
	if started {
		if m.flat.pieces == nil {
			m.flat.pieces = map[*piece]struct{}{}
		}
		m.flat.pieces[p] = struct{}{}
		w.running++
	}
	return started
}

// listPiece lists a piece.
func (m *metadata) listPiece(ctx context.Context, w *flatWalk, s *store.Store, p *piece, pages int) {
	if !p.open {
		ctx = backend.WithPriority(ctx, backend.ReadAhead)
	}
	dirs := 0
	for n := 1; ; n++ {
		at := time.Now()
		page, err := s.SubtreePage(ctx, p.anchor, p.pos)
		for _, r := range page.Runs {
			m.kept.complete(p.branch, r.Dir, r.Entries)
		}
		m.mu.Lock()
		if err == nil {
			for _, r := range page.Runs {
				if !p.spoils(r.Dir) {
					m.addRunLocked(metaKey{p.branch, listKind, r.Dir}, &stretch{
						from: r.From, to: r.Next, end: r.Done, at: at, given: time.Now(), base: r.Entries, ahead: true, pass: new(int),
					})
				}
				if r.Dir == p.anchor {
					for _, e := range r.Entries {
						if e.IsDir() {
							dirs++
							if p.open {
								w.child = e.Name
							}
						}
					}
				}
			}
			p.pos = page.Next
		}
		if err != nil || page.Done || n == pages || !p.open && !p.pos.Before(p.end) {
			if p.open && err == nil && !(w.begun && p.pos.Before(w.frontier)) {
				w.frontier, w.begun, w.ended, w.ahead = p.pos, true, page.Done, float64(dirs)
			}
			if dirs > 0 {
				w.stride = float64(dirs) / float64(n)
			}
			w.running--
			p.done = true
			delete(m.flat.pieces, p)
			close(p.changed)
			m.mu.Unlock()
			return
		}
		changed := p.changed
		p.changed = make(chan struct{})
		m.mu.Unlock()
		close(changed)
	}
}

// advanceLocked notes that the walk has come to a directory as expected, and
// asks for more ahead.
func (m *metadata) advanceLocked(w *flatWalk, s *store.Store, dir store.Path) {
	if w == nil || w.last != dir {
		return
	}
	w.budget = min(max(2*w.budget, 1), maxBudget, float64(m.lru.max)/4000)
	if w.budget < piecePages || w.stride == 0 {
		return
	}
	parent, ok := m.lru.peek(w.anchor)
	if !ok {
		return
	}
	// A little less than that many pages, as the last one tells of an end
	// only when it goes beyond.
	n := max(int(w.stride*(piecePages-0.5)), 1)
	for w.begun && !w.ended && w.running < maxPieces && w.ahead/w.stride < w.budget {
		names := parent.list.dirs(position(w.child, store.ModeDir), n+1)
		p := &piece{start: w.frontier, open: len(names) <= n}
		last := w.child
		if !p.open {
			end, err := w.anchor.path.Join(names[n])
			if err == nil {
				p.end, err = s.SpotOf(end, store.Cursor{})
			}
			if err != nil {
				return
			}
			last = names[n-1]
		}
		if !m.startLocked(w, s, p, maxPages) {
			return
		}
		if p.open { // to the end of the directory; what is behind is planned when that is done
			w.ended = true
			return
		}
		w.frontier, w.child = p.end, last
		w.ahead += float64(n)
	}
}

// spoilLocked sees to it that pieces under way do not bring back what has just
// changed here.
func (w *flatWalks) spoilLocked(branch string, p store.Path, subtree bool) {
	for piece := range w.pieces {
		if piece.branch != branch || !piece.anchor.Contains(p) && !(subtree && p.Contains(piece.anchor)) {
			continue
		}
		if piece.dirs == nil {
			piece.dirs, piece.names = map[store.Path]bool{}, map[store.Path]bool{}
		}
		piece.names[p] = true
		if !p.IsRoot() {
			piece.dirs[p.Dir()] = true
		}
	}
}

// errands are work that nobody waits for.
type errands struct {
	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
	closed bool
	work   sync.WaitGroup
}

// start runs fn, unless the end has come.
func (e *errands) start(fn func(context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	if e.ctx == nil {
		e.ctx, e.cancel = context.WithCancel(context.Background())
	}
	e.work.Go(func() { fn(e.ctx) })
	return true
}

func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	if e.cancel != nil {
		e.cancel()
	}
	e.mu.Unlock()
	e.work.Wait()
}
