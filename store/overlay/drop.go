package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keifs/keifs/backend"
)

// ErrUncommitted says that a branch has what the commit does not have that it
// was to be deleted at.
var ErrUncommitted = errors.New("it has what no commit has")

// Drop deletes what a branch has of its own, its plain objects and then its
// whiteouts, and keeps what commits name. It makes no whiteouts: until its ref
// is gone, the branch shows its base. Who was interrupted runs it again.
//
// Where committed names a commit and the branch has an object that this does
// not have, nothing is deleted: ErrUncommitted.
func (b *Bucket) Drop(ctx context.Context, branch, committed string) error {
	l, _ := b.at(branch + "/")
	if l == nil || l.revision != "" {
		return backend.Fail("drop", branch, backend.ErrInvalid, nil)
	}
	v, err := l.view(ctx, fresh)
	if err != nil {
		return err
	}
	var only Snapshot
	if committed != "" {
		if only, err = b.snapshot(ctx, committed); err != nil {
			return err
		}
	}
	if err := b.drop(ctx, l, v, only, l.prefix); err != nil {
		return err
	}
	return b.drop(ctx, nil, nil, nil, whiteoutDir+branch+"/")
}

// dropAtOnce is how many objects are deleted by one request.
const dropAtOnce = 1000

// drop deletes what is below a prefix, or nothing if only is set and does not
// have all of it; of a layer, what has to be kept is.
func (b *Bucket) drop(ctx context.Context, l *layer, v *view, only Snapshot, prefix string) error {
	var objects []backend.Deletion
	for info, err := range backend.ListRecursive(ctx, b.raw, prefix) {
		if err != nil {
			return err
		}
		o := backend.Deletion{Key: info.Key}
		if rel := info.Key[len(prefix):]; only != nil && rel != "" { // the marker of a branch is in no commit
			have, ok, err := only.Lookup(ctx, rel)
			if err != nil {
				return err
			}
			if !ok || have.ETag != info.ETag || !have.ModTime.Equal(info.ModTime) {
				return fmt.Errorf("%w: %s", ErrUncommitted, info.Key) // before anything is deleted
			}
			if b.Caps().CondBatch {
				o.IfMatch = info.ETag
			}
		}
		objects = append(objects, o)
	}
	for batch := range slices.Chunk(objects, dropAtOnce) {
		var changes []*change
		if l != nil {
			for _, o := range batch {
				changes = append(changes, &change{layer: l, v: v, key: o.Key, rel: o.Key[len(prefix):]})
			}
		}
		err := guardAll(ctx, changes, func(ctx context.Context) error { return b.deleteAll(ctx, batch) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) deleteAll(ctx context.Context, batch []backend.Deletion) error {
	deleter, ok := backend.As[backend.BatchDeleter](b.raw)
	if !ok {
		return backend.Parallel(ctx, atOnce, batch, func(ctx context.Context, o backend.Deletion) error { return b.raw.Delete(ctx, o.Key, backend.Cond{}) })
	}
	errs, err := deleter.DeleteBatch(ctx, batch)
	for _, e := range errs {
		if err == nil && e != nil && !gone(e) {
			err = e
		}
	}
	return err
}
