package cache

import (
	"maps"
	"slices"

	"github.com/keifs/keifs/store"
)

var _ store.Refresher = (*Cache)(nil)

// Refresh implements store.Refresher. The listing of the directory that p is in
// is forgotten as well, as it tells of p.
func (c *Cache) Refresh(branch string, p store.Path) {
	// Before all that follows: what a listing takes from the disk meanwhile is
	// forgotten with that listing.
	if err := c.meta.kept.drop(branch, p); err != nil {
		c.log.Warn("attributes on the local disk are not forgotten", "branch", branch, "path", p, "err", err)
	}
	if branch != "" {
		c.meta.forget(branch, p, true)
	}
	c.mu.Lock()
	branches := slices.Collect(maps.Keys(c.trees))
	c.mu.Unlock()
	switch root, err := store.ParsePath(branch); {
	case branch == "":
		for _, b := range branches {
			c.meta.forget(b, p, true)
		}
	case p.IsRoot() && err == nil: // the name of the branch
		c.meta.forget("", root, true)
	}
	if p.IsRoot() {
		c.store.Bucket().Forget()
	}
}

// Notice implements store.Refresher. Uploads of what an earlier mount left are under way
// by then.
func (c *Cache) Notice(fn func(branch string, p store.Path, e *store.Entry)) {
	c.meta.mu.Lock()
	defer c.meta.mu.Unlock()
	c.meta.notice = fn
}
