package history

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
)

// headsAtOnce is how many objects are asked for their attributes at a time.
const headsAtOnce = 64

// Working yields the working tree of a branch below a prefix, as it is now, by
// path. The attributes that a listing does not have are those of the commits
// known, where these have the same object, and else asked for. Keys that no
// commit can have are told to skipped. An error is yielded last.
func (r *Repo) Working(ctx context.Context, branch, prefix string, known []*commit.Manifest, skipped func(key string)) iter.Seq2[commit.Entry, error] {
	return func(yield func(commit.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		// In order, however the answers come.
		answers := make(chan chan answer, headsAtOnce)
		ended := make(chan struct{})
		defer func() {
			cancel()
			for a := range answers {
				<-a
			}
			<-ended
		}()
		go func() {
			defer close(ended)
			defer close(answers)
			r.ask(ctx, branch, prefix, known, skipped, answers)
		}()
		for a := range answers {
			got := <-a
			if got.err == nil && got.gone {
				continue
			}
			if !yield(got.entry, got.err) || got.err != nil {
				return
			}
		}
	}
}

type answer struct {
	entry commit.Entry
	gone  bool
	err   error
}

// ask lists the branch, and asks for what the listing does not tell.
func (r *Repo) ask(ctx context.Context, branch, prefix string, known []*commit.Manifest, skipped func(string), answers chan<- chan answer) {
	trees := make([]*cursor, 0, len(known))
	for _, m := range known {
		if m != nil {
			c := follow(r.commits.Tree(m).Walk(ctx, prefix, ""))
			defer c.stop()
			trees = append(trees, c)
		}
	}
	put := func(a answer) chan answer {
		c := make(chan answer, 1)
		c <- a
		return c
	}
	for o, err := range r.st.Bucket().Walk(ctx, branch, prefix) {
		if err != nil {
			answers <- put(answer{err: err})
			return
		}
		if o.Rel == "" {
			continue // the marker of the branch
		}
		if !commit.ValidPath(o.Rel) {
			skipped(o.Key)
			continue
		}
		e, ok, err := among(trees, o)
		switch {
		case err != nil:
			answers <- put(answer{err: err})
			return
		case ok:
			answers <- put(answer{entry: e})
			continue
		}
		c := make(chan answer, 1)
		answers <- c // waits while too many are asked
		go func() { c <- r.describe(ctx, o) }()
	}
}

// among looks for the entry of an object in trees that are walked beside. A
// listing need not tell the version.
func among(trees []*cursor, o overlay.Object) (commit.Entry, bool, error) {
	for _, t := range trees {
		e, ok, err := t.at(o.Rel)
		if err != nil {
			return e, false, err
		}
		if ok && e.Key == o.Key && e.ETag == o.ETag && (o.VersionID == "" || e.VersionID == o.VersionID) && e.Modified == nanoseconds(o.ModTime) {
			return e, true, nil
		}
	}
	return commit.Entry{}, false, nil
}

// describe asks for the object as it is now, be it another version than listed.
func (r *Repo) describe(ctx context.Context, o overlay.Object) answer {
	for {
		info, err := r.raw.Stat(ctx, o.Key)
		if errors.Is(err, backend.ErrNotExist) {
			return answer{gone: true}
		}
		if err != nil {
			return answer{err: err}
		}
		e, err := r.entry(ctx, o.Rel, info)
		if errors.Is(err, backend.ErrPrecondition) {
			continue // changed while its target was read
		}
		return answer{entry: e, err: err}
	}
}

// entry is an object as a commit has it.
func (r *Repo) entry(ctx context.Context, rel string, info backend.Info) (commit.Entry, error) {
	e := commit.Entry{
		Path: rel, Key: info.Key, ETag: info.ETag, VersionID: info.VersionID, Size: info.Size, Modified: nanoseconds(info.ModTime),
	}
	rec, err := r.st.Recorded(ctx, info, e.IsDir() && info.Size == 0)
	if err != nil {
		return e, err
	}
	e.Mode, e.UID, e.GID, e.Mtime = rec.Mode, rec.UID, rec.GID, nanoseconds(rec.Mtime)
	e.Target, e.Xattr = rec.Target, rec.Xattr
	return e, nil
}

// cursor walks entries in step with something else.
type cursor struct {
	next func() (commit.Entry, error, bool)
	stop func()
	e    commit.Entry
	more bool
	err  error
}

func follow(entries iter.Seq2[commit.Entry, error]) *cursor {
	c := &cursor{}
	c.next, c.stop = iter.Pull2(entries)
	c.advance()
	return c
}

func (c *cursor) advance() { c.e, c.err, c.more = c.next() }

// at returns the entry at a path that is not before the one asked for last.
func (c *cursor) at(path string) (commit.Entry, bool, error) {
	for c.more && c.err == nil && c.e.Path < path {
		c.advance()
	}
	return c.e, c.more && c.err == nil && c.e.Path == path, c.err
}

// Unchanged says whether the working tree of a branch is that of a commit:
// overlay.ErrUncommitted.
func (r *Repo) Unchanged(ctx context.Context, branch, id string) error {
	m, err := r.commits.Manifest(ctx, id)
	if err != nil {
		return err
	}
	now := r.Working(ctx, branch, "", []*commit.Manifest{m}, func(string) {})
	for c, err := range Difference(r.commits.Tree(m).Walk(ctx, "", ""), now) {
		if err == nil {
			err = fmt.Errorf("%w: %s", overlay.ErrUncommitted, c.Path)
		}
		return err
	}
	return nil
}

// Difference yields what changed between two sequences of entries, by path.
func Difference(a, b iter.Seq2[commit.Entry, error]) iter.Seq2[commit.Change, error] {
	return func(yield func(commit.Change, error) bool) {
		x, y := follow(a), follow(b)
		defer x.stop()
		defer y.stop()
		for x.more || y.more {
			if err := errors.Join(x.err, y.err); err != nil {
				yield(commit.Change{}, err)
				return
			}
			var c commit.Change
			takeX := x.more && (!y.more || x.e.Path <= y.e.Path)
			takeY := y.more && (!x.more || y.e.Path <= x.e.Path)
			if takeX {
				e := x.e
				c.Path, c.Old = e.Path, &e
				x.advance()
			}
			if takeY {
				e := y.e
				c.Path, c.New = e.Path, &e
				y.advance()
			}
			if c.Old != nil && c.New != nil && c.Old.Same(c.New) {
				continue
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}
