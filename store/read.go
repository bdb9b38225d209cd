package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// found is an entry with the object that says so: the file, or the marker of
// the directory. A directory without marker has none.
type found struct {
	Entry
	info backend.Info
}

// Lookup implements Tree: HEAD of the object and a listing of one entry for
// the directory of that name, at the same time; the attributes of a directory
// with a marker are one request more. A parent that is a file gives
// ErrNotExist, since to know better would cost a request for each name that is
// not there; who walks a path component by component finds out anyway.
func (s *Store) Lookup(ctx context.Context, p Path) (Entry, error) {
	f, err := s.look(ctx, p)
	return f.Entry, err
}

func (s *Store) look(ctx context.Context, p Path) (found, error) {
	if s.isRoot() && p.IsRoot() {
		return s.dirFound(p, nil), nil
	}
	pl, err := s.place(p)
	if err != nil {
		if s.isRoot() && errors.Is(err, ErrBadName) {
			err = fmt.Errorf("%q: %w", p, ErrNotExist) // a reserved name
		}
		return found{}, err
	}
	var info backend.Info
	var statErr error
	var wg sync.WaitGroup
	if p.IsRoot() {
		statErr = backend.ErrNotExist // a branch is never a file
	} else {
		wg.Go(func() { info, statErr = s.stat(ctx, pl) })
	}
	first, listErr := s.peek(ctx, pl.dir, 1)
	wg.Wait()

	switch {
	case listErr != nil:
		return found{}, listErr
	case pl.shadow && len(first) == 0:
		return found{}, fmt.Errorf("%q: %w", p, ErrNotExist)
	case !pl.shadow && len(first) > 0:
		if first[0].Key == pl.dir {
			return s.lookDir(ctx, pl)
		}
		return s.dirFound(p, nil), nil
	case statErr == nil:
		return s.fileFound(p, info), nil
	case !errors.Is(statErr, backend.ErrNotExist):
		return found{}, statErr
	}
	if name, top := s.branchAt(p); top {
		ref, err := s.hasRef(ctx, name)
		if err != nil {
			return found{}, err
		}
		if ref {
			return s.dirFound(p, nil), nil
		}
	}
	return found{}, fmt.Errorf("%q: %w", p, ErrNotExist)
}

// branchAt is the branch whose root is at p of this view, if it can be one.
func (s *Store) branchAt(p Path) (name string, ok bool) {
	switch {
	case s.isRoot() && !p.IsRoot() && p.Dir().IsRoot():
		return p.s, true
	case !s.isRoot() && p.IsRoot():
		return s.branch, true
	}
	return "", false
}

// stat asks for the object at a place. It gives backend.ErrNotExist for keys
// that can never be there, and for the marker of a parent.
func (s *Store) stat(ctx context.Context, pl place) (backend.Info, error) {
	info, err := s.b.Stat(ctx, pl.key)
	if errors.Is(err, backend.ErrBadKey) || err == nil && pl.hollow() && info.Size == 0 {
		return backend.Info{}, backend.Fail("stat", pl.key, backend.ErrNotExist, err)
	}
	return info, err
}

// peek lists the first n keys with a prefix.
func (s *Store) peek(ctx context.Context, prefix string, n int) ([]backend.Info, error) {
	var first []backend.Info
	opts := backend.ListOptions{Prefix: prefix, Limit: n}
	for {
		page, err := s.b.ListPage(ctx, opts)
		if errors.Is(err, backend.ErrBadKey) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		first = append(first, page.Objects...)
		if len(first) >= n || page.Next == "" {
			return first, nil
		}
		opts.Token = page.Next
	}
}

// Head is Lookup for what is known not to be a directory: one request.
// ErrNotExist where there is no object.
func (s *Store) Head(ctx context.Context, p Path) (Entry, error) {
	pl, err := s.place(p)
	if err != nil {
		return Entry{}, err
	}
	if p.IsRoot() {
		return Entry{}, fmt.Errorf("%q: %w", p, ErrIsDir)
	}
	info, err := s.stat(ctx, pl)
	if err != nil {
		return Entry{}, fail("stat", p, err)
	}
	return s.fileFound(p, info).Entry, nil
}

// HeadRead is Head that hands fn the content with the entry, all by one
// request. fn need not read it, and begins anew each time it is called.
func (s *Store) HeadRead(ctx context.Context, p Path, fn func(Entry, io.Reader) error) (Entry, error) {
	pl, err := s.place(p)
	if err != nil {
		return Entry{}, err
	}
	if p.IsRoot() {
		return Entry{}, fmt.Errorf("%q: %w", p, ErrIsDir)
	}
	var e Entry
	var own error // of fn, which may be anything
	err = s.b.Get(ctx, pl.key, backend.GetOptions{}, func(info backend.Info, body io.Reader) error {
		if pl.hollow() && info.Size == 0 {
			return backend.Fail("get", pl.key, backend.ErrNotExist, nil)
		}
		e = s.fileFound(p, info).Entry
		own = fn(e, body)
		return own
	})
	if own == nil && errors.Is(err, backend.ErrBadKey) {
		err = backend.Fail("get", pl.key, backend.ErrNotExist, err)
	}
	if err != nil && own == nil {
		return Entry{}, fail("read", p, err)
	}
	return e, err
}

