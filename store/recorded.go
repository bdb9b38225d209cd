package store

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/overlay"
)

// Recorded are the attributes of an object as a commit keeps them: nothing is
// left to the defaults of a mount.
type Recorded struct {
	Mode, UID, GID uint32
	Mtime          time.Time
	Target         string // of a symbolic link
	Xattr          string // the metadata of that name
}

// Recorded reads the attributes of an object from its metadata, and the target
// of a symbolic link from its content where that has it.
func (s *Store) Recorded(ctx context.Context, info backend.Info, dir bool) (Recorded, error) {
	a := s.opts.decode(info, dir)
	r := Recorded{Mode: a.Mode, UID: a.UID, GID: a.GID, Mtime: a.Mtime}
	if len(a.Xattrs) > 0 {
		r.Xattr = formatXattrs(a.Xattrs)
	}
	if a.Mode&ModeType != ModeSymlink {
		return r, nil
	}
	target, ok := linkTarget(info.Metadata)
	if !ok {
		var data []byte
		err := s.b.Get(ctx, info.Key, backend.GetOptions{IfMatch: info.ETag}, func(_ backend.Info, body io.Reader) error {
			var err error
			data, err = io.ReadAll(io.LimitReader(body, maxTarget+1))
			return err
		})
		switch {
		case err != nil:
			return r, err
		case len(data) > maxTarget:
			return r, fmt.Errorf("target of %s: %w", info.Key, ErrNameTooLong)
		}
		target = string(data)
	}
	r.Target = target
	return r, nil
}

// Metadata is what an object with these attributes has.
func (r Recorded) Metadata() map[string]string {
	a := Attr{Mode: r.Mode, UID: r.UID, GID: r.GID, Mtime: r.Mtime, Ctime: r.Mtime, Xattrs: parseXattrs(r.Xattr)}
	// Defaults that none of them is.
	other := Options{UID: ^r.UID, GID: ^r.GID, FileMode: ^r.Mode & 0o7777, DirMode: ^r.Mode & 0o7777}
	return other.encode(a, false)
}

// Bucket is the bucket with the bases of its branches: keys as of plain
// objects, "main@3f2a/docs/a.txt" for a revision.
func (s *Store) Bucket() *overlay.Bucket { return s.b }

// Plain is the same bucket where keys are those of plain objects, whatever
// base a branch has. Revisions ("main@3f2a/docs/a.txt") are there as well.
func (s *Store) Plain() *Store {
	c := &core{opts: s.opts, log: s.log, probing: make(chan struct{}, 1), attrs: attrRecords{known: map[string]attrRecord{}},
		lives: map[string]lives{}, unnameable: map[string]struct{}{}}
	c.b = overlay.New(s.b.Decorates(), overlay.Options{Commits: s.opts.Commits, Logger: s.log, Branch: func(string) bool { return false }})
	c.probed.Store(s.probed.Load())
	return &Store{core: c, branch: s.branch, prefix: s.prefix}
}

// Lasting is the metadata by which a copy of an object has its times.
func (s *Store) Lasting(info backend.Info) map[string]string { return s.withTimes(info) }

// Prober tells what the bucket can do, probed once. ErrReadOnly.
func (s *Store) Prober(ctx context.Context) (backend.Caps, error) { return s.change(ctx) }

// Transfer makes dst, a key, an object with the content that src still must
// have, and with opts.Metadata, on the server where it can. Errors as
// backend.Backend.Put; ErrStale where src is another version by now, or gone.
func (s *Store) Transfer(ctx context.Context, src backend.Info, dst string, opts backend.PutOptions) (backend.Info, error) {
	caps, err := s.change(ctx)
	if err != nil {
		return backend.Info{}, err
	}
	info, err := s.transfer(ctx, caps, src, dst, opts, false)
	if err != nil {
		err = fail("copy to", Path{dst}, err)
	}
	return info, err
}

// Erase deletes the object of a key if it still is that version:
// backend.ErrPrecondition, and backend.ErrNotExist where it is gone.
func (s *Store) Erase(ctx context.Context, key, version string) error {
	caps, err := s.change(ctx)
	if err != nil {
		return err
	}
	cond := backend.Cond{IfMatch: version}
	if !caps.CondDelete {
		if err := s.check(ctx, key, cond); err != nil {
			return err
		}
		cond = backend.Cond{}
	}
	return s.b.Delete(ctx, key, cond)
}
