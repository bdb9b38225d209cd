// Package store gives a bucket branches, paths, POSIX attributes and rules for
// conflicts, over any backend.
//
// The types to know are [Volume], what a mount shows, with its [Tree] and
// [File]; [Store], which answers and changes one branch by asking the bucket
// each time; [Path], which cannot leave its branch; and [Entry] with [Attr].
// What lies in the bucket is in FORMAT.md.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/overlay"
)

// Store is one branch of a bucket, or the root above the branches. It keeps no
// content and no attributes: each call asks the backend. It implements all of
// Tree except Open and Create. Safe for concurrent use; Branch and RootView
// are cheap views that share everything.
type Store struct {
	*core
	branch string // as the mount shows it; empty for the root
	prefix string // of all its keys: empty for the root, else ends in '/'
}

// core is what the views of one bucket share.
type core struct {
	b    *overlay.Bucket // the bucket, each branch with its base
	opts Options
	log  *slog.Logger

	attrs  attrRecords
	clocks clocks

	probing chan struct{}                // holds one token, for who probes
	probed  atomic.Pointer[backend.Caps] // nil before the first change
	warned  sync.Once                    // of what it cannot do

	mu         sync.Mutex
	lives      map[string]lives    // by directory
	unnameable map[string]struct{} // keys that cannot be shown, see Stats
	conflicts  int64
}

