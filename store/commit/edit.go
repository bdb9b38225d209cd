package commit

import (
	"context"
	"fmt"
	"iter"

	"github.com/keifs/keifs/backend"
)

// Edit is one change to make to a tree.
type Edit struct {
	Path  string
	Entry *Entry // nil removes; else with the same path
}

// Edit writes the tree of parent (nil: empty) with edits made to it, which
// must be sorted by path, each path once. Ranges without edits are neither
// read nor written, except where a removed cut makes their neighbour longer.
func (r *Repo) Edit(ctx context.Context, parent *Manifest, edits iter.Seq2[Edit, error]) (_ []Range, err error) {
	w := r.Writer(ctx, parent)
	defer w.Abort()
	next, stop := iter.Pull2(edits)
	defer stop()
	var edit Edit
	var more bool
	pull := func() error {
		var err error
		last := edit.Path
		edit, err, more = next()
		switch {
		case !more || err != nil:
			return err
		case edit.Path <= last, edit.Entry != nil && edit.Entry.Path != edit.Path:
			return fmt.Errorf("%w: edit of %q after %q", backend.ErrInvalid, edit.Path, last)
		}
		return nil
	}
	apply := func() error { // the edit at hand
		if edit.Entry != nil {
			if err := w.Add(*edit.Entry); err != nil {
				return err
			}
		}
		return pull()
	}
	if err := pull(); err != nil {
		return nil, err
	}
	var ranges []Range
	if parent != nil {
		ranges = parent.Ranges
	}
	for i, desc := range ranges {
		edited := more && (edit.Path <= desc.Last || i == len(ranges)-1)
		if w.AtCut() && !edited {
			if err := w.Keep(desc); err != nil {
				return nil, err
			}
			continue
		}
		d, err := r.load(ctx, desc)
		if err != nil {
			return nil, err
		}
		for at := range d.len() {
			e := d.entry(at)
			for more && edit.Path < e.Path {
				if err := apply(); err != nil {
					return nil, err
				}
			}
			if more && edit.Path == e.Path {
				err = apply()
			} else {
				err = w.Add(e)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for more {
		if err := apply(); err != nil {
			return nil, err
		}
	}
	return w.Close()
}
