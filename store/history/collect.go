package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// The defaults of CollectOptions.
const (
	DefaultGrace   = 24 * time.Hour
	DefaultKeepLog = 90 * 24 * time.Hour
	// LeastKeepLog is the least that a collection beside others may have: see FindHeld.
	LeastKeepLog = 24 * time.Hour
)

// CollectOptions of Collect. The zero value is usable.
type CollectOptions struct {
	Grace   time.Duration // what is younger stays; default DefaultGrace
	KeepLog time.Duration // how long an entry of a log reaches its commit; default DefaultKeepLog
	DryRun  bool          // only say what would be deleted; nothing is written
	Wait    time.Duration // for commits that are being made; default 10 minutes

	// Progress, if set, is told how many records and entries were looked at,
	// and how many objects were deleted, together.
	Progress func(n int64)
}

// Collection says what Collect did, or would do.
type Collection struct {
	DryRun  bool    `json:"dry_run"`
	Found   Records `json:"found"`   // before
	Deleted Records `json:"deleted"` // or would be
}

// Records counts them.
type Records struct {
	Log     int   `json:"log_entries"`
	Commits int   `json:"commits"`
	Ranges  int   `json:"ranges"`
	Pins    int   `json:"pins"`
	Bytes   int64 `json:"bytes"`
}

// ErrBusy means that commits are being made all the time, or that one died.
var ErrBusy = errors.New("somebody commits")

// Collect deletes the commits that nothing reaches, with their ranges and pins:
// see FORMAT.md for what is reached, and why no commit, merge or mount that
// runs meanwhile loses anything. What was begun and broken off is whole, and
// gone on with by the next call. refs.ErrNoConditions, ErrBusy;
// backend.ErrCorrupt and backend.ErrNotExist where a record is damaged that
// has to be read: then nothing is deleted. It needs memory for the names of
// old pins.
func (r *Repo) Collect(ctx context.Context, opts CollectOptions) (*Collection, error) {
	if opts.Grace <= 0 {
		opts.Grace = DefaultGrace
	}
	if opts.KeepLog <= 0 {
		opts.KeepLog = DefaultKeepLog
	}
	if opts.Wait <= 0 {
		opts.Wait = 10 * time.Minute
	}
	caps := r.raw.Caps()
	if !opts.DryRun {
		var err error
		if caps, err = r.st.Prober(ctx); err != nil {
			return nil, err
		}
		if !r.opts.SingleWriter && !(caps.CondCreate && caps.StrongList) {
			return nil, refs.ErrNoConditions
		}
	}
	c := &collector{
		r: r, opts: opts, out: &Collection{DryRun: opts.DryRun},
		roots:   &rootReader{r: r, keep: opts.KeepLog, cut: caps.CondOverwrite, known: map[string]record{}},
		reached: map[string]*commit.Manifest{}, ranges: map[string]bool{},
	}
	if err := c.list(ctx); err != nil {
		return nil, err
	}
	if err := c.mark(ctx); err != nil {
		return nil, err
	}
	if opts.DryRun {
		c.deleted(&c.out.Deleted.Log, c.expired)
		c.deleted(&c.out.Deleted.Commits, slices.Collect(maps.Values(c.oldCommits)))
		c.deleted(&c.out.Deleted.Ranges, slices.Collect(maps.Values(c.oldRanges)))
		c.deleted(&c.out.Deleted.Pins, slices.Collect(maps.Values(c.oldPins)))
		return c.out, nil
	}
	return c.out, c.sweep(ctx)
}

// deleted counts what was, or would be, deleted.
func (c *collector) deleted(n *int, infos []backend.Info) {
	*n += len(infos)
	for _, info := range infos {
		c.out.Deleted.Bytes += info.Size
	}
}

// collector is one collection. What it may delete only gets less.
type collector struct {
	r     *Repo
	opts  CollectOptions
	out   *Collection
	roots *rootReader
	seen  atomic.Int64

	mu      sync.Mutex
	reached map[string]*commit.Manifest // nil: is not there, and need not be
	ranges  map[string]bool             // of them, whose entries were looked at if there are pins

	expired []backend.Info // entries of logs

	// What is old and was not found to be reached, by id.
	oldCommits, oldRanges, oldPins map[string]backend.Info
	order                          []backend.Info // oldCommits, each before those it follows
}

// listed runs fn on all objects below a prefix, and returns what time it was
// for the store. There is no going by the clock of this machine, which may be
// a day ahead: what is young would look old then.
func (r *Repo) listed(ctx context.Context, prefix string, fn func(backend.Info)) (now time.Time, err error) {
	opts := backend.ListOptions{Prefix: prefix}
	for {
		page, err := r.raw.ListPage(ctx, opts)
		if err != nil {
			return now, err
		}
		if now.IsZero() {
			now = page.Date
		}
		if now.IsZero() && len(page.Objects) > 0 {
			return now, backend.Fail("list", prefix, backend.ErrUnsupported, errors.New("the store does not tell what time it is"))
		}
		for _, info := range page.Objects {
			fn(info)
		}
		if opts.Token = page.Next; opts.Token == "" {
			return now, nil
		}
	}
}

