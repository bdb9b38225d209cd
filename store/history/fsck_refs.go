package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// behind looks again at refs that were not what their logs say: whoever
// advances one writes the log first, and then the ref.
func (f *fsck) behind(ctx context.Context) error {
	repair := func(branch string) (repaired bool, err error) {
		if f.opts.Repair {
			repaired, err = f.r.refs.Repair(ctx, branch)
		}
		return repaired, err
	}
	for _, branch := range f.lossy {
		lost, err := f.r.refs.Lost(ctx, branch)
		if err != nil {
			return err
		}
		if len(lost) == 0 {
			continue
		}
		repaired, err := repair(branch)
		if err != nil {
			return err
		}
		for _, entry := range lost {
			f.problem("ref", branch, repaired, "the log has lost its entry %d", entry.Generation)
		}
	}
	for _, last := range f.late {
		ref, err := f.r.refs.Load(ctx, last.Branch)
		if err == nil && ref.Generation >= last.Generation {
			continue
		}
		if err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrCorrupt) {
			return err
		}
		repaired, err := repair(last.Branch)
		if err != nil {
			return err
		}
		f.problem("ref", last.Branch, repaired, "is not what its log says (generation %d)", last.Generation)
	}
	return nil
}

// marks looks for those of commits that died: each of them keeps what is
// overwritten, and makes collections wait.
func (f *fsck) marks(ctx context.Context) error {
	if len(f.marked) == 0 {
		return nil
	}
	rr := &rootReader{r: f.r, known: map[string]record{}}
	now, logs, err := rr.logs(ctx)
	if err != nil {
		return err
	}
	for _, ref := range f.marked {
		log := logs[ref.Branch]
		infos := make([]backend.Info, len(log))
		for i, e := range log {
			infos[i] = e.Info
		}
		records, err := rr.records(ctx, infos)
		if err != nil {
			return err
		}
		for i := range log {
			log[i].record = records[i]
		}
		var dead []string
		for token := range strings.FieldsSeq(ref.Committing) {
			if began := since(log, token); !began.IsZero() && began.Before(now.Add(-f.opts.DeadAfter)) {
				dead = append(dead, token)
			}
		}
		if len(dead) == 0 {
			continue
		}
		repaired := false
		if f.opts.Repair {
			if repaired, err = f.r.unmark(ctx, ref.Branch, dead); err != nil {
				return err
			}
		}
		f.problem("mark", ref.Branch, repaired, "a commit by %s began more than %v ago and has not ended", strings.Join(dead, ", "), f.opts.DeadAfter)
	}
	return nil
}

// unmark takes marks away, and says whether any was there. Who still lives does
// not finish then: ErrUnmarked.
func (r *Repo) unmark(ctx context.Context, branch string, tokens []string) (bool, error) {
	for range attempts {
		ref, err := r.refs.Load(ctx, branch)
		if err != nil {
			return false, err
		}
		next := *ref
		for _, token := range tokens {
			next.Committing = without(next.Committing, token)
		}
		if next.Committing == ref.Committing {
			return false, nil
		}
		next.Why = ended
		if _, err = r.refs.Advance(ctx, ref, next); !errors.Is(err, refs.ErrLost) {
			return err == nil, err
		}
	}
	return false, fmt.Errorf("branch %q: %w", branch, refs.ErrLost)
}

// whiteouts looks for those that are missing: what the base of a branch has and
// its last commit does not was deleted in between, and its whiteout stays as
// long as the base. Without it the base shows again.
func (f *fsck) whiteouts(ctx context.Context) error {
	for _, ref := range f.based {
		base, baseErr := f.r.commits.Manifest(ctx, ref.Base)
		head, headErr := f.r.commits.Manifest(ctx, ref.Head)
		if baseErr != nil || headErr != nil {
			continue // which was told
		}
		var deleted []string
		for c, err := range commit.Diff(ctx, f.r.commits.Tree(base), f.r.commits.Tree(head)) {
			if err != nil {
				return err
			}
			if _, there := f.objects[ref.Branch+"/"+c.Path]; c.New == nil && !there {
				deleted = append(deleted, c.Path)
			}
		}
		if len(deleted) == 0 {
			continue
		}
		hides, err := f.r.st.Bucket().Hidden(ctx, ref.Branch)
		if err != nil {
			return err
		}
		deleted = slices.DeleteFunc(deleted, hides)
		for _, path := range deleted {
			now, err := f.r.refs.Load(ctx, ref.Branch)
			if err != nil && !errors.Is(err, backend.ErrNotExist) {
				return err
			}
			// What was read of it was long ago. It needs none any more, or is
			// another branch of that name, or has another commit: for the next
			// fsck.
			if err != nil || now.Base != ref.Base || now.Head != ref.Head {
				break
			}
			there, err := backend.Exists(ctx, f.r.raw, ref.Branch+"/"+path)
			if err != nil {
				return err
			}
			if there { // by now
				continue
			}
			if f.opts.Repair {
				if err := f.r.st.Bucket().Hide(ctx, ref.Branch, path); err != nil {
					return err
				}
			}
			f.problem("whiteout", ref.Branch+"/"+path, f.opts.Repair, "its whiteout is gone, so that the base shows again what commit %.12s does not have", ref.Head)
		}
	}
	return nil
}
