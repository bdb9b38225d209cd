package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// tree is one branch, or the root above the branches: what the bucket has, as
// far as possible from memory, and over it the files that the bucket does not
// have yet as they are here.
type tree struct {
	c     *Cache
	store *store.Store
	gate  gate

	mu     sync.Mutex
	names  map[store.Path]*inode // what a name that is open here is
	inodes map[*inode]struct{}   // all, those without a name too
}

var _ store.Tree = (*tree)(nil)

// Name implements store.Tree.
func (t *tree) Name() string { return t.store.CurrentBranch() }

// writable refuses at once what could never be published.
func (t *tree) writable() error {
	if err := t.c.check(); err != nil {
		return err
	}
	if t.store.ReadOnly() {
		return fmt.Errorf("%s: %w", t.store.BackendName(), store.ErrReadOnly)
	}
	return nil
}

// changeable is writable for files, which only branches have.
func (t *tree) changeable() error {
	if t.Name() == "" {
		return store.ErrOutsideBranch
	}
	return t.writable()
}

// named returns the open file of that name.
func (t *tree) named(p store.Path) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[p]
}

// unname takes the name from the inode, which keeps its handles.
func (t *tree) unname(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[in.path] == in {
		delete(t.names, in.path)
	}
}

// writers is how many handles that may write the file has.
func (t *tree) writers(p store.Path) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in := t.names[p]; in != nil {
		return in.writers
	}
	return 0
}

// unpublished returns the entry at p if it is one that the bucket does not
// have as it is here; store.ErrNotDir where a parent is such a file.
func (t *tree) unpublished(p store.Path) (e store.Entry, found bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if in := t.names[p]; in != nil {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.statLocked(p), in.dirtyLocked(), nil
	}
	for dir := p; len(t.names) > 0 && !dir.IsRoot(); {
		dir = dir.Dir()
		if in := t.names[dir]; in != nil && in.dirty() {
			return store.Entry{}, false, fmt.Errorf("%s: %w", dir, store.ErrNotDir)
		}
	}
	return store.Entry{}, false, nil
}

// Lookup implements store.Tree.
func (t *tree) Lookup(ctx context.Context, p store.Path) (store.Entry, error) {
	if err := t.c.check(); err != nil {
		return store.Entry{}, err
	}
	if e, found, err := t.unpublished(p); found || err != nil {
		return e, err
	}
	if err := t.removed(p); err != nil {
		return store.Entry{}, err
	}
	e, err := t.c.meta.lookup(ctx, t.store, p)
	if err != nil {
		return store.Entry{}, fmt.Errorf("%s: %w", p, err)
	}
	return t.c.meta.dress(t.Name(), p, e), nil
}

// removed returns store.ErrNotExist where p was removed here, whatever the
// bucket still has.
func (t *tree) removed(p store.Path) error {
	if t.c.removals.covers(t.Name(), p) {
		return fmt.Errorf("%s: %w", p, store.ErrNotExist)
	}
	return nil
}

// Recall implements store.Recaller.
func (t *tree) Recall(p store.Path) (store.Entry, bool) {
	if t.c.check() != nil {
		return store.Entry{}, false
	}
	if e, found, err := t.unpublished(p); found || err != nil {
		return e, found
	}
	if t.removed(p) != nil {
		return store.Entry{}, false
	}
	m := t.c.meta
	m.mu.Lock()
	e, ask, err := m.knownLocked(t.Name(), p)
	m.mu.Unlock()
	if ask != known || err != nil {
		return store.Entry{}, false
	}
	return m.dress(t.Name(), p, e), true
}

// List implements store.Tree.
func (t *tree) List(ctx context.Context, dir store.Path) iter.Seq2[store.Entry, error] {
	return store.Pages(func(from store.Cursor) (store.Page, error) { return t.ListPage(ctx, dir, from) })
}

// ListPage implements store.Tree.
func (t *tree) ListPage(ctx context.Context, dir store.Path, from store.Cursor) (store.Page, error) {
	if err := t.c.check(); err != nil {
		return store.Page{}, err
	}
	if _, isFile, err := t.unpublished(dir); err != nil {
		return store.Page{}, err
	} else if isFile {
		return store.Page{}, fmt.Errorf("%s: %w", dir, store.ErrNotDir)
	}
	// Taken before the listing begins: what is published meanwhile is then
	// seen twice rather than not at all.
	over, gone := t.overlay(dir), t.c.removals.names(t.Name(), dir)
	if err := t.removed(dir); err != nil {
		return store.Page{}, err
	}
	page, err := t.c.meta.listPage(ctx, t.store, dir, from)
	if errors.Is(err, store.ErrNotExist) && len(over) > 0 {
		page, err = store.Page{Done: true}, nil
	}
	if err != nil {
		return store.Page{}, err
	}
	page.Entries = without(page.Entries, gone)
	return page.Merge(from, over), nil
}

