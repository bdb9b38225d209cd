package overlay

import (
	"context"
	"strings"

	"github.com/keifs/keifs/backend"
)

// What it takes to give a branch objects of its own for those of its base, see
// history.Repo.Materialize, and to make lost whiteouts anew.

// Hidden asks what of its base a branch does not show now: the result answers
// for keys below the branch.
func (b *Bucket) Hidden(ctx context.Context, branch string) (hides func(rel string) bool, err error) {
	w, dir := whiteouts{}, whiteoutDir+branch+"/"
	for info, err := range backend.ListRecursive(ctx, b.raw, dir) {
		if err != nil {
			return nil, err
		}
		w[strings.TrimPrefix(info.Key, dir)] = struct{}{}
	}
	return w.hides, nil
}

// Hide makes the whiteout of an object of the branch's base.
func (b *Bucket) Hide(ctx context.Context, branch, rel string) error {
	l, _ := b.at(branch + "/")
	if l == nil {
		return backend.Fail("hide", branch, backend.ErrInvalid, nil)
	}
	return l.cover(ctx, rel)
}

// DropWhiteouts deletes the whiteouts of a branch that has had no base for
// longer than Belief.
func (b *Bucket) DropWhiteouts(ctx context.Context, branch string) error {
	return b.drop(ctx, nil, nil, nil, whiteoutDir+branch+"/")
}

// AnyWhiteout says whether the branch has one.
func (b *Bucket) AnyWhiteout(ctx context.Context, branch string) (bool, error) {
	page, err := b.raw.ListPage(ctx, backend.ListOptions{Prefix: whiteoutDir + branch + "/", Limit: 1})
	return err == nil && len(page.Objects) > 0, err
}
