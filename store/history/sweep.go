package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
)

// between is the time between two announcements, in which commits go on.
const between = time.Second

// sweep deletes what is not reached, a while at a time.
func (c *collector) sweep(ctx context.Context) error {
	left := func() bool { return len(c.expired)+len(c.oldCommits)+len(c.oldRanges)+len(c.oldPins) > 0 }
	last := time.Now() // that anything was deleted
	for left() {
		busy, err := c.window(ctx)
		switch {
		case err != nil:
			return err
		case len(busy) == 0:
			last = time.Now()
		case time.Since(last) > c.opts.Wait:
			return fmt.Errorf("%w to %s; where that died, it is in the way for a day", ErrBusy, strings.Join(busy, ", "))
		}
		if !left() {
			break
		}
		if err := pause(ctx, between); err != nil {
			return err
		}
	}
	return nil
}

// window is one announcement: nothing is deleted while somebody commits to the
// branches that are busy.
func (c *collector) window(ctx context.Context) (busy []string, err error) {
	a := c.r.announcement()
	underway := false
	defer func() {
		// The store may yet carry out a deletion that was not answered: whoever
		// waits goes on when the announcement is dead.
		if !underway {
			err = errors.Join(err, a.takeBack(ctx))
		}
	}()
	if err := a.make(ctx); err != nil {
		return nil, err
	}
	err = a.during(ctx, func(ctx context.Context) error {
		found, err := c.roots.read(ctx)
		if err != nil {
			return err
		}
		if busy = found.busy; len(busy) > 0 {
			return nil
		}
		if err := c.markFrom(ctx, found); err != nil {
			return err
		}
		c.order, err = c.childrenFirst(ctx)
		return err
	})
	if err != nil || len(busy) > 0 {
		return busy, err
	}
	ctx, cancel := context.WithDeadline(ctx, a.since.Add(sweepFor))
	defer cancel()
	err = c.delete(ctx, a)
	underway = err != nil
	return nil, err
}

// delete deletes as long as the announcement is good. What others name goes
// after what names it.
func (c *collector) delete(ctx context.Context, a *announcement) error {
	out := &c.out.Deleted
	all, err := c.deleteAll(ctx, a, c.expired, func(gone []backend.Info) {
		c.expired = c.expired[len(gone):]
		c.deleted(&out.Log, gone)
	})
	if err != nil || !all {
		return err
	}
	forget := func(old map[string]backend.Info, id func(string) (string, bool), n *int) func([]backend.Info) {
		return func(gone []backend.Info) {
			for _, info := range gone {
				key, _ := id(info.Key)
				delete(old, key)
			}
			c.deleted(n, gone)
		}
	}
	all, err = c.deleteAll(ctx, a, c.order, forget(c.oldCommits, commit.IDOfKey, &out.Commits))
	if err != nil || !all {
		return err
	}
	all, err = c.deleteAll(ctx, a, slices.Collect(maps.Values(c.oldRanges)), forget(c.oldRanges, commit.RangeOfKey, &out.Ranges))
	if err != nil || !all {
		return err
	}
	_, err = c.deleteAll(ctx, a, slices.Collect(maps.Values(c.oldPins)), forget(c.oldPins, overlay.PinOfKey, &out.Pins))
	return err
}

// childrenFirst is the commits to delete, each before those it follows.
func (c *collector) childrenFirst(ctx context.Context) ([]backend.Info, error) {
	var order []backend.Info
	done := map[string]bool{} // false: its parents are being visited
	// Depth first, without recursion: a history may be long. What is on the
	// stack a second time has its parents in the order already.
	for id := range c.oldCommits {
		for open := []string{id}; len(open) > 0; {
			id := open[len(open)-1]
			if state, ok := done[id]; ok {
				open = open[:len(open)-1]
				if !state {
					done[id] = true
					order = append(order, c.oldCommits[id])
				}
				continue
			}
			done[id] = false
			m, err := c.r.commits.Manifest(ctx, id)
			switch {
			case err == nil:
			case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrCorrupt):
				continue
			default:
				return nil, err
			}
			for _, parent := range m.Parents {
				if _, old := c.oldCommits[parent]; old {
					if _, seen := done[parent]; !seen {
						open = append(open, parent)
					}
				}
			}
		}
	}
	slices.Reverse(order)
	return order, nil
}

// alone is how many objects are deleted between two looks at the clock where
// each needs a request, and batch where many need one.
const (
	alone = 64
	batch = 1000
)

// deleteAll deletes objects in their order, and tells what is gone. It ends
// early when the announcement does.
func (c *collector) deleteAll(ctx context.Context, a *announcement, infos []backend.Info, gone func([]backend.Info)) (all bool, err error) {
	deleter, ok := backend.As[backend.BatchDeleter](c.r.raw)
	n := alone
	if ok {
		n = batch
	}
	for some := range slices.Chunk(infos, n) {
		if elapsed(a.since) > sweepBegin {
			return false, nil
		}
		if ok {
			err = deleteBatch(ctx, deleter, some)
		} else {
			err = backend.Parallel(ctx, atOnce, some, func(ctx context.Context, info backend.Info) error {
				err := c.r.raw.Delete(ctx, info.Key, backend.Cond{})
				if errors.Is(err, backend.ErrNotExist) {
					return nil
				}
				return err
			})
		}
		if err != nil {
			return false, err
		}
		gone(some)
		c.looked(int64(len(some)))
	}
	return true, nil
}

func deleteBatch(ctx context.Context, deleter backend.BatchDeleter, infos []backend.Info) error {
	objects := make([]backend.Deletion, len(infos))
	for i, info := range infos {
		objects[i].Key = info.Key
	}
	errs, err := deleter.DeleteBatch(ctx, objects)
	for _, e := range errs {
		if err == nil && e != nil && !errors.Is(e, backend.ErrNotExist) {
			err = e
		}
	}
	return err
}
