package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

const (
	// gatherFor is how long no further removal may come before those that
	// wait are sent, gatherMost how long they wait for others at most.
	gatherFor  = 50 * time.Millisecond
	gatherMost = 500 * time.Millisecond
	// sendFrom is how many are sent though more may come: what one request
	// takes. sendAtOnce is how many go to the bucket together at most.
	sendFrom   = 1000
	sendAtOnce = 4 * sendFrom
	// fenceFor is how long a removal that the bucket has is remembered, since
	// the journal may forget, in a crash, that it is done.
	fenceFor = 3 * time.Second
)

// removals are the names that were removed here and that the bucket may still
// have. They are in the journal, so that a crash does not bring them back, and
// everything in the cache looks names up through them. They gather for a
// moment, and go to the bucket many at once, by one goroutine.
//
// Its lock is taken last.
type removals struct {
	c    *Cache
	wake chan struct{}

	mu      sync.Mutex
	graves  map[string]map[store.Path]*grave // by branch and path
	inside  map[string]map[store.Path]int    // by branch and directory: how many names of it
	buried  map[string]map[store.Path]buried // done a moment ago
	fresh   time.Time                        // of the latest
	urgent  bool                             // somebody waits
	running bool                             // the goroutine
}

// grave is one name that is gone here.
type grave struct {
	branch string
	store.Removal
	id    journal.ID
	since time.Time
	tried chan struct{} // closed at the end of the attempt to come
	tries int
	err   error // of the last
	stale bool  // somebody else's version is there, and stays
}

// buried is a name that the bucket does not have any more.
type buried struct {
	id journal.ID
	at time.Time
}

// removalRecord is a grave in the journal.
type removalRecord struct {
	Branch  []byte    `json:"branch"`
	Path    []byte    `json:"path"`
	Version string    `json:"version,omitempty"`
	Dir     bool      `json:"dir,omitempty"`
	Since   time.Time `json:"since"`
}

func newRemovals(c *Cache) *removals {
	return &removals{
		c: c, wake: make(chan struct{}, 1),
		graves: map[string]map[store.Path]*grave{}, inside: map[string]map[store.Path]int{}, buried: map[string]map[store.Path]buried{},
	}
}

// replay takes up a removal that is left from last time.
func (r *removals) replay(rec journal.Record) error {
	var old removalRecord
	if err := json.Unmarshal(rec.Data, &old); err != nil {
		return fmt.Errorf("a removal in the journal: %w", err)
	}
	p, err := store.ParsePath(string(old.Path))
	if err != nil {
		return fmt.Errorf("a removal in the journal: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(&grave{branch: string(old.Branch), Removal: store.Removal{Path: p, Version: old.Version, Dir: old.Dir}, id: rec.ID, since: old.Since})
	return nil
}

// start has what replay took up sent.
func (r *removals) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startLocked()
}

// add removes a name here. It returns when the journal has it.
func (r *removals) add(branch string, removal store.Removal) (*grave, error) {
	g := &grave{branch: branch, Removal: removal, since: time.Now()}
	data, err := json.Marshal(removalRecord{[]byte(branch), []byte(removal.Path.String()), removal.Version, removal.Dir, g.since})
	if err != nil {
		return nil, err
	}
	if g.id, err = r.c.append(kindRemoval, data); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked(g)
	r.startLocked()
	signal(r.wake)
	return g, nil
}

func (r *removals) addLocked(g *grave) {
	g.tried = make(chan struct{})
	if r.graves[g.branch] == nil {
		r.graves[g.branch], r.inside[g.branch] = map[store.Path]*grave{}, map[store.Path]int{}
	}
	if old, ok := r.graves[g.branch][g.Path]; ok {
		r.c.journal.Done(old.id) // which comes from before a crash
	} else {
		r.inside[g.branch][g.Path.Dir()]++
	}
	r.graves[g.branch][g.Path] = g
	r.fresh = time.Now()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *removals) dropLocked(g *grave) {
	if r.graves[g.branch][g.Path] != g {
		return
	}
	delete(r.graves[g.branch], g.Path)
	dir := g.Path.Dir()
	if r.inside[g.branch][dir]--; r.inside[g.branch][dir] == 0 {
		delete(r.inside[g.branch], dir)
	}
	if len(r.graves[g.branch]) == 0 {
		delete(r.graves, g.branch)
		delete(r.inside, g.branch)
	}
}

// covers says whether a name was removed here, by itself or with a directory
// above it.
func (r *removals) covers(branch string, p store.Path) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	graves := r.graves[branch]
	if len(graves) == 0 {
		return false
	}
	for {
		if graves[p] != nil {
			return true
		}
		if p.IsRoot() {
			return false
		}
		p = p.Dir()
	}
}

