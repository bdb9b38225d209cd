package cache

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/keifs/keifs/backend"
)

// retry publishes what failed when its last handle was closed, for as long as
// it takes. Nobody waits for it.
func (t *tree) retry(in *inode) {
	c := t.c
	log := c.log.With("branch", t.Name(), "path", in.where().String())
	in.mu.Lock()
	log.Warn("a closed file is not in the bucket yet, and is tried again", "error", in.failed)
	in.mu.Unlock()

	wait := firstRetryAfter
	for in.dirty() {
		select {
		case <-c.quit: // Close makes the last attempt
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetryAfter)
		ctx := backend.WithPriority(c.ctx, backend.Background)
		if err := in.publishNow(ctx); err == nil {
			log.Info("the file is in the bucket now")
		} else {
			log.Debug("not yet", "error", err)
		}
	}
	t.mu.Lock()
	in.retrying = false
	t.mu.Unlock()
	t.settle(in)
}

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
