// Package refs keeps where each branch stands, in the bucket: refs, which
// advance by compare-and-swap, the log of all they ever were, and tags.
//
// The types to know are [Ref], [Tag] and [Refs]; [ParseRev] reads what people
// call a revision. What lies in the bucket is in store/FORMAT.md.
//
// What decides is the log. Generation n of a ref is its entry n, which is
// created and never overwritten, so that of two who advance one ref at the
// same moment one wins, on every store that has conditional create. The ref
// itself only points to the last entry: who dies between the two, or is
// overtaken, has it moved by the next one.
package refs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// The errors of this package, beside those of package backend.
var (
	// ErrLost: somebody else advanced the ref first. Load it and try again.
	ErrLost = errors.New("the branch was advanced by somebody else")
	// ErrExist: there is such a ref or tag.
	ErrExist = errors.New("exists already")
	// ErrNoConditions: the store cannot keep two writers apart.
	ErrNoConditions = errors.New("this store has no conditional writes: two commits at one moment would lose one of them; with --single-writer there is but one")
	// ErrBadName: no branch or tag can have the name.
	ErrBadName = errors.New("invalid name")
)

// Where the records lie.
const (
	Dir    = ".kei/branches/"
	LogDir = ".kei/reflog/"
	TagDir = ".kei/tags/"
	kind   = ".json"
)

// Ref is where a branch stands, or stood at one generation.
type Ref struct {
	Format     int       `json:"format"`
	Branch     string    `json:"branch"`
	Generation uint64    `json:"generation"` // counts from 1, without gaps
	Nonce      string    `json:"nonce"`      // of this generation
	Head       string    `json:"head"`       // id of the last commit; empty: none yet
	Base       string    `json:"base"`       // id of the commit whose entries lie below the plain objects; empty: none
	Time       time.Time `json:"time"`       // UTC, of this generation
	Host       string    `json:"host"`
	Why        string    `json:"why,omitempty"` // "commit: message", for people
	Deleted    bool      `json:"deleted,omitempty"`

	// Committing names who is about to list the branch for a commit: from
	// now on nothing is overwritten that is not kept before. A commit that was
	// given up leaves it, which costs no more than keeping too much.
	Committing string `json:"committing,omitempty"`
	// Rewound: the branch was set back, so that Head does not have everything
	// that a commit of it names, until the next commit.
	Rewound bool `json:"rewound,omitempty"`

	etag string // of the ref's object; empty for an entry of the log
}

// Options of New. The zero value is usable.
type Options struct {
	Host string // in every generation

	// Caps, if set, tells before the first change what the bucket honours;
	// else it is what the backend says.
	Caps func(context.Context) (backend.Caps, error)

	// SingleWriter: on a store without conditions there is but one client
	// that advances refs.
	SingleWriter bool

	Now func() time.Time // default time.Now
}

// Refs are the refs and tags of one bucket. Nothing is remembered: each call
// asks. Safe for concurrent use.
type Refs struct {
	b    backend.Backend
	opts Options
	weak atomic.Bool // no conditional overwrite: a ref may point to an old entry
}

// New returns the refs of a bucket. It sends no request.
func New(b backend.Backend, opts Options) *Refs {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &Refs{b: b, opts: opts}
	r.weak.Store(!b.Caps().CondOverwrite)
	return r
}

// maxName is the length of a name in bytes, at most.
const maxName = 200

// CheckName returns ErrBadName for what no branch with a ref, and no tag, can
// be called.
func CheckName(name string) error {
	special := func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("/@:", r) }
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.HasPrefix(name, ".kei") ||
		!utf8.ValidString(name) || strings.ContainsFunc(name, special) {
		return fmt.Errorf("%.250q: %w", name, ErrBadName)
	}
	return nil
}

func key(branch string) string { return Dir + branch + kind }

func logKey(branch string, generation uint64) string {
	return fmt.Sprintf("%s%s/%020d%s", LogDir, branch, generation, kind)
}

// Load reads the ref of a branch: one request, two on a store without
// conditional overwrite. backend.ErrNotExist where the branch has none,
// backend.ErrCorrupt.
func (r *Refs) Load(ctx context.Context, branch string) (*Ref, error) {
	if err := CheckName(branch); err != nil {
		return nil, err
	}
	ref, err := r.read(ctx, key(branch), branch)
	if !r.weak.Load() {
		return ref, err
	}
	// The ref is a hint, which a slow writer may even have moved back.
	if errors.Is(err, backend.ErrNotExist) {
		if ref, err = r.last(ctx, branch); err == nil && ref.Deleted {
			return nil, backend.Fail("get", key(branch), backend.ErrNotExist, nil)
		}
	}
	for err == nil {
		var newer *Ref
		newer, err = r.read(ctx, logKey(branch, ref.Generation+1), branch)
		if errors.Is(err, backend.ErrNotExist) {
			if ref.Deleted {
				return nil, backend.Fail("get", key(branch), backend.ErrNotExist, nil)
			}
			return ref, nil
		}
		if err == nil {
			newer.etag = ref.etag
			ref = newer
		}
	}
	return nil, err
}

// Entry reads one generation from the log. backend.ErrNotExist.
func (r *Refs) Entry(ctx context.Context, branch string, generation uint64) (*Ref, error) {
	if err := CheckName(branch); err != nil {
		return nil, err
	}
	return r.read(ctx, logKey(branch, generation), branch)
}

func (r *Refs) read(ctx context.Context, key, branch string) (*Ref, error) {
	data, info, err := backend.ReadAll(ctx, r.b, key, maxRecord)
	if err != nil {
		return nil, err
	}
	ref, err := Parse(data)
	if err == nil && ref.Branch != branch {
		err = fmt.Errorf("of branch %q: %w", ref.Branch, backend.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if strings.HasPrefix(key, Dir) {
		ref.etag = info.ETag
	}
	return ref, nil
}

// Branches yields the names of all branches with a ref, sorted. An error is
// yielded last.
func (r *Refs) Branches(ctx context.Context) iter.Seq2[string, error] { return r.names(ctx, Dir) }

func (r *Refs) names(ctx context.Context, dir string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range backend.List(ctx, r.b, dir) {
			if err != nil {
				yield("", err)
				return
			}
			name, ok := strings.CutSuffix(strings.TrimPrefix(e.Key, dir), kind)
			if ok && !e.Prefix && CheckName(name) == nil && !yield(name, nil) {
				return
			}
		}
	}
}

// caps asks what the bucket honours, before a change. ErrNoConditions.
func (r *Refs) caps(ctx context.Context) (backend.Caps, error) {
	caps := r.b.Caps()
	if r.opts.Caps != nil {
		var err error
		if caps, err = r.opts.Caps(ctx); err != nil {
			return caps, err
		}
	}
	r.weak.Store(!caps.CondOverwrite)
	if !caps.CondCreate && !r.opts.SingleWriter {
		return caps, ErrNoConditions
	}
	return caps, nil
}

func (r *Refs) complete(next Ref, branch string, generation uint64) Ref {
	next.Format, next.Branch, next.Generation = refFormat, branch, generation
	next.Nonce, next.Time, next.Host = rand.Text(), r.opts.Now().UTC(), r.opts.Host
	next.etag = ""
	return next
}