// without leaves names out of a listing.
func without(all []store.Entry, gone map[string]bool) []store.Entry {
	if len(gone) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(e store.Entry) bool { return gone[e.Name] })
}

// overlay is what dir has that the bucket does not have, by name.
func (t *tree) overlay(dir store.Path) []store.Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []store.Entry
	for p, in := range t.names {
		if p.IsRoot() || p.Dir() != dir {
			continue
		}
		in.mu.Lock()
		if in.dirtyLocked() {
			all = append(all, in.statLocked(p))
		}
		in.mu.Unlock()
	}
	slices.SortFunc(all, store.Order)
	return all
}

// Readlink implements store.Tree.
func (t *tree) Readlink(ctx context.Context, p store.Path) (string, error) {
	if err := t.c.check(); err != nil {
		return "", err
	}
	if err := t.removed(p); err != nil {
		return "", err
	}
	return t.c.meta.readlink(ctx, t.store, p)
}

// Open implements store.Tree.
func (t *tree) Open(ctx context.Context, p store.Path, flags store.OpenFlags) (store.File, error) {
	if err := t.c.check(); err != nil {
		return nil, err
	}
	if flags.Write {
		if err := t.changeable(); err != nil {
			return nil, err
		}
	}
	h := t.openUnpublished(p, flags)
	if h == nil {
		var err error
		if h, err = t.openCurrent(ctx, p, flags); err != nil {
			return nil, err
		}
	}
	if flags.Write && flags.Truncate {
		if err := h.in.truncate(ctx, 0); err != nil {
			return nil, errors.Join(err, h.Close(ctx))
		}
	}
	return h, nil
}

// openUnpublished opens a file that is newer here than in the bucket: that
// needs no question and waits for no publication.
func (t *tree) openUnpublished(p store.Path, flags store.OpenFlags) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.names[p]
	if in == nil || !in.dirty() {
		return nil
	}
	return in.openLocked(flags.Write)
}

