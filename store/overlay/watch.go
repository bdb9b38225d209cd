package overlay

import (
	"context"
	"time"
)

// watchAfter is the age of a view at which a change that is still under way looks
// at the ref again: early enough to keep within Belief what it replaces.
const watchAfter = Belief * 5 / 8

// watch runs fn, a change that nothing is kept for since nobody commits by the
// view v. As long as it takes, the ref is looked at by the clock; when somebody
// begins to commit, keep is to keep what the change will replace, and says
// whether that was still there. The result is the last view by which nobody had
// begun, to settle the change with: nil, if it is settled already.
func (l *layer) watch(ctx context.Context, v *view, keep func(context.Context, *view) (all bool, err error), fn func(context.Context) error) (*view, error) {
	stop, ended := make(chan struct{}), make(chan struct{})
	timer := time.AfterFunc(watchAfter-time.Since(v.since), func() {
		defer close(ended)
		v = l.look(ctx, v, keep, stop)
	})
	err := fn(ctx)
	close(stop)
	if !timer.Stop() {
		<-ended
	}
	return v, err
}

func (l *layer) look(ctx context.Context, v *view, keep func(context.Context, *view) (bool, error), stop <-chan struct{}) *view {
	for {
		now, err := l.view(ctx, fresh)
		if err != nil {
			return v
		}
		if !now.same(v) {
			all, err := keep(ctx, now)
			switch {
			case err != nil:
				return v
			case all:
				return nil
			case time.Since(v.since) >= Belief:
				return v // it was replaced, perhaps after a commit had listed it
			}
		}
		v = now
		timer := time.NewTimer(watchAfter - time.Since(v.since))
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return v
		}
	}
}
