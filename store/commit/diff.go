package commit

import (
	"bytes"
	"context"
	"iter"
)

// Change is one path of which two trees have different content or attributes.
type Change struct {
	Path     string
	Old, New *Entry // nil where a tree has none
}

// Diff yields what changed from a to b, in the order of paths. Ranges that
// both have are skipped unread. Two entries that differ only in where their
// content lies are the same. An error is yielded last.
func Diff(ctx context.Context, a, b *Tree) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		x, y := cursor{t: a}, cursor{t: b}
		for !x.end() || !y.end() {
			if !x.end() && !y.end() && x.whole() && y.whole() && x.desc().ID == y.desc().ID {
				x.skip()
				y.skip()
				continue
			}
			order := compare(&x, &y)
			c, err := step(ctx, &x, &y, order)
			if err != nil {
				yield(Change{}, err)
				return
			}
			if c != nil && !yield(*c, nil) {
				return
			}
		}
	}
}

// compare says which of two cursors has the smaller path; one at its end has none.
func compare(x, y *cursor) int {
	switch {
	case x.end():
		return 1
	case y.end():
		return -1
	}
	return bytes.Compare(x.path(), y.path())
}

// step reads the entries at the smaller path, and goes past them.
func step(ctx context.Context, x, y *cursor, order int) (*Change, error) {
	var c Change
	if order <= 0 {
		if err := x.load(ctx); err != nil {
			return nil, err
		}
	}
	if order >= 0 {
		if err := y.load(ctx); err != nil {
			return nil, err
		}
	}
	if order == 0 && bytes.Equal(x.d.raw(x.at), y.d.raw(y.at)) {
		x.next()
		y.next()
		return nil, nil
	}
	if order <= 0 {
		e := x.d.entry(x.at)
		c.Path, c.Old = e.Path, &e
		x.next()
	}
	if order >= 0 {
		e := y.d.entry(y.at)
		c.Path, c.New = e.Path, &e
		y.next()
	}
	if order == 0 && c.Old.Same(c.New) {
		return nil, nil
	}
	return &c, nil
}

// cursor is a place in a tree.
type cursor struct {
	t  *Tree
	i  int        // of the range
	d  *rangeData // nil: at its start, not read
	at int        // in d
}

func (c *cursor) end() bool   { return c.i == len(c.t.ranges) }
func (c *cursor) desc() Range { return c.t.ranges[c.i] }

// whole says whether nothing of the range is passed yet.
func (c *cursor) whole() bool { return c.d == nil || c.at == 0 }

func (c *cursor) path() []byte {
	if c.d == nil {
		return []byte(c.desc().First)
	}
	return c.d.path(c.at)
}

func (c *cursor) load(ctx context.Context) (err error) {
	if c.d == nil {
		c.d, err = c.t.repo.load(ctx, c.desc())
	}
	return err
}

func (c *cursor) next() {
	if c.at++; c.at == c.d.len() {
		c.skip()
	}
}

// skip goes to the next range.
func (c *cursor) skip() { c.i, c.d, c.at = c.i+1, nil, 0 }
