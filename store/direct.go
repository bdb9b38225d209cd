package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// DirectOptions of NewDirect. The zero value is usable.
type DirectOptions struct {
	// MaxFile is how many bytes a file that is being written can have, since
	// all of it is in memory; default 1 GiB. ErrTooBig above.
	MaxFile int64
}

// NewDirect returns the volume without a cache: every question goes to the
// bucket, and a file that is being written is in memory as a whole. It is slow
// and plain, and so the reference for every other Volume. It does not close s.
//
// What it knows beyond the bucket is its open files: handles of one path share
// a directFile, which holds the unpublished content. Operations on one path,
// or on a directory and what is below it, follow one another (pathLocks).
func NewDirect(s *Store, opts DirectOptions) Volume {
	if opts.MaxFile <= 0 {
		opts.MaxFile = 1 << 30
	}
	return &direct{
		store:   s.RootView(),
		maxFile: opts.MaxFile,
		names:   map[string]*directFile{},
		files:   map[*directFile]struct{}{},
	}
}

type direct struct {
	store   *Store // the view above the branches
	maxFile int64
	locks   pathLocks

	// mu guards what follows and all fields of the files. It is held for
	// memory only, never across a request.
	mu     sync.Mutex
	closed bool
	names  map[string]*directFile   // by full path: what that name is in this volume
	files  map[*directFile]struct{} // all that are open or not published, those without a name too
}

// Root implements Volume.
func (v *direct) Root() Tree { return &directTree{v: v, store: v.store} }

// Branch implements Volume.
func (v *direct) Branch(ctx context.Context, name string) (Tree, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	s, err := v.store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &directTree{v: v, store: s}, nil
}

// Pending implements Volume.
func (v *direct) Pending() []Pending {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []Pending
	for f := range v.files {
		if !f.dirty() {
			continue
		}
		p := Pending{
			Branch: f.store.CurrentBranch(), Path: f.path.String(), State: "dirty",
			Bytes: int64(len(f.content)), Since: f.since,
		}
		if f.err != nil {
			p.State, p.Err = "failed", f.err.Error()
		}
		if f.uploading {
			p.State = "uploading"
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pending) int {
		return cmp.Or(strings.Compare(a.Branch, b.Branch), strings.Compare(a.Path, b.Path))
	})
	return list
}

// Sync implements Volume. It tries every file, and returns all errors.
func (v *direct) Sync(ctx context.Context) error {
	if err := v.check(); err != nil {
		return err
	}
	return v.publishAll(ctx, func(*directFile) bool { return true })
}

// Close implements Volume. There is no disk to keep anything on: content that
// could not be published is lost, and the error names the files.
func (v *direct) Close(ctx context.Context) error {
	v.mu.Lock()
	closed := v.closed
	v.closed = true // from here on nothing new becomes dirty
	v.mu.Unlock()
	if closed {
		return nil
	}
	err := v.publishAll(ctx, func(*directFile) bool { return true })
	if lost := v.Pending(); len(lost) > 0 {
		var names []string
		for _, p := range lost {
			names = append(names, p.Branch+"/"+p.Path)
		}
		err = fmt.Errorf("changes are lost of %s: %w", strings.Join(names, ", "), err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.names)
	clear(v.files)
	return err
}

func (v *direct) publishAll(ctx context.Context, which func(*directFile) bool) error {
	v.mu.Lock()
	var dirty []*directFile
	for f := range v.files {
		if f.dirty() && which(f) {
			dirty = append(dirty, f)
		}
	}
	slices.SortFunc(dirty, func(a, b *directFile) int { return strings.Compare(a.fullLocked(), b.fullLocked()) })
	v.mu.Unlock()

	var errs []error
	for _, f := range dirty {
		if err := f.publish(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (v *direct) check() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.checkLocked()
}

func (v *direct) checkLocked() error {
	if v.closed {
		return fmt.Errorf("volume: %w", ErrClosed)
	}
	return nil
}

// unpublishedLocked returns the file of that full path if the volume knows
// better than the bucket what it is.
func (v *direct) unpublishedLocked(full string) *directFile {
	if f := v.names[full]; f != nil && f.dirty() {
		return f
	}
	return nil
}

// below returns the named files at full and below it.
func (v *direct) below(full string) []*directFile {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []*directFile
	for name, f := range v.names {
		if within(full, name) {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b *directFile) int { return strings.Compare(a.fullLocked(), b.fullLocked()) })
	return list
}

// fullPath names p of a branch among all branches; the root's own branch is "".
func fullPath(branch string, p Path) string {
	switch {
	case branch == "":
		return p.String()
	case p.IsRoot():
		return branch
	}
	return branch + "/" + p.String()
}
