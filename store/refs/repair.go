package refs

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
)

// Repair makes the ref of a branch point to the last entry of its log, and makes
// entries anew that the log has lost and must have, see Lost. It says whether
// anything was to be done. backend.ErrNotExist where there is neither.
func (r *Refs) Repair(ctx context.Context, branch string) (repaired bool, err error) {
	caps, err := r.caps(ctx)
	if err != nil {
		return false, err
	}
	lost, err := r.Lost(ctx, branch)
	if err != nil {
		return false, err
	}
	for _, entry := range lost {
		if _, err := r.decide(ctx, caps, *entry); err != nil {
			return false, err
		}
	}
	moved, err := r.catchUp(ctx, caps, branch)
	return moved || len(lost) > 0, err
}

// catchUp makes the ref point to the last entry of the log.
func (r *Refs) catchUp(ctx context.Context, caps backend.Caps, branch string) (moved bool, err error) {
	last, err := r.last(ctx, branch)
	if err != nil {
		return false, err
	}
	now, err := r.read(ctx, key(branch), branch)
	switch {
	case err == nil && (now.Generation > last.Generation || now.Generation == last.Generation && !last.Deleted):
		return false, nil // it does, or goes further than the log did when it was listed
	case errors.Is(err, backend.ErrNotExist):
		if last.Deleted {
			return false, nil
		}
		_, err = r.point(ctx, caps, last, "")
		return err == nil, err
	case errors.Is(err, backend.ErrCorrupt):
		info, err := r.b.Stat(ctx, key(branch))
		if err != nil {
			return false, err
		}
		_, err = r.point(ctx, caps, last, info.ETag)
		return err == nil, err
	case err != nil:
		return false, err
	}
	_, err = r.point(ctx, caps, last, now.etag)
	return err == nil, err
}

// Lost returns the entries that the log of a branch must have and does not, as
// they can be made anew: that of the ref, which decides who advances it, from the
// ref; and the first, which decides who makes the branch, as one that names
// nothing. Others that are missing were collected.
func (r *Refs) Lost(ctx context.Context, branch string) (lost []*Ref, err error) {
	// The ref before the log, which is never behind it.
	ref, err := r.read(ctx, key(branch), branch)
	if err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrCorrupt) {
		return nil, err
	}
	keys, err := r.entries(ctx, branch)
	if err != nil {
		return nil, err
	}
	if ref != nil && !slices.Contains(keys, logKey(branch, ref.Generation)) &&
		(len(keys) == 0 || keys[len(keys)-1] < logKey(branch, ref.Generation)) {
		lost = append(lost, ref)
	}
	if (len(keys) > 0 || ref != nil && ref.Generation > 1) && !slices.Contains(keys, logKey(branch, 1)) {
		first := r.complete(Ref{Why: "an entry that was lost"}, branch, 1)
		lost = append(lost, &first)
	}
	return lost, nil
}

// last is the newest entry of the log. backend.ErrNotExist.
func (r *Refs) last(ctx context.Context, branch string) (*Ref, error) {
	keys, err := r.entries(ctx, branch)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, backend.Fail("list", LogDir+branch+"/", backend.ErrNotExist, nil)
	}
	return r.read(ctx, keys[len(keys)-1], branch)
}

// entries are the keys of the log, from the oldest.
func (r *Refs) entries(ctx context.Context, branch string) (keys []string, err error) {
	for info, err := range backend.ListRecursive(ctx, r.b, LogDir+branch+"/") {
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(info.Key, kind) {
			keys = append(keys, info.Key)
		}
	}
	return keys, nil
}