// names are those of a directory that were removed here.
func (r *removals) names(branch string, dir store.Path) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inside[branch][dir] == 0 {
		return nil
	}
	names := make(map[string]bool, r.inside[branch][dir])
	for p := range r.graves[branch] {
		if p.Dir() == dir {
			names[p.Name()] = true
		}
	}
	return names
}

// settle returns when the bucket has the removals that the claims are about,
// or with the error of the attempt. Whoever makes such a name anew begins with
// it: no removal may come after, not even one that a crash brings back.
func (r *removals) settle(ctx context.Context, branch string, claims ...claim) error {
	about := func(p store.Path) bool {
		return slices.ContainsFunc(claims, func(cl claim) bool { return cl.covers(p) })
	}
	if err := r.wait(ctx, func(g *grave) bool { return g.branch == branch && about(g.Path) }); err != nil {
		return err
	}
	var fenced []journal.ID
	r.mu.Lock()
	for p, b := range r.buried[branch] {
		if about(p) {
			fenced = append(fenced, b.id)
			delete(r.buried[branch], p)
		}
	}
	r.mu.Unlock()
	if len(fenced) == 0 {
		return nil
	}
	return diskError(r.c.journal.Sync(ctx))
}

func everything(*grave) bool { return true }

// wait returns when the bucket has the removals that match, or with the error
// of the attempt.
func (r *removals) wait(ctx context.Context, match func(*grave) bool) error {
	var all []*grave
	var tried []chan struct{}
	r.mu.Lock()
	for _, graves := range r.graves {
		for _, g := range graves {
			if match(g) {
				all, tried = append(all, g), append(tried, g.tried)
			}
		}
	}
	if len(all) > 0 {
		r.urgent = true
		r.startLocked()
		signal(r.wake)
	}
	r.mu.Unlock()
	for i, g := range all {
		if err := r.c.await(ctx, tried[i]); err != nil {
			return err
		}
		r.mu.Lock()
		err := g.err
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("remove %s/%s: %w", g.branch, g.Path, err)
		}
	}
	return nil
}

// finish waits for one removal. Where it fails, the name is back.
func (r *removals) finish(ctx context.Context, g *grave) error {
	err := r.wait(ctx, func(other *grave) bool { return other == g })
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.dropLocked(g)
		r.c.journal.Done(g.id)
		return err
	case g.stale:
		return fmt.Errorf("remove %s/%s: %w", g.branch, g.Path, store.ErrStale)
	}
	return nil
}

func (r *removals) startLocked() {
	if !r.running && len(r.graves) > 0 {
		r.running = r.c.start(r.run) == nil
	}
}

// pending describes what waits, a branch at a time.
func (r *removals) pending() []store.Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []store.Pending
	for branch, graves := range r.graves {
		p := store.Pending{Branch: branch, State: "removing", Names: len(graves)}
		for _, g := range graves {
			if p.Since.IsZero() || g.since.Before(p.Since) {
				p.Since = g.since
			}
			if g.err != nil {
				p.Err = g.err.Error()
			}
		}
		all = append(all, p)
	}
	return all
}