// openCurrent opens the version that the bucket has now.
func (t *tree) openCurrent(ctx context.Context, p store.Path, flags store.OpenFlags) (*handle, error) {
	release, err := t.gate.take(ctx, shared(p))
	if err != nil {
		return nil, err
	}
	defer release()
	if h := t.openUnpublished(p, flags); h != nil {
		return h, nil
	}
	if err := t.removed(p); err != nil {
		return nil, err
	}
	e, asked, err := t.current(ctx, p, flags)
	if errors.Is(err, store.ErrNotExist) {
		if h := t.openUnpublished(p, flags); h != nil { // written meanwhile through a handle
			return h, nil
		}
		if dir, derr := t.c.meta.lookup(ctx, t.store, p); derr == nil && dir.IsDir() {
			return nil, fmt.Errorf("%s: %w", p, store.ErrIsDir)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case e.IsDir():
		return nil, fmt.Errorf("%s: %w", p, store.ErrIsDir)
	case !e.IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: %w", p, store.ErrInvalid)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.names[p]
	if in == nil || !in.isLocked(e, asked) {
		in = t.addLocked(p, e) // one that is open as an older version keeps its handles, not the name
	}
	in.asked = max(in.asked, asked)
	return in.openLocked(flags.Write), nil
}

// current is what the bucket has at p now, with the number of the question.
func (t *tree) current(ctx context.Context, p store.Path, flags store.OpenFlags) (e store.Entry, asked uint64, err error) {
	if flags.Write {
		asked = t.c.asked.Add(1)
		e, err = t.c.meta.head(ctx, t.store, p)
		return e, asked, err
	}
	e, asked, ahead := t.c.meta.takeAhead(ctx, t.Name(), p)
	if !ahead {
		asked = t.c.asked.Add(1)
		if t.c.meta.frozen(t.Name()) { // what was said of a commit stays true
			e, err = t.c.meta.lookup(ctx, t.store, p)
		} else {
			e, err = t.c.meta.ask(ctx, t, p)
		}
	}
	if err == nil && e.IsRegular() {
		t.c.siblings.opened(t, p, ahead)
	}
	return e, asked, err
}

// isLocked says whether the inode is what the bucket was seen to have as e,
// or what replaced that since the bucket was asked.
func (in *inode) isLocked(e store.Entry, asked uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.dirtyLocked() || in.asked > asked {
		return true
	}
	if in.entry.Version != e.Version {
		return false
	}
	if in.busy == nil {
		in.entry, in.base = e, e
	}
	return true
}

// addLocked makes an inode of that name.
func (t *tree) addLocked(p store.Path, e store.Entry) *inode {
	in := &inode{t: t, path: p, entry: e, base: e}
	t.names[p] = in
	t.inodes[in] = struct{}{}
	return in
}

// openLocked makes a handle; t.mu is held.
func (in *inode) openLocked(write bool) *handle {
	in.handles++
	if write {
		in.writers++
	}
	return &handle{in: in, write: write, reads: reads{fill: &in.fill}}
}

// settle lets an inode go that nobody has open, if the bucket has all of it;
// otherwise it sees to it that it is tried again.
func (t *tree) settle(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.handles > 0 || in.busy != nil || in.dead:
	case in.dirtyLocked():
		t.c.uploads.add(in, 0)
	case in.keeping || !in.keepLocked(): // comes again
	default:
		t.dropLocked(in)
	}
}

// dropLocked forgets the inode; both locks are held.
func (t *tree) dropLocked(in *inode) {
	if t.names[in.path] == in {
		delete(t.names, in.path)
	}
	delete(t.inodes, in)
	in.dead = true
	in.setOriginLocked(nil)
	if in.stream != nil {
		in.giveUpLocked()
	}
	switch {
	case in.file == nil:
	case in.record != 0 && in.dirtyLocked(): // the next mount goes on with it
		in.file.release()
	default:
		in.fulfilledLocked()
		in.file.discard()
	}
}

// Create implements store.Tree.
func (t *tree) Create(ctx context.Context, p store.Path, attr store.Attr, exclusive bool) (store.File, error) {
	if err := t.changeable(); err != nil {
		return nil, err
	}
	if p.IsRoot() {
		return nil, fmt.Errorf("the root of a branch: %w", store.ErrExist)
	}
	now := time.Now()
	attr.Mode = attr.Mode&^store.ModeType | store.ModeRegular
	attr.Ctime = now
	if attr.Mtime.IsZero() {
		attr.Mtime = now
	}
	for {
		switch e, err := t.Lookup(ctx, p); {
		case err == nil && exclusive:
			return nil, fmt.Errorf("%s: %w", p, store.ErrExist)
		case err == nil && e.IsDir():
			return nil, fmt.Errorf("%s: %w", p, store.ErrIsDir)
		case err == nil:
			f, err := t.Open(ctx, p, store.OpenFlags{Write: true, Truncate: true})
			if errors.Is(err, store.ErrNotExist) {
				continue // just gone; the bucket's answer is remembered
			}
			return f, err
		case !errors.Is(err, store.ErrNotExist):
			return nil, err
		}
		h, err := t.createNew(ctx, p, attr, exclusive)
		if err != nil {
			return nil, err
		}
		if h != nil {
			return h, nil
		}
	}
}

// createNew makes a file of a name that seems free; nil when it has come
// into being meanwhile.
func (t *tree) createNew(ctx context.Context, p store.Path, attr store.Attr, excl bool) (*handle, error) {
	release, err := t.gate.take(ctx, exclusive(p))
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := t.Lookup(ctx, p); err == nil {
		return nil, nil
	}
	if parent, err := t.Lookup(ctx, p.Dir()); err != nil {
		return nil, err
	} else if !parent.IsDir() {
		return nil, fmt.Errorf("%s: %w", p.Dir(), store.ErrNotDir)
	}
	if err := t.store.CheckNew(p); err != nil {
		return nil, err
	}
	file, err := t.c.stage.create()
	if err != nil {
		return nil, err
	}
	e := store.Entry{Attr: attr}
	excl = excl && (t.c.opts.StrictExcl || !t.c.opts.WriteBack)
	if excl {
		if err := t.c.removals.settle(ctx, t.Name(), subtree(p)); err != nil {
			file.discard()
			return nil, err
		}
		e, err = t.store.Publish(ctx, p, backend.Bytes(nil), store.PublishOptions{Attr: attr, Exclusive: true})
		if err != nil {
			file.discard()
			t.c.meta.forget(t.Name(), p, false)
			return nil, err
		}
		t.c.meta.put(t.Name(), p, e)
	}
	t.c.meta.touch(t.Name(), p.Dir())
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.addLocked(p, e)
	in.file, in.fresh, in.content, in.since = file, excl, !excl, time.Now()
	return in.openLocked(true), nil
}
