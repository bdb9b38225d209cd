package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
)

// SetAttr implements Tree; Size is ErrUnsupported. Somebody else's new content
// is never replaced by the old one: the object is written again only as the
// version that was read, and where it is another by then, the change is made
// to that (or, with a Base, is ErrStale).
func (s *Store) SetAttr(ctx context.Context, p Path, change AttrChange) (Entry, error) {
	if change.Size != nil {
		return Entry{}, fmt.Errorf("size of %q: %w", p, ErrUnsupported)
	}
	caps, err := s.change(ctx)
	if err != nil {
		return Entry{}, err
	}
	pl, err := s.place(p)
	if err != nil {
		return Entry{}, err
	}
	var tried map[string]string // by an attempt whose answer may have been lost
	for range attempts {
		f, err := s.lookBase(ctx, pl, change)
		if err != nil {
			return Entry{}, err
		}
		if tried != nil && maps.Equal(f.info.Metadata, tried) {
			return f.Entry, nil
		}
		if change.Base != "" && f.Version != change.Base {
			return Entry{}, fmt.Errorf("attributes of %q: %w", p, ErrStale)
		}
		if f.IsDir() && !f.Marker {
			f.Mtime = time.Now() // it has none so far
		}
		attr, err := change.Apply(f.Attr)
		if err != nil {
			return Entry{}, err
		}
		metadata := s.opts.encode(attr, false)
		switch {
		case f.info.ETag != "" && sameAttributes(s.opts.encode(f.Attr, false), metadata):
			return f.Entry, nil
		case !caps.Metadata:
			return Entry{}, fmt.Errorf("attributes of %q: %w: this store keeps no metadata", p, ErrUnsupported)
		}
		opts := backend.PutOptions{Metadata: metadata, ContentType: f.ContentType}
		if f.info.ETag != "" {
			opts.Cond.IfMatch = f.info.ETag
		} else {
			opts.Cond.IfAbsent = true
		}
		var info backend.Info
		if f.IsDir() {
			info, err = s.put(ctx, caps, pl.dir, backend.Bytes(nil), opts)
		} else {
			info, err = s.transfer(ctx, caps, f.info, pl.key, opts, false)
		}
		switch {
		case err == nil && f.IsDir():
			s.noteMarker(pl.dir)
			info.Metadata, info.ContentType, info.Date = metadata, f.ContentType, time.Time{}
			if info.ModTime.IsZero() {
				info.ModTime = time.Now()
			}
			return s.dirFound(p, &info).Entry, nil
		case err == nil:
			return s.stored(p, caps, info, f.info.Size, metadata, f.ContentType), nil
		case errors.Is(err, backend.ErrAmbiguous):
			tried = metadata
		case errors.Is(err, errSource), errors.Is(err, backend.ErrPrecondition):
			tried = nil
		default:
			return Entry{}, fail("attributes of", p, err)
		}
	}
	return Entry{}, fmt.Errorf("attributes of %q: it changes all the time: %w", p, ErrStale)
}

// lookBase is look, cheaper where the caller knows what kind it is.
func (s *Store) lookBase(ctx context.Context, pl place, change AttrChange) (found, error) {
	switch {
	case change.Dir && !pl.shadow && !pl.path.IsRoot():
		if f, err := s.lookDir(ctx, pl); err != nil || f.Marker {
			return f, err
		}
	case change.Base != "" && !pl.path.IsRoot():
		info, err := s.stat(ctx, pl)
		if err != nil {
			return found{}, fail("attributes of", pl.path, err)
		}
		return s.fileFound(pl.path, info), nil
	}
	return s.look(ctx, pl.path)
}

