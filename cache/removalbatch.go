package cache

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// run sends what waits until nothing does.
func (r *removals) run() {
	retry := firstRetryAfter
	for {
		batch := r.take(r.gather())
		failed := len(batch) > 0 && r.send(batch)
		r.mu.Lock()
		if len(r.graves) == 0 || r.c.closed() {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if !failed {
			retry = firstRetryAfter
			continue
		}
		select {
		case <-r.wake:
		case <-r.c.quit:
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetryAfter)
	}
}

// gather waits for more to come. full: more may, but there is enough.
func (r *removals) gather() (full bool) {
	limit := time.After(gatherMost)
	for {
		r.mu.Lock()
		n := 0
		for _, graves := range r.graves {
			for _, g := range graves {
				if g.tries == 0 {
					n++
				}
			}
		}
		quiet := gatherFor - time.Since(r.fresh)
		ready := r.urgent || quiet <= 0
		r.mu.Unlock()
		if ready || n >= sendFrom {
			return !ready
		}
		select {
		case <-time.After(quiet):
		case <-r.wake:
		case <-limit:
			return false
		case <-r.c.quit:
			return false
		}
	}
}

// take is what to send next: the oldest first, of one branch. full: only as
// many as fill requests.
func (r *removals) take(full bool) []*grave {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*grave
	for _, graves := range r.graves {
		for _, g := range graves {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b *grave) int {
		return cmp.Or(a.tries-b.tries, a.since.Compare(b.since), cmp.Compare(a.id, b.id))
	})
	if len(all) == 0 {
		return nil
	}
	branch := all[0].branch
	batch := slices.DeleteFunc(slices.Clone(all), func(g *grave) bool { return g.branch != branch })
	most := min(sendAtOnce, len(batch))
	if full && most >= sendFrom {
		most -= most % sendFrom
	}
	batch = batch[:most]
	r.urgent = !full && len(batch) < len(all) // the rest does not wait for more
	return batch
}

// send has the bucket remove names of one branch. failed: some have to be
// tried again.
func (r *removals) send(batch []*grave) (failed bool) {
	c, branch := r.c, batch[0].branch
	all := make([]store.Removal, len(batch))
	for i, g := range batch {
		all[i] = g.Removal
	}
	s, err := c.store.Branch(branch)
	var errs []error
	if err == nil {
		errs, err = s.RemoveAll(backend.WithPriority(c.ctx, backend.Interactive), all, func(p store.Path) bool { return r.covers(branch, p) })
	}
	errs = append(errs, make([]error, len(batch)-len(errs))...)
	for i, g := range batch {
		switch {
		case errors.Is(errs[i], store.ErrStale):
			errs[i], g.stale = nil, true
			c.log.Warn("a file that was removed here had been changed by somebody else; theirs stays", "branch", branch, "path", g.Path.String())
			c.meta.forget(branch, g.Path, false)
		case errs[i] == nil && err != nil:
			errs[i] = err
		case errs[i] == nil:
			c.meta.gone(branch, g.Path, false)
		}
	}
	r.holdParents(batch, errs)
	var done []journal.ID
	for i, g := range batch {
		if errs[i] == nil {
			done = append(done, g.id)
		}
	}
	if len(done) > 0 {
		if err := c.withdraw(done...); err != nil {
			c.log.Error("the journal does not take what is done", "error", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.unfenceLocked(branch, now)
	for i, g := range batch {
		if errors.Is(errs[i], errWaits) {
			g.tries++ // else it would always come before those it waits for
			continue
		}
		if g.err = errs[i]; g.err == nil {
			r.dropLocked(g)
			r.buryLocked(g, now)
		} else {
			g.tries++
			failed = true
			if err == nil {
				err = g.err
			}
		}
		close(g.tried)
		g.tried = make(chan struct{})
	}
	if failed {
		c.log.Warn("names that were removed here are still in the bucket, and are tried again", "branch", branch, "names", len(batch)-len(done), "error", err)
	}
	return failed
}

// holdParents lets no removal of a directory end before those of what was in
// it: the last of them would find a directory that loses all it has, and give
// it a marker, as if nobody had removed it.
func (r *removals) holdParents(batch []*grave, errs []error) {
	tried := map[*grave]error{}
	for i, g := range batch {
		tried[g] = errs[i]
	}
	inside := map[store.Path]error{} // by directory: why something in it is there
	r.mu.Lock()
	for p, g := range r.graves[batch[0].branch] {
		err, now := tried[g]
		switch {
		case now && err == nil:
			continue
		case !now:
			err = errWaits
		}
		for !p.IsRoot() && inside[p.Dir()] == nil {
			p = p.Dir()
			inside[p] = err
		}
	}
	r.mu.Unlock()
	for i, g := range batch {
		if g.Dir && errs[i] == nil {
			errs[i] = inside[g.Path]
		}
	}
}

// errWaits is that of a removal whose turn has not come.
var errWaits = errors.New("it waits for others")

func (r *removals) buryLocked(g *grave, now time.Time) {
	all := r.buried[g.branch]
	if all == nil {
		all = map[store.Path]buried{}
		r.buried[g.branch] = all
	}
	all[g.Path] = buried{g.id, now}
}

// unfenceLocked forgets what the bucket has had for long enough.
func (r *removals) unfenceLocked(branch string, now time.Time) {
	all := r.buried[branch]
	if len(all) <= sendAtOnce {
		return
	}
	for p, b := range all {
		if now.Sub(b.at) > fenceFor {
			delete(all, p)
		}
	}
}
