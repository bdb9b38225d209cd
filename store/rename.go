package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/keifs/keifs/backend"
)

// Rename implements Tree, without regard to open handles. A file is copied by
// the store and then removed under its old name, so that after a crash it has
// both names rather than none; a version that somebody writes meanwhile is
// copied, too. Two hosts that rename one file to different names at the same
// moment may both succeed.
func (s *Store) Rename(ctx context.Context, from, to Path, mode RenameMode) error {
	_, err := s.RenameSeen(ctx, from, to, mode, Seen{})
	return err
}

// Seen is what a caller knows of the names of a rename, from a moment ago, so
// that it is not asked again. Conditions keep it safe: a source that has
// changed since is moved as it is now.
type Seen struct {
	From   *Entry // complete
	To     *Entry
	Absent bool // there is nothing at the target
	Parent bool // of the target, and it is a directory

	// Progress, if set, is told how many objects of a directory are copied.
	Progress func(done, of int)
	// Copied, if set, is called when a directory is under its new name as a
	// whole, and before anything goes under the old one. Its error takes the
	// rename back.
	Copied func() error
}

// RenameSeen is Rename with what the caller has seen. Of a file it returns the
// entry under the new name, if its version is known.
func (s *Store) RenameSeen(ctx context.Context, from, to Path, mode RenameMode, seen Seen) (Entry, error) {
	caps, err := s.change(ctx)
	if err != nil {
		return Entry{}, err
	}
	if from.IsRoot() || to.IsRoot() {
		return Entry{}, fmt.Errorf("rename the root: %w", ErrInvalid)
	}
	src, err := s.place(from)
	if err != nil {
		return Entry{}, err
	}
	dst, err := s.place(to)
	if err != nil {
		return Entry{}, err
	}
	var old, target found
	var taken, last bool
	err = together(
		func() (err error) { old, err = s.source(ctx, src, mode, seen); return err },
		func() (err error) {
			target, err = s.target(ctx, dst, mode, seen, caps)
			taken = err == nil
			if errors.Is(err, ErrNotExist) {
				err = nil
			}
			return err
		},
		func() (err error) {
			if from.Dir() != to.Dir() && !seen.Parent {
				err = s.parentThere(ctx, to)
			}
			return err
		},
		func() (err error) {
			if from.Dir() != to.Dir() {
				last, err = s.lastIn(ctx, src)
			}
			return err
		},
	)
	switch {
	case err != nil:
		return Entry{}, err
	case taken && mode == NoReplace:
		return Entry{}, fmt.Errorf("%q: %w", to, ErrExist)
	case from == to:
		return Entry{}, nil
	case old.IsDir() && from.Contains(to):
		return Entry{}, fmt.Errorf("%q into itself: %w", from, ErrInvalid)
	case mode == Exchange && !taken:
		return Entry{}, fmt.Errorf("%q: %w", to, ErrNotExist)
	case mode == Exchange && (old.IsDir() || target.IsDir()):
		return Entry{}, fmt.Errorf("exchange of a directory: %w", ErrUnsupported)
	case mode == Exchange:
		return Entry{}, s.exchange(ctx, caps, src, dst, old, target)
	case taken && target.IsDir() && !old.IsDir():
		return Entry{}, fmt.Errorf("%q: %w", to, ErrIsDir)
	case taken && !target.IsDir() && old.IsDir():
		return Entry{}, fmt.Errorf("%q: %w", to, ErrNotDir)
	}
	if !taken {
		if err := dst.creatable(); err != nil {
			return Entry{}, err
		}
	} else if old.IsDir() {
		if err := s.emptyDir(ctx, dst); err != nil {
			return Entry{}, err
		}
	}
	if last {
		if err := s.keepDir(ctx, caps, from.Dir()); err != nil {
			return Entry{}, err
		}
	}
	if taken {
		if parent, err := s.place(to.Dir()); err == nil {
			s.spend(parent.dir, 1) // which has one entry less
		}
	}
	if old.IsDir() {
		return Entry{}, s.renameDir(ctx, caps, src, dst, target.Marker, seen)
	}
	return s.renameFile(ctx, caps, src, dst, old, mode)
}

