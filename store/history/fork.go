package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// Fork makes a branch of a commit. Nothing is copied: the commit is its base.
// held is what FindHeld said of it; otherwise zero. store.ErrExist,
// store.ErrBadName, backend.ErrNotExist where the commit is being collected.
func (r *Repo) Fork(ctx context.Context, name string, from *commit.Manifest, held time.Time) error {
	if err := store.ValidateBranch(name); err != nil {
		return err
	}
	// Whether there is a ref, who makes it finds out.
	page, err := r.raw.ListPage(ctx, backend.ListOptions{Prefix: name + "/", Limit: 1})
	if err == nil && len(page.Objects) > 0 {
		err = fmt.Errorf("branch %q: %w", name, store.ErrExist)
	}
	if err != nil {
		return err
	}
	ref, err := r.refs.Create(ctx, name, refs.Ref{Head: from.ID, Base: from.ID, Why: "branch from " + from.ID[:12]})
	r.st.Bucket().Forget()
	if errors.Is(err, refs.ErrExist) {
		err = fmt.Errorf("branch %q: %w", name, store.ErrExist)
	}
	if err != nil || !held.IsZero() && elapsed(held) < LeastKeepLog/24 {
		return err
	}
	return r.namedNow(ctx, from.ID, func(ctx context.Context) error { return r.refs.Delete(ctx, ref, "its commit is gone") })
}
