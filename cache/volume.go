package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keifs/keifs/store"
)

// Root implements store.Volume.
func (c *Cache) Root() store.Tree { return c.tree(c.store) }

// Branch implements store.Volume. That a branch exists is remembered as long
// as any other name.
func (c *Cache) Branch(ctx context.Context, name string) (store.Tree, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s, err := c.store.Branch(name)
	if err != nil {
		return nil, err
	}
	p, err := store.ParsePath(name)
	if err != nil {
		return nil, err
	}
	e, err := c.meta.lookup(ctx, c.store, p)
	if err == nil && !e.IsDir() {
		err = store.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("branch %s: %w", name, err)
	}
	if store.IsRevision(name) {
		if s, err = c.store.Open(ctx, name); err != nil {
			return nil, err
		}
	}
	return c.tree(s), nil
}

// tree is the one tree of that branch.
func (c *Cache) tree(s *store.Store) *tree {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := s.CurrentBranch()
	t, ok := c.trees[name]
	if !ok {
		t = &tree{c: c, store: s, names: map[store.Path]*inode{}, inodes: map[*inode]struct{}{}}
		c.trees[name] = t
	}
	return t
}

// claimBranch keeps everybody out of a branch that is about to be removed.
// store.ErrNotEmpty where it has files that are here only.
func (c *Cache) claimBranch(ctx context.Context, name string) (release func(), err error) {
	s, err := c.store.Branch(name)
	if err != nil {
		return nil, err
	}
	t := c.tree(s)
	release, err = t.gate.take(ctx, subtree(store.Path{}))
	if err != nil {
		return nil, err
	}
	if t.unpublishedBelow(store.Path{}) {
		release()
		return nil, fmt.Errorf("branch %s: %w", name, store.ErrNotEmpty)
	}
	return release, nil
}

// inodes returns all there are.
func (c *Cache) inodes() []*inode {
	c.mu.Lock()
	trees := slices.Collect(maps.Values(c.trees))
	c.mu.Unlock()
	var all []*inode
	for _, t := range trees {
		t.mu.Lock()
		all = slices.AppendSeq(all, maps.Keys(t.inodes))
		t.mu.Unlock()
	}
	return all
}

// Sync implements store.Volume. It tries every file, and returns all errors.
func (c *Cache) Sync(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	return errors.Join(publishAll(ctx, c.inodes(), (*inode).publish), c.removals.wait(ctx, everything), c.renames.wait(ctx, func(*dirRename) bool { return true }))
}

// Sync implements store.Tree.
func (t *tree) Sync(ctx context.Context, p store.Path) error {
	if err := t.c.check(); err != nil {
		return err
	}
	return errors.Join(
		publishAll(ctx, t.below(p), (*inode).publish),
		t.c.removals.wait(ctx, func(g *grave) bool { return g.branch == t.Name() && p.Contains(g.Path) }),
	)
}

func publishAll(ctx context.Context, all []*inode, publish func(*inode, context.Context) error) error {
	var group sync.WaitGroup
	room := make(chan struct{}, uploadsAtOnce)
	errs := make([]error, len(all))
	for i, in := range all {
		if in.dirty() {
			room <- struct{}{}
			group.Go(func() {
				defer func() { <-room }()
				if err := publish(in, ctx); err != nil {
					errs[i] = fmt.Errorf("%s/%s: %w", in.t.Name(), in.where(), err)
				}
			})
		}
	}
	group.Wait()
	return errors.Join(errs...)
}

// Close implements store.Volume. What cannot be published now is moved to the
// folder "failed" of the cache, and the error says where each file is.
// Removals and renames that the bucket does not take stay in the journal, for
// next time.
func (c *Cache) Close(ctx context.Context) error {
	removed := c.removals.wait(ctx, everything)
	if removed != nil {
		removed = c.removals.wait(ctx, everything)
	}
	removed = errors.Join(removed, c.renames.wait(ctx, func(*dirRename) bool { return true }))
	c.mu.Lock()
	if c.closed() {
		c.mu.Unlock()
		return nil
	}
	close(c.quit) // nothing new becomes dirty, nothing new is started
	c.mu.Unlock()

	err := publishAll(ctx, c.inodes(), (*inode).publishNow)
	c.cancel()
	c.tasks.Wait()
	c.meta.close()
	c.fetch.close()

	var kept []error
	for _, in := range c.inodes() {
		if in.dirty() && !c.leave(in) {
			kept = append(kept, c.salvageUnpublished(in))
		}
		in.t.end(in)
	}
	err = errors.Join(append(kept, removed, err, diskError(c.journal.Close()))...)
	if kerr := c.meta.kept.close(); kerr != nil {
		c.log.Warn("attributes are not kept on the local disk", "err", kerr)
	}
	c.dir.close()
	return err
}

// end releases the inode though it may be open.
func (t *tree) end(in *inode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.dead {
		t.dropLocked(in)
	}
}

// Pending implements store.Volume.
func (c *Cache) Pending() []store.Pending {
	var all []store.Pending
	for _, in := range c.inodes() {
		path := in.where()
		in.mu.Lock()
		if in.dirtyLocked() {
			p := store.Pending{
				Branch: in.t.Name(), Path: path.String(), State: in.stateLocked(), Bytes: in.entry.Size, Since: in.since,
			}
			if in.failed != nil {
				p.Err = in.failed.Error()
			}
			all = append(all, p)
		}
		in.mu.Unlock()
	}
	all = append(append(all, c.removals.pending()...), c.renames.pending()...)
	slices.SortFunc(all, func(a, b store.Pending) int {
		return cmp.Or(strings.Compare(a.Branch, b.Branch), strings.Compare(a.Path, b.Path))
	})
	return all
}
