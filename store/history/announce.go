package history

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
)

// A collection and a commit keep out of each other's way by announcements; see
// FORMAT.md for the rule and why it is enough.

const (
	sweepDir = ".kei/gc/"

	// sweepFor is how long after its announcement a collection deletes, sweepBegin
	// how long it begins another deletion, and sweepDead the age at which
	// whoever waits for one goes on.
	sweepFor   = 20 * time.Second
	sweepBegin = 15 * time.Second
	sweepDead  = 60 * time.Second
	// look is the time between two looks of who waits.
	look = 250 * time.Millisecond
)

// announcement says that what nothing reaches is about to be deleted.
type announcement struct {
	Format int       `json:"format"`
	Host   string    `json:"host"`
	Time   time.Time `json:"time"`
	Count  int       `json:"count"` // makes each another version
	Nonce  string    `json:"nonce,omitempty"`

	r     *Repo
	key   string
	since time.Time // before it was sent last

	// Of one that only one can make: what the bucket honours, and the version.
	only *backend.Caps
	etag string
}

func (r *Repo) announcement() *announcement {
	return &announcement{Format: 1, Host: r.opts.Host, r: r, key: sweepDir + rand.Text() + ".json"}
}

// errLapsed means that others took the announcement for dead meanwhile.
var errLapsed = errors.New("the store or this machine stood still")

// make makes the announcement, or makes it anew. errLapsed.
func (a *announcement) make(ctx context.Context) error {
	before := a.since
	a.Time, a.Count, a.since = a.r.opts.Now().UTC(), a.Count+1, time.Now()
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	opts := backend.PutOptions{ContentType: "application/json"}
	if a.only != nil {
		opts.Cond = a.unchanged()
	}
	info, err := a.r.raw.Put(ctx, a.key, backend.Bytes(data), opts)
	if a.only != nil && errors.Is(err, backend.ErrPrecondition) {
		var there []byte // perhaps of the answer that got lost
		there, info, err = backend.ReadAll(ctx, a.r.raw, a.key, maxRecord)
		if err == nil && !bytes.Equal(there, data) || errors.Is(err, backend.ErrNotExist) {
			err = errTaken
		}
	}
	a.etag = info.ETag
	if err == nil && !before.IsZero() && elapsed(before) >= sweepDead {
		err = errLapsed
	}
	return err
}

// elapsed is the longer of two measures: the clock that nobody sets, and the
// one that goes on while the machine sleeps.
func elapsed(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// during runs fn, which may take long, and makes the announcement anew
// meanwhile, and once more in the end.
func (a *announcement) during(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(a.r.pace.renew)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if err := a.make(ctx); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	err := fn(ctx)
	close(stop)
	<-ended
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return a.make(ctx)
}

// takeBack ends the announcement. Where that fails, others wait until it is dead.
func (a *announcement) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if a.only != nil {
		return gone(a.r.st.Erase(ctx, a.key, a.etag))
	}
	err := a.r.raw.Delete(ctx, a.key, backend.Cond{})
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// unswept returns when no collection deletes anything that it found before now.
func (r *Repo) unswept(ctx context.Context) error {
	first := map[string]time.Time{} // when an announcement was seen first
	for {
		waits := false
		for info, err := range backend.ListRecursive(ctx, r.raw, sweepDir) {
			if err != nil {
				return err
			}
			version := fmt.Sprint(info.Key, info.ETag, info.ModTime)
			if _, ok := first[version]; !ok {
				first[version] = time.Now()
			}
			if time.Since(first[version]) < sweepDead {
				waits = true
				continue
			}
			if err := r.raw.Delete(ctx, info.Key, backend.Cond{}); err != nil && !errors.Is(err, backend.ErrNotExist) {
				return err
			}
		}
		if !waits {
			return nil
		}
		if err := pause(ctx, look); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// still says whether a commit that nothing may have named is there, with all
// it names. It must be asked once something names it, or while a mark is
// there that was made before unswept. backend.ErrNotExist.
func (r *Repo) still(ctx context.Context, id string) error {
	_, err := r.raw.Stat(ctx, commit.Key(id))
	if errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("commit %.12s was collected as garbage just now: %w", id, err)
	}
	return err
}

// namedNow is still for who has just written a record that names the commit
// without a mark; takeBack undoes that where the commit is gone.
func (r *Repo) namedNow(ctx context.Context, id string, takeBack func(context.Context) error) error {
	err := r.unswept(ctx)
	if err == nil {
		err = r.still(ctx, id)
	}
	if errors.Is(err, backend.ErrNotExist) {
		err = errors.Join(err, takeBack(context.WithoutCancel(ctx)))
	}
	return err
}
