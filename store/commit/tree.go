package commit

import (
	"context"
	"iter"
	"sort"
	"strings"
)

// Tree answers for the paths of one commit. Ranges are read when they are
// needed and remembered by the Repo. Safe for concurrent use.
type Tree struct {
	repo   *Repo
	ranges []Range
}

// find is the index of the range that path is in, if it is in any; or else of
// the first one after it.
func (t *Tree) find(path string) int {
	return sort.Search(len(t.ranges), func(i int) bool { return t.ranges[i].Last >= path })
}

// Lookup returns the entry at a path (of a directory's marker with the '/').
func (t *Tree) Lookup(ctx context.Context, path string) (e Entry, found bool, err error) {
	i := t.find(path)
	if i == len(t.ranges) || path < t.ranges[i].First {
		return Entry{}, false, nil
	}
	d, err := t.repo.load(ctx, t.ranges[i])
	if err != nil {
		return Entry{}, false, err
	}
	if at := d.search(path); at < d.len() && string(d.path(at)) == path {
		return d.entry(at), true, nil
	}
	return Entry{}, false, nil
}

// HasPrefix says whether there is an entry whose path begins with prefix:
// with "docs/", whether there is such a directory.
func (t *Tree) HasPrefix(ctx context.Context, prefix string) (bool, error) {
	for e, err := range t.Walk(ctx, prefix, "") {
		return err == nil && e.Path != "", err
	}
	return false, nil
}

// Walk yields the entries whose paths begin with prefix, from the one at or
// after from on (empty: from the first), in the order of paths. An error is
// yielded last.
func (t *Tree) Walk(ctx context.Context, prefix, from string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from := max(prefix, from)
		for i := t.find(from); i < len(t.ranges); i++ {
			if first := t.ranges[i].First; first > from && !strings.HasPrefix(first, prefix) {
				return
			}
			d, err := t.repo.load(ctx, t.ranges[i])
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for at := d.search(from); at < d.len(); at++ {
				e := d.entry(at)
				if !strings.HasPrefix(e.Path, prefix) || !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Child is one name of a directory.
type Child struct {
	// Name is a component of a key. An object and a directory may have the same.
	Name string
	// Entry is the object, or the marker of the directory, nil without one.
	Entry *Entry
	Dir   bool
}

// List yields the names in a directory, which is empty or ends in '/', in the
// order of keys: a directory sorts as its name and '/'. after resumes a
// listing behind what [Child.Position] gave. Subdirectories are skipped
// unread. An error is yielded last. Nothing is yielded where there is no such
// directory.
func (t *Tree) List(ctx context.Context, dir, after string) iter.Seq2[Child, error] {
	return func(yield func(Child, error) bool) {
		from := dir
		if after != "" {
			from = next(dir + after)
		}
		for {
			e, found, err := t.at(ctx, dir, from)
			if err != nil {
				yield(Child{}, err)
				return
			}
			if !found {
				return
			}
			c := Child{Entry: &e}
			name, _, below := strings.Cut(e.Path[len(dir):], "/")
			c.Name, c.Dir = name, below
			from = e.Path + "\x00"
			if below {
				sub := dir + name + "/"
				if e.Path != sub {
					c.Entry = nil
				}
				from = next(sub)
			}
			if own := e.Path == dir; !own && !yield(c, nil) {
				return
			}
		}
	}
}

// Position is where a listing resumes after this child.
func (c *Child) Position() string {
	if c.Dir {
		return c.Name + "/"
	}
	return c.Name
}

// next is the first path behind path, and behind all below it if it ends in '/'.
func next(path string) string {
	if dir, ok := strings.CutSuffix(path, "/"); ok {
		return dir + "0" // the byte behind '/'
	}
	return path + "\x00"
}

// at is the first entry at or after from with the prefix.
func (t *Tree) at(ctx context.Context, prefix, from string) (Entry, bool, error) {
	for e, err := range t.Walk(ctx, prefix, from) {
		return e, err == nil, err
	}
	return Entry{}, false, nil
}
