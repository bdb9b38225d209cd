package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// ErrNothing means that the working tree is what the last commit has.
var ErrNothing = errors.New("nothing to commit")

// attempts bounds how often a lost race is run again.
const attempts = 6

// CommitOptions say what a commit says. The zero value is usable.
type CommitOptions struct {
	Message, Author string
	Pin             bool // copy all content that has no pin yet
	Empty           bool // commit even when nothing changed

	// Progress, if set, is told how many objects were seen, now and then.
	Progress func(objects int64)
	// Skipped, if set, is told the keys that no commit can have.
	Skipped func(key string)
}

// Commit makes a commit of what the branch has now. ErrNothing,
// store.ErrNotExist, refs.ErrNoConditions, ErrUnmarked. After many lost races in a row the
// commit is kept on a branch of its own: *ParkedError.
func (r *Repo) Commit(ctx context.Context, branch string, opts CommitOptions) (m *commit.Manifest, err error) {
	if opts.Skipped == nil {
		opts.Skipped = func(string) {}
	}
	t, err := r.begin(ctx, branch)
	if err != nil {
		return nil, err
	}
	defer func() { t.end(ctx) }()
	for range attempts {
		if m, err = r.record(ctx, t.ref, opts); err != nil {
			return nil, err
		}
		if opts.Pin {
			if err := r.pinAll(ctx, m); err != nil {
				return nil, err
			}
		}
		err = t.finish(ctx, refs.Ref{Head: m.ID, Why: "commit: " + firstLine(opts.Message)})
		if !errors.Is(err, refs.ErrLost) {
			return m, err
		}
	}
	return m, r.park(ctx, m, err)
}

// record writes the tree of a branch, and a manifest that follows what its ref says.
func (r *Repo) record(ctx context.Context, ref *refs.Ref, opts CommitOptions) (*commit.Manifest, error) {
	head, base, err := r.ends(ctx, ref)
	if err != nil {
		return nil, err
	}
	known := []*commit.Manifest{head}
	if base != head {
		known = append(known, base)
	}
	w := r.commits.Writer(ctx, known...)
	defer w.Abort()
	var n int64
	for e, err := range r.Working(ctx, ref.Branch, "", known, opts.Skipped) {
		if err == nil {
			err = w.Add(e)
		}
		if err != nil {
			return nil, err
		}
		if n++; n%1000 == 0 && opts.Progress != nil {
			opts.Progress(n)
		}
	}
	ranges, err := w.Close()
	if err != nil {
		return nil, err
	}
	m := &commit.Manifest{Branch: ref.Branch, Message: opts.Message, Author: opts.Author, Time: r.opts.Now()}
	m.SetRanges(ranges)
	if head != nil {
		m.Parents = []string{head.ID}
		if !opts.Empty && slices.Equal(head.Ranges, ranges) {
			return nil, ErrNothing
		}
	}
	return m, r.commits.PutManifest(ctx, m)
}

// ends are the commits that a ref names: its last one, which is the base for a
// branch that has none of its own yet, and its base. Nil for none.
func (r *Repo) ends(ctx context.Context, ref *refs.Ref) (head, base *commit.Manifest, err error) {
	if ref.Base != "" {
		if base, err = r.commits.Manifest(ctx, ref.Base); err != nil {
			return nil, nil, err
		}
		head = base
	}
	if ref.Head != "" {
		head, err = r.commits.Manifest(ctx, ref.Head)
	}
	return head, base, err
}

// ParkedError says that a commit could not become that of its branch, and
// where it is.
type ParkedError struct {
	Branch string
	Err    error
}

func (e *ParkedError) Error() string {
	return fmt.Sprintf("others advance the branch all the time; the commit is kept on branch %s: merge it", e.Branch)
}
func (e *ParkedError) Unwrap() error { return e.Err }

// park keeps a commit on a branch of its own.
func (r *Repo) park(ctx context.Context, m *commit.Manifest, cause error) error {
	host := strings.Map(func(c rune) rune {
		if strings.ContainsRune("/@: ", c) {
			return '-'
		}
		return c
	}, r.opts.Host)
	name := fmt.Sprintf("conflict-%.100s-%s", host, r.opts.Now().UTC().Format("20060102T150405.000000000"))
	_, err := r.refs.Create(ctx, name, refs.Ref{Head: m.ID, Base: m.ID, Why: "parked: " + firstLine(m.Message)})
	if err != nil {
		return errors.Join(cause, err)
	}
	return &ParkedError{name, cause}
}

// pinAll copies what the commit names and has no pin yet.
func (r *Repo) pinAll(ctx context.Context, m *commit.Manifest) error {
	var pins []commit.Entry
	flush := func() error {
		err := backend.Parallel(ctx, atOnce, pins, func(ctx context.Context, e commit.Entry) error {
			pin := overlay.PinKey(e.Key, e.ETag)
			there, err := backend.Exists(ctx, r.raw, pin)
			if err != nil || there {
				return err
			}
			// Wherever the content is by now: its key may have another one.
			src := backend.Info{Key: m.Branch + "@" + m.ID + "/" + e.Path, ETag: e.ETag, Size: e.Size}
			_, err = r.st.Transfer(ctx, src, pin, backend.PutOptions{Cond: backend.Cond{IfAbsent: true}, Metadata: metadata(&e)})
			if errors.Is(err, backend.ErrPrecondition) {
				if there, looked := backend.Exists(ctx, r.raw, pin); looked == nil && there {
					return nil // by somebody else
				}
			}
			return err
		})
		pins = pins[:0]
		return err
	}
	for e, err := range r.commits.Tree(m).Walk(ctx, "", "") {
		if err != nil {
			return err
		}
		if pins = append(pins, e); len(pins) == 1024 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
