package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// dirRenames are the renames of directories that are under way, or were cut
// off: the bucket may have something under both names. Each is in the journal
// from before its first copy until after its last deletion, so that the next
// mount finishes it. The journal has no list of what was copied, since the
// bucket tells: see store.FinishRename.
type dirRenames struct {
	c *Cache

	mu  sync.Mutex
	all []*dirRename
}

// dirRename is one of them.
type dirRename struct {
	branch   string
	from, to store.Path
	since    time.Time

	// Guarded by dirRenames.mu.
	id       journal.ID
	back     bool
	copied   bool // all is under the new name: what is here only goes there
	cut      bool // nobody is at work on it but the finisher
	done, of int
	err      error         // of the last attempt to finish it
	tried    chan struct{} // closed at the end of the one to come

	wake chan struct{} // somebody waits for that
}

// renameRecord is a dirRename in the journal.
type renameRecord struct {
	Branch []byte    `json:"branch"`
	From   []byte    `json:"from"`
	To     []byte    `json:"to"`
	Back   bool      `json:"back,omitempty"`   // what is under To is to go
	Copied bool      `json:"copied,omitempty"` // all is under To, and what is here only has its name there
	Since  time.Time `json:"since"`
}

// begin notes a rename in the journal.
func (d *dirRenames) begin(branch string, from, to store.Path) (*dirRename, error) {
	r := &dirRename{branch: branch, from: from, to: to, since: time.Now(), tried: make(chan struct{}), wake: make(chan struct{}, 1)}
	err := d.note(r)
	if err == nil {
		err = diskError(d.c.journal.Sync(context.Background())) // nothing is half done without the journal knowing
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, r)
	return r, nil
}

// note writes the record of r, in the place of its last one.
func (d *dirRenames) note(r *dirRename) error {
	data, err := json.Marshal(renameRecord{[]byte(r.branch), []byte(r.from.String()), []byte(r.to.String()), r.back, r.copied, r.since})
	if err != nil {
		return err
	}
	id, err := d.c.append(kindRename, data, r.id)
	if err != nil {
		return err
	}
	r.id = id
	return nil
}

// progress is told how many copies are made.
func (d *dirRenames) progress(r *dirRename) func(done, of int) {
	return func(done, of int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		r.done, r.of = done, of
	}
}

// copied notes that a rename has come so far that it is not taken back. A
// crash from then on leaves nothing that is here only under the old name.
func (d *dirRenames) copied(r *dirRename) func() error {
	return func() error {
		r.copied = true
		err := d.note(r)
		if err == nil {
			err = diskError(d.c.journal.Sync(context.Background()))
		}
		r.copied = err == nil
		return err
	}
}

// ended takes the outcome of a rename, if there is one: it is done or was taken
// back, or it goes on in the background. here is why the journal does not have
// the new names of all that is here only. The paths are still claimed.
func (d *dirRenames) ended(r *dirRename, err, here error) {
	if r == nil {
		return
	}
	var unfinished *store.UnfinishedError
	switch {
	case errors.As(err, &unfinished):
		d.mu.Lock()
		r.back, r.cut, r.err = unfinished.Back, true, err
		d.mu.Unlock()
		err = d.note(r)
		if err == nil { // so that a crash does not finish what was said to have failed
			err = d.c.journal.Sync(context.Background())
		}
		if err != nil {
			d.c.log.Error("the journal does not take that a rename is to be finished", "error", err)
		}
	case err == nil:
		if here == nil {
			here = d.drop(r)
		}
		if here == nil {
			return
		}
		d.mu.Lock()
		r.cut, r.err = true, here
		d.mu.Unlock()
	default:
		if derr := d.drop(r); derr != nil {
			d.c.log.Error("the journal does not take that a rename was taken back", "error", derr)
			d.remove(r)
		}
		return
	}
	d.finish(r)
}

// isCopied says whether all is under the new name, whatever the error.
func (r *dirRename) isCopied() bool { return r != nil && r.copied }

// drop ends the record, before somebody makes one of the names anew.
func (d *dirRenames) drop(r *dirRename) error {
	err := d.c.withdraw(r.id)
	if err == nil {
		err = diskError(d.c.journal.Sync(context.Background()))
	}
	if err == nil {
		d.remove(r)
	}
	return err
}

func (d *dirRenames) remove(r *dirRename) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = slices.DeleteFunc(d.all, func(o *dirRename) bool { return o == r })
}

// replay takes up a rename that is left from last time.
func (d *dirRenames) replay(rec journal.Record) error {
	var old renameRecord
	err := json.Unmarshal(rec.Data, &old)
	r := &dirRename{branch: string(old.Branch), since: old.Since, id: rec.ID, back: old.Back, copied: old.Copied, cut: true, tried: make(chan struct{}), wake: make(chan struct{}, 1)}
	if err == nil {
		r.from, err = store.ParsePath(string(old.From))
	}
	if err == nil {
		r.to, err = store.ParsePath(string(old.To))
	}
	if err != nil {
		return fmt.Errorf("record %d: %w (%w)", rec.ID, journal.ErrFormat, err)
	}
	d.all = append(d.all, r)
	return nil
}

