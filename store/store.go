// Package store gives a bucket branches, paths, POSIX attributes and rules for
// conflicts, over any backend.
package store

import (
	"context"
	"io"
	"iter"
	"log/slog"

	"github.com/keifs/keifs/backend"
)

// Store is one branch of a bucket, or the root above the branches. It keeps no
// state but what a probe of the bucket saw: each call asks the backend. It
// implements all of Tree except Open and Create. Safe for concurrent use;
// Branch and Root are cheap views that share everything.
type Store struct{}

// Options of Open. The zero value is usable.
type Options struct {
	Branch   string // the current branch; default "main"
	UID, GID uint32 // owner of what has none of its own
	FileMode uint32 // permissions of a file that has none of its own; default 0644
	DirMode  uint32 // default 0755
	Policy   Policy // what a lost race does; default KeepBoth
	ReadOnly bool   // every change is ErrReadOnly
	Host     string // in names of conflict copies; default the host's name
	Logger   *slog.Logger

	// Caps, if set, is what an earlier probe saw: no new one is made.
	Caps *backend.Caps
	// Probed, if set, is told what the first probe saw.
	Probed func(backend.Caps)
}

// Policy says what happens to a change whose base is not current any more.
type Policy int

// The policies.
const (
	KeepBoth  Policy = iota // the loser is stored beside, as NAME.conflict-HOST-TIME; ErrStale
	Fail                    // nothing is stored; ErrStale
	Overwrite               // the last one wins
)

// Open makes a Store of a backend. It reads the bucket's format record and
// writes nothing: ErrFormat, backend.ErrNoBucket, backend.ErrPermission, ….
// The Store does not close the backend.
func Open(ctx context.Context, b backend.Backend, opts Options) (*Store, error) { panic("TODO") }

// Branch is the view on another branch, existing or not; ErrBadName.
func (s *Store) Branch(name string) (*Store, error) { panic("TODO") }

// RootView is the view above the branches.
func (s *Store) RootView() *Store { panic("TODO") }

// CurrentBranch is the branch of this view; empty for the root.
func (s *Store) CurrentBranch() string { panic("TODO") }

// BackendName is the URL of the bucket.
func (s *Store) BackendName() string { panic("TODO") }

// Key is the object key of a path in this branch.
func (s *Store) Key(rel string) (string, error) { panic("TODO") }

// BranchExists asks whether a branch has anything: an object, a marker, a ref.
func (s *Store) BranchExists(ctx context.Context, name string) (bool, error) { panic("TODO") }

// Name implements Tree.
func (s *Store) Name() string { return s.CurrentBranch() }

// Lookup implements Tree: HEAD of the object and a listing of one entry for
// the directory of that name, at the same time.
func (s *Store) Lookup(ctx context.Context, p Path) (Entry, error) { panic("TODO") }

// Head is Lookup for what is known not to be a directory: one request.
// ErrNotExist where there is no object.
func (s *Store) Head(ctx context.Context, p Path) (Entry, error) { panic("TODO") }

// HeadDir is Lookup for what is known to be a directory, by its marker: at
// most one request. A directory without marker has the default attributes.
func (s *Store) HeadDir(ctx context.Context, p Path) (Entry, error) { panic("TODO") }

// List implements Tree.
func (s *Store) List(ctx context.Context, dir Path) iter.Seq2[Entry, error] { panic("TODO") }

// Read hands fn the bytes of a range (n 0: to the end) of one version, as
// backend.Backend.Get. ErrStale where the object has another version or is gone.
func (s *Store) Read(ctx context.Context, p Path, version string, off, n int64, fn func(io.Reader) error) error {
	panic("TODO")
}

// Publish stores a whole file. See PublishOptions. On a lost race the policy
// decides; with KeepBoth the content is stored beside and the error wraps
// ErrStale and is a *ConflictError. Finding exactly the same bytes and
// attributes published already is success, except with Exclusive.
func (s *Store) Publish(ctx context.Context, p Path, src backend.Source, opts PublishOptions) (Entry, error) {
	panic("TODO")
}

// PublishOptions goes with Publish and PublishCopy.
type PublishOptions struct {
	Base      string // version the content is based on; empty: the name must be free
	Attr      Attr
	Exclusive bool // ErrExist instead of the conflict policy where the name is taken
	Replace   bool // whatever is there is replaced: no condition (rename, copy onto)
}

// PublishCopy is Publish with the content of another object of the bucket
// (from.Read(source, version)), copied by the store where it can.
func (s *Store) PublishCopy(ctx context.Context, from *Store, source Path, version string, size int64, p Path, opts PublishOptions) (Entry, error) {
	panic("TODO")
}

// ConflictError says where the losing content is.
type ConflictError struct {
	Path Path // what both wanted
	Kept Path // where the loser is; the root where it was not kept
}

func (e *ConflictError) Error() string { panic("TODO") }

// Unwrap makes it ErrStale.
func (e *ConflictError) Unwrap() error { return ErrStale }

// SetAttr implements Tree; Size is ErrUnsupported.
func (s *Store) SetAttr(ctx context.Context, p Path, change AttrChange) (Entry, error) {
	panic("TODO")
}

// Apply returns attr with change (without Size) made to it, checked; Ctime is
// set to now. ErrExist, ErrNoXattr, ErrTooBig.
func (c AttrChange) Apply(attr Attr) (Attr, error) { panic("TODO") }

// Mkdir implements Tree.
func (s *Store) Mkdir(ctx context.Context, p Path, attr Attr) (Entry, error) { panic("TODO") }

// Mknod implements Tree.
func (s *Store) Mknod(ctx context.Context, p Path, attr Attr, target string) (Entry, error) {
	panic("TODO")
}

// Readlink implements Tree.
func (s *Store) Readlink(ctx context.Context, p Path) (string, error) { panic("TODO") }

// Remove implements Tree, without regard to open handles.
func (s *Store) Remove(ctx context.Context, p Path) error { panic("TODO") }

// Rmdir implements Tree.
func (s *Store) Rmdir(ctx context.Context, p Path) error { panic("TODO") }

// Rename implements Tree, without regard to open handles.
func (s *Store) Rename(ctx context.Context, from, to Path, mode RenameMode) error { panic("TODO") }
