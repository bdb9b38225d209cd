package history

import (
	"context"
	"errors"
	"sync"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// Standing is where a branch stands: its last commit, and what it and the
// branch that it was made of have, each without the other.
type Standing struct {
	Head   string // id of the last commit; empty: none yet
	Origin string // branch that its base was committed on; empty: none, or it is gone
	Ahead  int    // commits that Origin does not have
	Behind int    // commits that Origin has and this does not
	Err    error  // why it cannot be told
}

// Standings tells where branches stand. Those without history have none. It
// needs a request a branch, and one for each commit that is counted.
func (r *Repo) Standings(ctx context.Context, branches []string) (map[string]Standing, error) {
	var mu sync.Mutex
	at := map[string]*refs.Ref{}
	all := map[string]Standing{}
	err := backend.Parallel(ctx, atOnce, branches, func(ctx context.Context, name string) error {
		ref, err := r.refs.Load(ctx, name)
		if errors.Is(err, backend.ErrNotExist) || errors.Is(err, refs.ErrBadName) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			all[name] = Standing{Err: err}
		} else {
			at[name] = ref
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	err = backend.Parallel(ctx, atOnce, branches, func(ctx context.Context, name string) error {
		ref := at[name]
		if ref == nil {
			return nil
		}
		s, err := r.standing(ctx, ref, at)
		s.Err = err
		mu.Lock()
		defer mu.Unlock()
		all[name] = s
		return ctx.Err()
	})
	return all, err
}

func (r *Repo) standing(ctx context.Context, ref *refs.Ref, at map[string]*refs.Ref) (s Standing, err error) {
	head, base, err := r.ends(ctx, ref)
	if err != nil || head == nil {
		return s, err
	}
	s.Head = head.ID
	if base == nil || base.Branch == ref.Branch || at[base.Branch] == nil {
		return s, nil
	}
	theirs, _, err := r.ends(ctx, at[base.Branch])
	if err != nil || theirs == nil {
		return s, err
	}
	s.Origin = base.Branch
	s.Ahead, s.Behind, err = r.Divergence(ctx, head, theirs)
	return s, err
}

// Divergence counts the commits that only a has in its history, and those that
// only b has. What both have is not read further than to where it begins.
func (r *Repo) Divergence(ctx context.Context, a, b *commit.Manifest) (onlyA, onlyB int, err error) {
	const inA, inB, both = 1, 2, 3
	in := map[string]int{}
	var open []*commit.Manifest
	reach := func(m *commit.Manifest, from int) {
		if in[m.ID]|from != in[m.ID] {
			in[m.ID] |= from
			open = append(open, m) // again, where it is reached another way
		}
	}
	reach(a, inA)
	reach(b, inB)
	for {
		newest := -1
		wanted := false // there is one that only one of them has, as far as is known
		for i, m := range open {
			if newest < 0 || m.Time.After(open[newest].Time) {
				newest = i
			}
			wanted = wanted || in[m.ID] != both
		}
		if !wanted {
			break
		}
		m := open[newest]
		open = append(open[:newest], open[newest+1:]...)
		for _, id := range m.Parents {
			parent, err := r.commits.Manifest(ctx, id)
			if err != nil {
				return 0, 0, err
			}
			reach(parent, in[m.ID])
		}
	}
	for _, from := range in {
		switch from {
		case inA:
			onlyA++
		case inB:
			onlyB++
		}
	}
	return onlyA, onlyB, nil
}