// carry gives the files that replay took up the names that they have after
// the renames which came so far.
func (d *dirRenames) carry() error {
	for _, r := range d.all {
		if !r.copied {
			continue
		}
		s, err := d.c.store.Branch(r.branch)
		if err != nil {
			return err
		}
		t := d.c.tree(s)
		t.carry(d.c.ctx, t.below(r.from), r.from, r.to)
	}
	return nil
}

// start has what replay took up finished.
func (d *dirRenames) start() {
	for _, r := range d.all {
		d.finish(r)
	}
}

// finish tries, in the background, until the rename is finished.
func (d *dirRenames) finish(r *dirRename) {
	// An error is that of Close, which leaves it to the next mount.
	_ = d.c.start(func() {
		for wait := firstRetryAfter; ; wait = min(2*wait, lastRetryAfter) {
			err := d.finishOnce(r)
			if err != nil {
				d.c.log.Warn("a rename of a directory that was cut off is not finished yet", "branch", r.branch, "from", r.from.String(), "to", r.to.String(), "error", err)
			}
			d.mu.Lock()
			r.err = err
			close(r.tried)
			r.tried = make(chan struct{})
			d.mu.Unlock()
			if err == nil {
				return
			}
			select {
			case <-time.After(wait):
			case <-r.wake:
			case <-d.c.quit:
				return
			}
		}
	})
}

// finishOnce ends the rename, one way or the other. What is here only goes
// along, and so do open files: nothing brings back the name that goes. It is
// not in the journal any more when the claims end.
func (d *dirRenames) finishOnce(r *dirRename) error {
	s, err := d.c.store.Branch(r.branch)
	if err != nil {
		return err
	}
	ctx := backend.WithPriority(d.c.ctx, backend.Interactive)
	t := d.c.tree(s)
	claims := []claim{subtree(r.from), subtree(r.to)}
	release, err := t.gate.take(ctx, claims...)
	if err != nil {
		return err
	}
	defer release()
	from, to := r.from, r.to
	if r.back {
		from, to = to, from
	}
	var local []*inode
	if !r.back {
		local = t.unseenBelow(from)
	}
	if err := t.publishBelow(ctx, from, local...); err != nil {
		return err
	}
	if err := d.c.settleCopies(ctx, t, claims...); err != nil {
		return err
	}
	moves := t.moves(t.belowBut(from, local), from, to)
	if err := d.c.noted(); err != nil {
		return err
	}
	err = s.FinishRename(ctx, r.from, r.to, r.back, d.copied(r))
	if r.copied {
		t.carry(ctx, local, from, to)
	}
	for _, p := range []store.Path{r.from, r.to} {
		d.c.meta.forget(r.branch, p, true)
	}
	t.follow(ctx, moves, store.Entry{}, true)
	if err = errors.Join(err, t.renewBelow(ctx, r.from), t.renewBelow(ctx, r.to)); err != nil {
		return err
	}
	return d.drop(r)
}

// cut are the renames that were cut off and match.
func (d *dirRenames) cut(match func(*dirRename) bool) (all []*dirRename, tried []chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.all {
		if r.cut && match(r) {
			all, tried = append(all, r), append(tried, r.tried)
		}
	}
	return all, tried
}

// wait returns when those that were cut off and match are finished, or with
// the error of the attempt.
func (d *dirRenames) wait(ctx context.Context, match func(*dirRename) bool) error {
	all, tried := d.cut(match)
	for i, r := range all {
		signal(r.wake)
		if err := d.c.await(ctx, tried[i]); err != nil {
			return err
		}
		d.mu.Lock()
		err := r.err
		d.mu.Unlock()
		if err != nil {
			return fmt.Errorf("rename %s/%s: %w", r.branch, r.from, err)
		}
	}
	return nil
}

// claim takes the gate for a removal or a rename. No rename that was cut off
// has anything to do with the paths then: it would bring back what goes, or
// not find what it has copied. The error may be that of finishing it.
func (t *tree) claim(ctx context.Context, claims ...claim) (release func(), err error) {
	about := func(r *dirRename) bool {
		return r.branch == t.Name() && slices.ContainsFunc(claims, func(c claim) bool {
			return c.covers(r.from) || c.covers(r.to) || r.from.Contains(c.path) || r.to.Contains(c.path)
		})
	}
	for {
		if err := t.c.renames.wait(ctx, about); err != nil {
			return nil, err
		}
		release, err := t.gate.take(ctx, claims...)
		if err != nil {
			return nil, err
		}
		if all, _ := t.c.renames.cut(about); len(all) == 0 {
			return release, nil
		}
		release()
	}
}

// pending describes those under way.
func (d *dirRenames) pending() []store.Pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []store.Pending
	for _, r := range d.all {
		p := store.Pending{Branch: r.branch, Path: r.from.String(), State: "renaming", Names: r.done, Of: max(r.of, 1), Since: r.since}
		if r.err != nil {
			p.Err = r.err.Error()
		}
		all = append(all, p)
	}
	return all
}