// list finds what could be deleted by its age.
func (c *collector) list(ctx context.Context) error {
	c.oldRanges, c.oldPins = map[string]backend.Info{}, map[string]backend.Info{}
	for dir, into := range map[string]struct {
		old   map[string]backend.Info
		id    func(key string) (string, bool)
		found *int
	}{
		commit.RangeDir: {c.oldRanges, commit.RangeOfKey, &c.out.Found.Ranges},
		overlay.PinDir:  {c.oldPins, overlay.PinOfKey, &c.out.Found.Pins},
	} {
		var all []backend.Info
		now, err := c.r.listed(ctx, dir, func(info backend.Info) { all = append(all, info) })
		if err != nil {
			return err
		}
		for _, info := range all {
			id, ok := into.id(info.Key)
			if !ok {
				continue
			}
			*into.found++
			c.out.Found.Bytes += info.Size
			if info.ModTime.Before(now.Add(-c.opts.Grace)) {
				into.old[id] = info
			}
		}
	}
	return nil
}

// mark finds what is reached now, and takes it from what is old. Each call
// looks at what the one before did not.
func (c *collector) mark(ctx context.Context) error {
	found, err := c.roots.read(ctx)
	if err != nil {
		return err
	}
	return c.markFrom(ctx, found)
}

func (c *collector) markFrom(ctx context.Context, found *roots) error {
	c.expired = found.expired
	if err := c.walk(ctx, found.ids, true); err != nil {
		return err
	}
	// After the roots, so that a commit that they do not name yet is young.
	all := map[string]backend.Info{}
	now, err := c.r.listed(ctx, commit.Dir, func(info backend.Info) {
		if id, ok := commit.IDOfKey(info.Key); ok {
			all[id] = info
		}
	})
	if err != nil {
		return err
	}
	if c.oldCommits == nil {
		c.out.Found.Commits = len(all)
		for _, info := range all {
			c.out.Found.Bytes += info.Size
		}
	}
	var young []string
	old := map[string]backend.Info{}
	for id, info := range all {
		if _, before := c.oldCommits[id]; info.ModTime.Before(now.Add(-c.opts.Grace)) && (before || c.oldCommits == nil) {
			old[id] = info
		} else {
			young = append(young, id)
		}
	}
	if err := c.walk(ctx, young, false); err != nil {
		return err
	}
	maps.DeleteFunc(old, func(id string, _ backend.Info) bool { return c.reached[id] != nil })
	c.oldCommits = old
	return nil
}

// walk reaches commits and all before them. strict: each must be there.
func (c *collector) walk(ctx context.Context, ids []string, strict bool) error {
	for len(ids) > 0 {
		var next []string
		var found []*commit.Manifest
		ids = slices.DeleteFunc(ids, func(id string) bool { m, ok := c.reached[id]; return ok && (m != nil || !strict) })
		err := backend.Parallel(ctx, atOnce, ids, func(ctx context.Context, id string) error {
			m, err := c.r.commits.Manifest(ctx, id)
			if !strict && (errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt)) {
				m, err = nil, nil
			}
			if err != nil {
				return fmt.Errorf("nothing is deleted while a commit in use is damaged (see keifs fsck): %w", err)
			}
			c.looked(1)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.reached[id] = m
			if m != nil {
				found = append(found, m)
				next = append(next, m.Parents...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, m := range found {
			if err := c.keepRanges(ctx, m.Ranges, strict); err != nil {
				return err
			}
		}
		slices.Sort(next)
		ids = slices.Compact(next)
	}
	return nil
}

// keepRanges keeps ranges, and the pins of their entries.
func (c *collector) keepRanges(ctx context.Context, ranges []commit.Range, strict bool) error {
	for _, desc := range ranges {
		if c.ranges[desc.ID] {
			continue
		}
		delete(c.oldRanges, desc.ID)
		var err error
		if len(c.oldPins) > 0 {
			err = c.keepPins(c.r.commits.TreeOf([]commit.Range{desc}).Walk(ctx, "", ""))
		}
		if !strict && (errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt)) {
			continue
		}
		if err != nil {
			return fmt.Errorf("nothing is deleted while a range in use is damaged (see keifs fsck): %w", err)
		}
		c.ranges[desc.ID] = true
	}
	return nil
}

func (c *collector) keepPins(entries iter.Seq2[commit.Entry, error]) error {
	for e, err := range entries {
		if err != nil {
			return err
		}
		id, _ := overlay.PinOfKey(overlay.PinKey(e.Key, e.ETag))
		delete(c.oldPins, id)
		c.looked(1)
	}
	return nil
}

func (c *collector) looked(n int64) {
	if now := c.seen.Add(n); c.opts.Progress != nil && (now%1000 < n || n > 1) {
		c.opts.Progress(now)
	}
}