// Mkdir implements Tree. At the root it makes a branch.
func (s *Store) Mkdir(ctx context.Context, p Path, attr Attr) (Entry, error) {
	caps, pl, err := s.making(ctx, p)
	if err != nil {
		return Entry{}, err
	}
	err = together(
		func() error { return s.vacant(ctx, pl) },
		func() error { return s.parentThere(ctx, p) },
	)
	if err != nil {
		return Entry{}, err
	}
	metadata := s.opts.encode(attr.normal(ModeDir), true)
	metadata[metaNonce] = nonce()
	opts := backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: metadata}
	info, err := s.put(ctx, caps, pl.dir, backend.Bytes(nil), opts)
	switch {
	case errors.Is(err, backend.ErrAmbiguous):
		if info, err = s.b.Stat(ctx, pl.dir); err != nil {
			return Entry{}, fail("mkdir", p, err)
		}
		if info.Metadata[metaNonce] != metadata[metaNonce] {
			return Entry{}, fmt.Errorf("%q: %w", p, ErrExist)
		}
	case errors.Is(err, backend.ErrPrecondition):
		return Entry{}, fmt.Errorf("%q: %w", p, ErrExist)
	case errors.Is(err, backend.ErrBadKey):
		return Entry{}, s.badKey(ctx, pl, true)
	case err != nil:
		return Entry{}, fail("mkdir", p, err)
	}
	s.noteMarker(pl.dir)
	if info.Metadata, info.Date = metadata, (time.Time{}); !caps.Metadata {
		info.Metadata = nil
	}
	if info.ModTime.IsZero() {
		info.ModTime = time.Now()
	}
	return s.dirFound(p, &info).Entry, nil
}

// making is what Mkdir begins with.
func (s *Store) making(ctx context.Context, p Path) (backend.Caps, place, error) {
	if s.ReadOnly() {
		_, err := s.change(ctx)
		return backend.Caps{}, place{}, err
	}
	if p.IsRoot() {
		return backend.Caps{}, place{}, fmt.Errorf("the root: %w", ErrExist)
	}
	if s.isRoot() {
		if !p.Dir().IsRoot() {
			return backend.Caps{}, place{}, ErrOutsideBranch
		}
		if err := ValidateBranch(p.s); err != nil {
			return backend.Caps{}, place{}, err
		}
	}
	pl, err := s.place(p)
	if err == nil {
		err = pl.creatable()
	}
	if limit := s.b.Caps().MaxKey; err == nil && limit > 0 && len(pl.dir) > limit {
		err = fmt.Errorf("marker of %d bytes, the store takes %d: %w", len(pl.dir), limit, ErrNameTooLong)
	}
	if err != nil {
		return backend.Caps{}, place{}, err
	}
	caps, err := s.caps(ctx)
	return caps, pl, err
}

// vacant returns ErrExist where a place is taken.
func (s *Store) vacant(ctx context.Context, pl place) error {
	switch _, err := s.look(ctx, pl.path); {
	case err == nil:
		return fmt.Errorf("%q: %w", pl.path, ErrExist)
	case !errors.Is(err, ErrNotExist):
		return err
	}
	return nil
}

// parentThere returns ErrNotExist or ErrNotDir where p could not be made.
func (s *Store) parentThere(ctx context.Context, p Path) error {
	if s.isRoot() && p.Dir().IsRoot() {
		return nil
	}
	pl, err := s.place(p.Dir())
	if err != nil {
		return err
	}
	if pl.shadow {
		return fmt.Errorf("%q: %w", pl.path, ErrNotDir)
	}
	first, err := s.peek(ctx, pl.dir, 1)
	if err != nil || len(first) > 0 {
		return err
	}
	return s.existsEmpty(ctx, pl)
}

// Mknod implements Tree.
func (s *Store) Mknod(ctx context.Context, p Path, attr Attr, target string) (Entry, error) {
	kind := attr.Mode & ModeType
	switch {
	case kind == 0:
		kind = ModeRegular
	case kind == ModeSymlink && (target == "" || strings.Contains(target, "\x00")):
		return Entry{}, fmt.Errorf("target %q: %w", target, ErrInvalid)
	case kind == ModeSymlink && len(target) > maxTarget:
		return Entry{}, fmt.Errorf("target of %d bytes: %w", len(target), ErrNameTooLong)
	}
	switch kind {
	case ModeRegular, ModeFIFO, ModeSocket:
		target = ""
	case ModeSymlink:
	default:
		return Entry{}, fmt.Errorf("%q: type %o: %w", p, kind, ErrUnsupported)
	}
	if _, err := s.change(ctx); err != nil {
		return Entry{}, err
	}
	if p.IsRoot() {
		return Entry{}, fmt.Errorf("the root: %w", ErrExist)
	}
	pl, err := s.place(p)
	if err != nil {
		return Entry{}, err
	}
	err = together(
		func() error { return s.vacant(ctx, pl) },
		func() error { return s.parentThere(ctx, p) },
	)
	if err != nil {
		return Entry{}, err
	}
	return s.publishAs(ctx, p, kind, backend.Bytes([]byte(target)), PublishOptions{Attr: attr, Exclusive: true})
}

