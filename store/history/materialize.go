package history

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
)

// materializeAtOnce is how many copies are made before whiteouts are looked at.
const materializeAtOnce = 1000

// aloneDir is where who makes a branch independent announces it, and
// materializes how the token of his mark ends.
const (
	aloneDir     = ".kei/independent/"
	materializes = "/independent"
)

// Materialize gives a branch plain objects of its own for all that it shows of
// its base, by copies on the server, and then it has no base any more. It
// returns how many were copied. What others change meanwhile stays as they
// leave it; who was interrupted runs it again, and what is there is left: after
// a crash that waits a minute. overlay.ErrLost where some content of the base is
// gone; an error where somebody else does the same.
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
	a, err := r.alone(ctx, aloneDir+branch+".json")
	if err != nil {
		return 0, fmt.Errorf("branch %q is to be made independent: %w", branch, err)
	}
	defer func() { err = errors.Join(err, a.takeBack(ctx)) }()
	err = a.during(ctx, func(ctx context.Context) error {
		t, err := r.beginAs(ctx, branch, materializes)
		if err != nil {
			return err
		}
		defer func() { t.end(ctx) }()
		if t.ref.Base != "" { // else who was here before had come to the end
			m := &materialization{r: r, plain: r.st.Plain(), branch: branch, base: t.ref.Base}
			err = m.run(ctx, func() { progressed(progress, m.copied) })
			if copied = m.copied; err != nil {
				return err
			}
			if err := t.independent(ctx); err != nil {
				return err
			}
		}
		return r.dropWhiteouts(ctx, branch)
	})
	return copied, err
}

func progressed(progress func(int64), n int64) {
	if progress != nil {
		progress(n)
	}
}

// materialization is the copies of one.
type materialization struct {
	r            *Repo
	plain        *store.Store // in which branches have no bases
	branch, base string
	copied       int64
}

// run copies what the branch shows of its base, and takes away what who died
// has copied although it was deleted meanwhile.
func (m *materialization) run(ctx context.Context, looked func()) error {
	hides, err := m.r.st.Bucket().Hidden(ctx, m.branch)
	if err != nil {
		return err
	}
	var batch []overlay.Object
	flush := func() error {
		n, err := m.copyDown(ctx, batch)
		m.copied += n
		looked()
		batch = batch[:0]
		return err
	}
	for o, err := range m.r.st.Bucket().Walk(ctx, m.branch, "") {
		switch {
		case err != nil:
			return err
		case o.Inherited:
			batch = append(batch, o)
		case hides(o.Rel):
			err = m.takeAway(ctx, o.Rel, o.ETag, false)
		}
		if err == nil && len(batch) == materializeAtOnce {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	return flush()
}

// copyDown makes plain objects of some of the base's. One that somebody hides
// at the same moment is taken away again: he may have looked for it before it
// came. Whoever hides one later finds it.
func (m *materialization) copyDown(ctx context.Context, objects []overlay.Object) (int64, error) {
	var mu sync.Mutex
	made := map[string]string{} // versions, by path
	err := backend.Parallel(ctx, atOnce, objects, func(ctx context.Context, o overlay.Object) error {
		src, err := m.plain.Bucket().Stat(ctx, m.branch+"@"+m.base+"/"+o.Rel)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Rel, err)
		}
		opts := backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: m.plain.Lasting(src), ContentType: src.ContentType}
		opts.Metadata[metaMark] = m.mark()
		info, err := m.plain.Transfer(ctx, src, m.branch+"/"+o.Rel, opts)
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
	ctx = context.WithoutCancel(ctx)
	hides, hiddenErr := m.r.st.Bucket().Hidden(ctx, m.branch)
	if hiddenErr != nil {
		return 0, errors.Join(err, hiddenErr)
	}
	for rel, version := range made {
		if hides(rel) {
			delete(made, rel)
			err = errors.Join(err, m.takeAway(ctx, rel, version, true))
		}
	}
	return int64(len(made)), err
}

// mark is what a copy says of itself until somebody changes it.
func (m *materialization) mark() string { return "base-" + m.base[:32] }

// takeAway deletes a copy that is hidden. What somebody made in its place may be
// the same content, and then has the same version, but not the mark. sure: it
// is a copy where the store keeps no marks.
func (m *materialization) takeAway(ctx context.Context, rel, version string, sure bool) error {
	key := m.branch + "/" + rel
	now, err := m.r.raw.Stat(ctx, key)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return nil
	case err != nil:
		return err
	case now.ETag != version, now.Metadata[metaMark] != m.mark() && (m.r.raw.Caps().Metadata || !sure):
		return nil
	}
	return gone(m.r.st.Erase(ctx, key, version))
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
	ref, err := r.refs.Load(ctx, branch)
	if err != nil || ref.Base != "" {
		return err // made anew meanwhile
	}
	return r.st.Bucket().DropWhiteouts(ctx, branch)
}