// Options of Open. The zero value is usable.
type Options struct {
	Branch   string // the current branch; default "main"
	UID, GID uint32 // owner of what has none of its own
	FileMode uint32 // permissions of a file that has none of its own; default 0644
	DirMode  uint32 // default 0755
	Policy   Policy // what a lost race does; default KeepBoth
	Attrs    Attrs  // where a listing's attributes come from; default AttrsAsk
	ReadOnly bool   // every change is ErrReadOnly
	Host     string // in names of conflict copies; default the host's name
	Logger   *slog.Logger

	Commits overlay.Commits // default: those in the bucket

	// Caps, if set, is what an earlier probe saw: no new one is made.
	Caps *backend.Caps
	// Probed, if set, is told what a probe saw.
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
// writes nothing: ErrFormat (not with ReadOnly), backend.ErrNoBucket,
// backend.ErrPermission, …. The Store does not close the backend.
func Open(ctx context.Context, b backend.Backend, opts Options) (*Store, error) {
	if opts.Branch == "" {
		opts.Branch = "main"
	}
	if opts.FileMode == 0 {
		opts.FileMode = 0o644
	}
	if opts.DirMode == 0 {
		opts.DirMode = 0o755
	}
	opts.FileMode &= 0o7777
	opts.DirMode &= 0o7777
	if opts.Host == "" {
		opts.Host, _ = os.Hostname() // without one, names of conflict copies do without
	}
	c := &core{
		opts: opts, log: opts.Logger, probing: make(chan struct{}, 1),
		attrs: attrRecords{known: map[string]attrRecord{}},
		lives: map[string]lives{}, unnameable: map[string]struct{}{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.b = overlay.New(b, overlay.Options{
		Commits: opts.Commits, Logger: c.log,
		Branch: func(name string) bool { return ValidateBranch(name) == nil },
	})
	if opts.Caps != nil {
		caps := *opts.Caps
		c.probed.Store(&caps)
	}
	if err := c.checkFormat(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", b.Name(), err)
	}
	return (&Store{core: c}).Branch(opts.Branch)
}

// format is the version of the bucket format that this package writes.
const format = 1

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 64 << 10

func (c *core) checkFormat(ctx context.Context) error {
	data, _, err := backend.ReadAll(ctx, c.b, formatKey, maxRecord)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return nil // a bucket without records is one of format 1
	case err != nil && !errors.Is(err, backend.ErrTooLarge):
		return err
	case c.opts.ReadOnly:
		return nil // plain objects are the truth in any format
	case err != nil:
		return fmt.Errorf("%s: %w", formatKey, ErrFormat)
	}
	var record struct{ Format int }
	if err := json.Unmarshal(data, &record); err != nil {
		return fmt.Errorf("%s: %w: %v", formatKey, ErrFormat, err)
	}
	if record.Format < 1 || record.Format > format {
		return fmt.Errorf("%s names format %d: %w", formatKey, record.Format, ErrFormat)
	}
	return nil
}

// Branch is the view on another branch, existing or not; ErrBadName.
func (s *Store) Branch(name string) (*Store, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("branch: %w", err)
	}
	component, shadow, err := keyComponent(name)
	if err != nil || shadow || strings.HasPrefix(component, reserved) {
		return nil, fmt.Errorf("branch %q: %w", name, ErrBadName)
	}
	return &Store{core: s.core, branch: name, prefix: component + "/"}, nil
}

// RootView is the view above the branches.
func (s *Store) RootView() *Store { return &Store{core: s.core} }

// CurrentBranch is the branch of this view; empty for the root.
func (s *Store) CurrentBranch() string { return s.branch }

// Name implements Tree.
func (s *Store) Name() string { return s.branch }

// BackendName is the URL of the bucket.
func (s *Store) BackendName() string { return s.b.Name() }

// Defaults names what is shown of objects without attributes of their own.
func (s *Store) Defaults() string {
	return fmt.Sprintf("%d:%d %o %o", s.opts.UID, s.opts.GID, s.opts.FileMode, s.opts.DirMode)
}

// ReadOnly says whether every change is ErrReadOnly.
func (s *Store) ReadOnly() bool { return s.opts.ReadOnly || s.b.Frozen(s.branch) }

// Key is the object key of a path in this branch: ErrBadName, ErrNameTooLong.
func (s *Store) Key(rel string) (string, error) {
	p, err := ParsePath(rel)
	if err != nil {
		return "", err
	}
	pl, err := s.place(p)
	if err != nil {
		return "", err
	}
	return pl.key, nil
}

func (s *Store) isRoot() bool { return s.branch == "" }

// place is where a path is in the bucket.
type place struct {
	path   Path
	key    string // of the object, if it is one
	dir    string // prefix of what is in it, if it is a directory, and the key of its marker
	shadow bool   // it is an object only, and only where there is a directory of that key
}

// hollow says whether key ends in '/': an object only when it is not empty,
// since else it is the marker of the parent.
func (pl place) hollow() bool { return strings.HasSuffix(pl.key, "/") }

// place maps a path: ErrBadName, ErrNameTooLong, ErrNotDir.
func (s *Store) place(p Path) (place, error) {
	key, shadow, err := keyOf(s.prefix, p)
	if err != nil {
		return place{}, err
	}
	pl := place{path: p, key: key, dir: key + "/", shadow: shadow}
	if s.isRoot() {
		if p.IsRoot() {
			pl.dir = ""
		}
		if strings.HasPrefix(key, reserved) {
			return place{}, fmt.Errorf("%q is reserved: %w", p, ErrBadName)
		}
	}
	if limit := s.b.Caps().MaxKey; limit > 0 && len(key) > limit {
		return place{}, fmt.Errorf("key of %d bytes, the store takes %d: %w", len(key), limit, ErrNameTooLong)
	}
	return pl, nil
}

// creatable returns ErrBadName for names that only stand for what is there
// already: keys that are object and prefix, and the empty component.
func (pl place) creatable() error {
	if pl.shadow || pl.hollow() {
		return fmt.Errorf("%q: %w", pl.path, ErrBadName)
	}
	return nil
}

// CheckNew returns the error that publishing a new file of that name would
// give whatever the bucket has: ErrBadName, ErrNameTooLong, ErrNotDir.
func (s *Store) CheckNew(p Path) error {
	pl, err := s.place(p)
	if err == nil {
		err = pl.creatable()
	}
	return err
}

// change is what every change of a branch begins with: ErrReadOnly,
// ErrOutsideBranch, and the probe before the first one.
func (s *Store) change(ctx context.Context) (backend.Caps, error) {
	if s.ReadOnly() {
		return backend.Caps{}, fmt.Errorf("%s: %w", s.BackendName(), ErrReadOnly)
	}
	if s.isRoot() {
		return backend.Caps{}, ErrOutsideBranch
	}
	return s.caps(ctx)
}

// fail translates an error of the backend about one file or directory.
func fail(op string, p Path, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errSource):
		return fmt.Errorf("%s %q: the source of the copy: %w", op, p, ErrStale)
	case errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("%s %q: %w", op, p, ErrNotExist)
	case errors.Is(err, backend.ErrTooLarge):
		return fmt.Errorf("%s %q: %w: %v", op, p, ErrTooBig, err)
	}
	return err
}