// source is what is at the old name.
func (s *Store) source(ctx context.Context, src place, mode RenameMode, seen Seen) (found, error) {
	if e := seen.From; e != nil && !e.Listed && mode != Exchange {
		if e.IsDir() { // if it is not there any more, its listing says so
			return found{Entry: *e}, nil
		}
		if e.stamped && e.Version != "" {
			return found{*e, backend.Info{Key: src.key, Size: e.Size, ETag: e.Version}}, nil
		}
	}
	return s.look(ctx, src.path)
}

// target is what is at the new name. That nothing is there is believed where
// it costs at most a version that a rename would have replaced anyway.
func (s *Store) target(ctx context.Context, dst place, mode RenameMode, seen Seen, caps backend.Caps) (found, error) {
	dir := seen.From == nil || seen.From.IsDir()
	switch {
	case mode == Exchange:
	case seen.Absent && (!dir || caps.CondCopy):
		return found{}, fmt.Errorf("%q: %w", dst.path, ErrNotExist)
	case seen.Absent: // copies would replace what has come into the directory since, but not a file of its name
		if first, err := s.peek(ctx, dst.dir, 1); err != nil || len(first) == 0 {
			return found{}, cmp.Or(err, fmt.Errorf("%q: %w", dst.path, ErrNotExist))
		}
	case seen.To != nil && !dir:
		return found{Entry: *seen.To}, nil
	}
	return s.look(ctx, dst.path)
}

func (s *Store) renameFile(ctx context.Context, caps backend.Caps, src, dst place, old found, mode RenameMode) (Entry, error) {
	var cond backend.Cond
	if mode == NoReplace {
		cond.IfAbsent = true
	}
	for range attempts {
		copied, gone, err := s.moveOnce(ctx, caps, src, dst, old.info, cond)
		switch {
		case err == nil:
			e := old.Entry
			e.Name, e.Version, e.Changed, e.Holds = dst.path.Name(), copied.ETag, copied.ModTime, Times{}
			return e, nil
		case gone:
			return Entry{}, err
		case copied.ETag != "" || errors.Is(err, errSource):
			// Somebody wrote to the source: that version is the one to move.
			if cond != (backend.Cond{}) && copied.ETag != "" {
				cond = backend.Cond{IfMatch: copied.ETag}
			}
			info, statErr := s.stat(ctx, src)
			if errors.Is(statErr, backend.ErrNotExist) && copied.ETag != "" {
				return Entry{}, nil // moved or removed by somebody else, after we had it
			}
			if statErr != nil {
				return Entry{}, fail("rename", src.path, statErr)
			}
			old = s.fileFound(src.path, info)
		case errors.Is(err, backend.ErrPrecondition):
			return Entry{}, fmt.Errorf("%q: %w", dst.path, ErrExist)
		case errors.Is(err, backend.ErrBadKey):
			return Entry{}, s.badKey(ctx, dst, mode == NoReplace)
		default:
			return Entry{}, fail("rename", src.path, err)
		}
	}
	return Entry{}, fmt.Errorf("rename %q: it changes all the time: %w", src.path, ErrStale)
}

// moveOnce moves one version of a file. copied is set once the new name has
// it; done says that the error is final.
func (s *Store) moveOnce(ctx context.Context, caps backend.Caps, src, dst place, old backend.Info, cond backend.Cond) (copied backend.Info, done bool, err error) {
	var metadata map[string]string // nil: all that the source has
	if old.Metadata != nil {
		metadata = s.withTimes(old)
	}
	if renamer, ok := backend.As[backend.Renamer](s.b); ok && maps.Equal(metadata, old.Metadata) {
		info, err := renamer.Rename(ctx, src.key, dst.key, cond)
		if errors.Is(err, backend.ErrAmbiguous) {
			if now, ok := s.movedTo(ctx, src, dst, old); ok {
				info, err = now, nil
			}
		}
		if !errors.Is(err, backend.ErrUnsupported) {
			return info, err == nil, err
		}
	}
	opts := backend.PutOptions{Cond: cond, Metadata: metadata, ContentType: old.ContentType}
	copied, err = s.transfer(ctx, caps, old, dst.key, opts, false)
	if errors.Is(err, backend.ErrAmbiguous) {
		now, statErr := s.b.Stat(ctx, dst.key)
		if statErr == nil && (!caps.Metadata || metadata == nil || maps.Equal(now.Metadata, metadata)) {
			same, sameErr := s.sameObjects(ctx, now, old)
			if sameErr != nil {
				return backend.Info{}, true, sameErr
			}
			if same {
				copied, err = now, nil
			}
		}
	}
	if err != nil {
		return backend.Info{}, false, err
	}
	err = s.eraseOne(ctx, caps, backend.Deletion{Key: src.key, IfMatch: old.ETag})
	switch {
	case err == nil, errors.Is(err, backend.ErrNotExist):
		return copied, true, nil
	case errors.Is(err, backend.ErrAmbiguous):
		return copied, true, nil // deleted, it seems, and the name is somebody else's by now
	case errors.Is(err, backend.ErrPrecondition):
		return copied, false, err
	}
	return copied, true, fail("rename", src.path, err)
}