// HeadDir is Lookup for what is known to be a directory, by its marker: at
// most one request. A directory without marker has the default attributes,
// and the epoch as its time.
func (s *Store) HeadDir(ctx context.Context, p Path) (Entry, error) {
	if s.isRoot() && p.IsRoot() {
		return s.dirFound(p, nil).Entry, nil
	}
	pl, err := s.place(p)
	if err != nil {
		return Entry{}, err
	}
	if pl.shadow {
		return Entry{}, fmt.Errorf("%q: %w", p, ErrNotDir)
	}
	f, err := s.lookDir(ctx, pl)
	return f.Entry, err
}

func (s *Store) lookDir(ctx context.Context, pl place) (found, error) {
	info, err := s.b.Stat(ctx, pl.dir)
	switch {
	case err == nil && info.Size == 0:
		s.noteMarker(pl.dir)
		return s.dirFound(pl.path, &info), nil
	case err == nil, errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrBadKey):
		s.forget(pl.dir)
		return s.dirFound(pl.path, nil), nil
	}
	return found{}, err
}

func (s *Store) fileFound(p Path, info backend.Info) found {
	e := Entry{
		Name: p.Name(), Attr: s.opts.decode(info, false), Size: info.Size, Version: info.ETag,
		Changed: info.ModTime, Holds: s.provenBy(info),
	}
	_, mtime := parseTime(info.Metadata[metaMtime])
	_, ctime := parseTime(info.Metadata[metaCtime])
	e.stamped = mtime && ctime
	if target, ok := linkTarget(info.Metadata); ok && e.IsSymlink() {
		e.Size = int64(len(target))
	}
	return found{e, info}
}

func (s *Store) dirFound(p Path, marker *backend.Info) found {
	if marker == nil {
		return found{Entry: Entry{Name: p.Name(), Attr: s.opts.decode(backend.Info{ModTime: time.Unix(0, 0)}, true)}}
	}
	e := Entry{
		Name: p.Name(), Attr: s.opts.decode(*marker, true), Marker: true,
		Changed: marker.ModTime, Holds: s.provenBy(*marker),
	}
	return found{e, *marker}
}

// existsEmpty says whether a place of which nothing is listed is a directory
// all the same: a branch that has only a ref. ErrNotDir, ErrNotExist.
func (s *Store) existsEmpty(ctx context.Context, pl place) error {
	if name, top := s.branchAt(pl.path); top {
		ref, err := s.hasRef(ctx, name)
		if err != nil || ref {
			return err
		}
	}
	if pl.path.IsRoot() {
		return fmt.Errorf("branch %q: %w", s.branch, ErrNotExist)
	}
	if _, err := s.stat(ctx, pl); err != nil {
		return fail("look up", pl.path, err)
	}
	return fmt.Errorf("%q: %w", pl.path, ErrNotDir)
}

// Read hands fn the bytes of a range (n 0: to the end) of one version, as
// backend.Backend.Get. ErrStale where the object has another version or is gone.
func (s *Store) Read(ctx context.Context, p Path, version string, off, n int64, fn func(io.Reader) error) error {
	pl, err := s.place(p)
	if err != nil {
		return err
	}
	var own error // of fn, which may be anything
	err = s.b.Get(ctx, pl.key, backend.GetOptions{Offset: off, Length: n, IfMatch: version}, func(_ backend.Info, body io.Reader) error {
		own = fn(body)
		return own
	})
	switch {
	case err == nil || own != nil && errors.Is(err, own):
		return err
	case version != "" && (errors.Is(err, backend.ErrPrecondition) || errors.Is(err, backend.ErrNotExist)):
		return fmt.Errorf("read %q: %w", p, ErrStale)
	}
	return fail("read", p, err)
}

// maxTarget is the length of a symbolic link's target in bytes, at most.
const maxTarget = 4095

// Readlink implements Tree. ErrInvalid where p is not a symbolic link.
func (s *Store) Readlink(ctx context.Context, p Path) (string, error) {
	pl, err := s.place(p)
	if err != nil {
		return "", err
	}
	var target string
	err = s.b.Get(ctx, pl.key, backend.GetOptions{}, func(info backend.Info, body io.Reader) error {
		a := s.opts.decode(info, false)
		if a.Mode&ModeType != ModeSymlink {
			return fmt.Errorf("%q is not a symbolic link: %w", p, ErrInvalid)
		}
		var ok bool
		if target, ok = linkTarget(info.Metadata); ok {
			return nil
		}
		data, err := io.ReadAll(io.LimitReader(body, maxTarget+1))
		if err == nil && len(data) > maxTarget {
			err = fmt.Errorf("target of %q: %w", p, ErrNameTooLong)
		}
		target = string(data)
		return err
	})
	return target, fail("readlink", p, err)
}
