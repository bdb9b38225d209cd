package history

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/keifs/keifs/backend"
)

// errTaken means that somebody else has made the announcement.
var errTaken = errors.New("somebody else is at it")

// alone makes an announcement that only one can make at a time. Where there is
// one it waits until that is taken back, or was not made anew for so long that
// it is of who died. errTaken where it is made anew.
func (r *Repo) alone(ctx context.Context, key string) (*announcement, error) {
	caps, err := r.st.Prober(ctx)
	if err != nil {
		return nil, err
	}
	var seen string
	var since time.Time
	for {
		a := &announcement{Format: 1, Host: r.opts.Host, Nonce: rand.Text(), r: r, key: key, only: &caps}
		if err := a.make(ctx); !errors.Is(err, errTaken) {
			return a, err
		}
		info, err := r.raw.Stat(ctx, key)
		if errors.Is(err, backend.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch version := fmt.Sprint(info.ETag, info.ModTime); {
		case seen == "":
			seen, since = version, time.Now()
		case version != seen:
			return nil, errTaken
		case time.Since(since) >= r.pace.dead:
			if err := gone(r.st.Erase(ctx, key, info.ETag)); err != nil {
				return nil, err
			}
			continue
		}
		if err := pause(ctx, r.pace.look); err != nil {
			return nil, err
		}
	}
}

// unchanged is the condition that nobody else made it since.
func (a *announcement) unchanged() backend.Cond {
	switch {
	case a.etag == "":
		return backend.Cond{IfAbsent: a.only.CondCreate}
	case a.only.CondOverwrite:
		return backend.Cond{IfMatch: a.etag}
	}
	return backend.Cond{}
}

// gone is the error of a deletion without that of what is gone, or another's.
func gone(err error) error {
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrPrecondition) {
		return nil
	}
	return err
}