// movedTo says whether a rename whose answer got lost has happened: the old
// name is gone, and the new one has what was there, with a version of its own
// where the store gives one.
func (s *Store) movedTo(ctx context.Context, src, dst place, old backend.Info) (backend.Info, bool) {
	now, err := s.b.Stat(ctx, dst.key)
	if err != nil || now.Size != old.Size || old.Metadata != nil && !maps.Equal(now.Metadata, old.Metadata) {
		return backend.Info{}, false
	}
	if now.ETag == old.ETag {
		return now, true
	}
	_, err = s.b.Stat(ctx, src.key)
	return now, old.Metadata != nil && errors.Is(err, backend.ErrNotExist)
}

// withTimes is the metadata of an object with its times in it, which those of
// a copy would replace.
func (s *Store) withTimes(info backend.Info) map[string]string {
	a := s.opts.decode(info, false)
	metadata := maps.Clone(info.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	for name, t := range map[string]time.Time{metaMtime: a.Mtime, metaCtime: a.Ctime} {
		if _, ok := parseTime(metadata[name]); !ok {
			metadata[name] = formatTime(t)
		}
	}
	return metadata
}

// exchange swaps two files by way of a third name, which everybody can see:
// after a crash at any point, both are there under some name.
func (s *Store) exchange(ctx context.Context, caps backend.Caps, a, b place, inA, inB found) error {
	third, err := s.beside(a, ".exchange-"+time.Now().UTC().Format("20060102T150405Z")+"-"+nonce()[:4])
	if err != nil {
		return err
	}
	move := func(src backend.Info, dst string, cond backend.Cond) (backend.Info, error) {
		opts := backend.PutOptions{Cond: cond, Metadata: s.withTimes(src), ContentType: src.ContentType}
		info, err := s.transfer(ctx, caps, src, dst, opts, false)
		if err != nil {
			return backend.Info{}, err
		}
		info.Key, info.Size, info.Metadata, info.ContentType = dst, src.Size, opts.Metadata, src.ContentType
		return info, nil
	}
	saved, err := move(inA.info, third.key, backend.Cond{IfAbsent: true})
	if err != nil {
		return stale("exchange", a.path, err)
	}
	newA, err := move(inB.info, a.key, backend.Cond{IfMatch: inA.info.ETag})
	if err != nil {
		s.discard(ctx, caps, saved)
		return stale("exchange", a.path, err)
	}
	if _, err := move(saved, b.key, backend.Cond{IfMatch: inB.info.ETag}); err != nil {
		// The old content of a is in the third place only. Bring it back,
		// and leave it there where that fails.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		opts := backend.PutOptions{Cond: backend.Cond{IfMatch: newA.ETag}, Metadata: saved.Metadata, ContentType: saved.ContentType}
		if _, backErr := s.transfer(ctx, caps, saved, a.key, opts, false); backErr != nil {
			return fmt.Errorf("the former content of %q is in %q: %w", a.path, third.path, errors.Join(stale("exchange", b.path, err), backErr))
		}
		s.discard(ctx, caps, saved)
		return stale("exchange", b.path, err)
	}
	s.discard(ctx, caps, saved)
	return nil
}

// discard removes a copy that is not needed after all.
func (s *Store) discard(ctx context.Context, caps backend.Caps, info backend.Info) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := s.eraseOne(ctx, caps, backend.Deletion{Key: info.Key, IfMatch: info.ETag})
	if err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrPrecondition) {
		s.log.Warn("a copy is left in the store", "store", s.BackendName(), "key", info.Key, "err", err)
	}
}

// stale is fail where a lost condition means that somebody else was at work.
func stale(op string, p Path, err error) error {
	if errors.Is(err, backend.ErrPrecondition) {
		return fmt.Errorf("%s %q: %w", op, p, ErrStale)
	}
	return fail(op, p, err)
}