// Remove implements Tree, without regard to open handles.
func (s *Store) Remove(ctx context.Context, p Path) error {
	caps, err := s.change(ctx)
	if err != nil {
		return err
	}
	if p.IsRoot() {
		return fmt.Errorf("the root: %w", ErrIsDir)
	}
	pl, err := s.place(p)
	if err != nil {
		return err
	}
	var last bool
	err = together(
		func() error {
			f, err := s.look(ctx, p)
			if err == nil && f.IsDir() {
				err = fmt.Errorf("%q: %w", p, ErrIsDir)
			}
			return err
		},
		func() (err error) { last, err = s.lastIn(ctx, pl); return err },
	)
	if err != nil {
		return err
	}
	if last {
		if err := s.keepDir(ctx, caps, p.Dir()); err != nil {
			return err
		}
	}
	return fail("remove", p, s.eraseOne(ctx, caps, backend.Deletion{Key: pl.key}))
}

// lastIn says whether the parent of a place has no marker and nothing else in
// it, and so would vanish with it.
func (s *Store) lastIn(ctx context.Context, child place) (bool, error) {
	pl, err := s.place(child.path.Dir())
	if err != nil || pl.dir == "" || child.shadow || s.spend(pl.dir, 1) {
		return false, err
	}
	return s.losesAll(ctx, pl, func(key string) bool { return key == child.key || key == child.dir })
}

// keepDir gives a directory that is about to lose its last entry a marker.
func (s *Store) keepDir(ctx context.Context, caps backend.Caps, dir Path) error {
	pl, err := s.place(dir)
	if err != nil {
		return err
	}
	metadata := s.opts.encode(Attr{Mode: ModeDir | s.opts.DirMode, UID: s.opts.UID, GID: s.opts.GID, Mtime: time.Now()}, false)
	opts := backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: metadata}
	_, err = s.put(ctx, caps, pl.dir, backend.Bytes(nil), opts)
	if err != nil && !errors.Is(err, backend.ErrPrecondition) {
		return fail("keep", dir, err)
	}
	s.noteMarker(pl.dir)
	return nil
}

// Rmdir implements Tree. At the root it removes a branch without history.
func (s *Store) Rmdir(ctx context.Context, p Path) error {
	if p.IsRoot() {
		return fmt.Errorf("the root: %w", ErrInvalid)
	}
	if !s.opts.ReadOnly && s.isRoot() && !p.Dir().IsRoot() {
		return ErrOutsideBranch
	}
	var caps backend.Caps
	var err error
	if s.isRoot() && !s.opts.ReadOnly {
		caps, err = s.caps(ctx)
	} else {
		caps, err = s.change(ctx)
	}
	if err != nil {
		return err
	}
	pl, err := s.place(p)
	if err != nil {
		return err
	}
	if pl.shadow {
		return fmt.Errorf("%q: %w", p, ErrNotDir)
	}
	if err := s.emptyDir(ctx, pl); err != nil {
		return err
	}
	if s.isRoot() {
		ref, err := s.hasRef(ctx, p.s)
		if err != nil {
			return err
		}
		if ref {
			return fmt.Errorf("branch %q has history: %w", p, ErrNotEmpty)
		}
	}
	last, err := s.lastIn(ctx, pl)
	if err != nil {
		return err
	}
	if last {
		if err := s.keepDir(ctx, caps, p.Dir()); err != nil {
			return err
		}
	}
	s.forget(pl.dir)
	return fail("rmdir", p, s.eraseOne(ctx, caps, backend.Deletion{Key: pl.dir}))
}

// emptyDir returns nil for a directory with nothing in it but its marker;
// ErrNotEmpty, ErrNotDir, ErrNotExist.
func (s *Store) emptyDir(ctx context.Context, pl place) error {
	first, err := s.peek(ctx, pl.dir, 2)
	switch {
	case err != nil:
		return err
	case len(first) == 0:
		return s.existsEmpty(ctx, pl)
	case len(first) > 1, first[0].Key != pl.dir, first[0].Size > 0:
		return fmt.Errorf("%q: %w", pl.path, ErrNotEmpty)
	}
	return nil
}
