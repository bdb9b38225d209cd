package cache

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// salvage moves content that will never be published out of the way of
// staging's cleaning: Dir/failed/BRANCH/PATH-TIME.
func (c *Cache) salvage(in *inode) (where string, err error) {
	path := in.where()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.content || in.file == nil {
		return "", nil
	}
	name := filepath.Base(path.String())
	suffix := "-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	name = name[:min(len(name), 255-len(suffix))] + suffix
	where = filepath.Join(c.dir.path("failed"), in.t.Name(), filepath.FromSlash(path.Dir().String()), name)
	return where, in.file.moveTo(where)
}

// leave says whether the next mount goes on with a file, as the journal has it.
func (c *Cache) leave(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.content || !in.wholeLocked() || !c.opts.WriteBack && in.record == 0 {
		return false
	}
	return in.promised || in.promiseLocked(in.where, 0) == nil
}

// salvageUnpublished is salvage for an inode that the volume's Close could
// not publish; the error says what became of it.
func (c *Cache) salvageUnpublished(in *inode) error {
	what := fmt.Sprintf("%s/%s is not in the bucket", in.t.Name(), in.where())
	where, err := c.salvage(in)
	in.mu.Lock()
	cause := in.failed
	in.mu.Unlock()
	if cause == nil {
		cause = context.Canceled
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s and could not be kept (%w): %w", what, err, cause)
	case where == "":
		return fmt.Errorf("%s as it was changed last: %w", what, cause)
	}
	return fmt.Errorf("%s, but in %s: %w", what, where, cause)
}
