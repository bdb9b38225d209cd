package history

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// materializeAtOnce is how many copies are made before whiteouts are looked at.
const materializeAtOnce = 1000

// Materialize gives a branch plain objects of its own for all that it shows of
// its base, by copies on the server, and then it has no base any more. It
// returns how many were copied. What others change meanwhile stays as they
// leave it; who was interrupted runs it again, and what is there is left.
// overlay.ErrLost where some content of the base is gone.
func (r *Repo) Materialize(ctx context.Context, branch string, progress func(done int64)) (copied int64, err error) {
	ref, err := r.refs.Load(ctx, branch)
	if errors.Is(err, backend.ErrNotExist) {
		return 0, nil // without history, all it has is its own
	}
	if err != nil {
		return 0, err
	}
	if ref.Base == "" {
		return 0, r.dropWhiteouts(ctx, branch) // which a crash may have left
	}
	if _, err := r.st.Prober(ctx); err != nil {
		return 0, err
	}
	t, err := r.begin(ctx, branch)
	if err != nil {
		return 0, err
	}
	defer func() { t.end(ctx) }()
	base, plain := t.ref.Base, r.st.Plain()
	if base == "" { // who died had come to the end
		return 0, r.dropWhiteouts(ctx, branch)
	}
	var batch []overlay.Object
	flush := func() error {
		n, err := r.copyDown(ctx, plain, branch, base, batch)
		copied += n
		if progress != nil {
			progress(copied)
		}
		batch = batch[:0]
		return err
	}
	for o, err := range r.st.Bucket().Walk(ctx, branch, "") {
		if err != nil {
			return copied, err
		}
		if !o.Inherited {
			continue
		}
		if batch = append(batch, o); len(batch) == materializeAtOnce {
			if err := flush(); err != nil {
				return copied, err
			}
		}
	}
	if err := flush(); err != nil {
		return copied, err
	}
	if err := t.independent(ctx, base); err != nil {
		return copied, err
	}
	return copied, r.dropWhiteouts(ctx, branch)
}

// copyDown makes plain objects of some of the base's. One that somebody hides
// at the same moment is taken away again: he may have looked for it before it
// came. Whoever hides one later finds it.
func (r *Repo) copyDown(ctx context.Context, plain *store.Store, branch, base string, objects []overlay.Object) (int64, error) {
	var mu sync.Mutex
	made := map[string]string{} // versions, by path
	err := backend.Parallel(ctx, atOnce, objects, func(ctx context.Context, o overlay.Object) error {
		src, err := plain.Bucket().Stat(ctx, branch+"@"+base+"/"+o.Rel)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Rel, err)
		}
		info, err := plain.Transfer(ctx, src, branch+"/"+o.Rel, backend.PutOptions{
			Cond: backend.Cond{IfAbsent: true}, Metadata: plain.Lasting(src), ContentType: src.ContentType,
		})
		switch {
		case errors.Is(err, backend.ErrPrecondition):
			return nil // somebody else made one
		case errors.Is(err, store.ErrStale):
			return fmt.Errorf("%s: %w: %w", o.Rel, overlay.ErrLost, err)
		case err != nil:
			return fmt.Errorf("%s: %w", o.Rel, err)
		}
		mu.Lock()
		defer mu.Unlock()
		made[o.Rel] = info.ETag
		return nil
	})
	if len(made) == 0 {
		return 0, err
	}
	hides, hiddenErr := r.st.Bucket().Hidden(context.WithoutCancel(ctx), branch)
	if hiddenErr != nil {
		return 0, errors.Join(err, hiddenErr)
	}
	for rel, version := range made {
		if !hides(rel) {
			continue
		}
		delete(made, rel)
		eraseErr := r.st.Erase(context.WithoutCancel(ctx), branch+"/"+rel, version)
		if eraseErr != nil && !errors.Is(eraseErr, backend.ErrNotExist) && !errors.Is(eraseErr, backend.ErrPrecondition) {
			err = errors.Join(err, eraseErr)
		}
	}
	return int64(len(made)), err
}

// independent takes base and mark away from the branch.
func (t *taking) independent(ctx context.Context, base string) error {
	for range attempts {
		next := *t.ref
		next.Base, next.Why = "", "independent of "+base[:12]
		next.Committing = without(t.ref.Committing, t.token)
		ref, err := t.r.refs.Advance(ctx, t.ref, next)
		if err == nil {
			t.ref, t.done = ref, true
			t.r.st.Bucket().Forget()
			return nil
		}
		if !errors.Is(err, refs.ErrLost) {
			return err
		}
		if ref, err = t.r.refs.Load(ctx, t.ref.Branch); err != nil {
			return err
		}
		t.ref = ref
		if t.ref.Base != base {
			return nil // somebody else was faster
		}
	}
	return fmt.Errorf("branch %q: %w", t.ref.Branch, refs.ErrLost)
}

// dropWhiteouts deletes what hid the base, when nobody looks at that any more.
func (r *Repo) dropWhiteouts(ctx context.Context, branch string) error {
	there, err := r.st.Bucket().AnyWhiteout(ctx, branch)
	if err != nil || !there {
		return err
	}
	if err := r.opts.Settle(ctx); err != nil {
		return err
	}
	return r.st.Bucket().DropWhiteouts(ctx, branch)
}
