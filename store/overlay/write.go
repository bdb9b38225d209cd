package overlay

import (
	"context"
	"errors"

	"github.com/keifs/keifs/backend"
)

// change is one object of a branch about to be written or deleted.
type change struct {
	*layer
	v    *view
	rel  string
	key  string
	base *Object // what the branch's base has there, whether it is hidden or not

	version string // of a deletion: the one that is to go; empty: any
}

// change looks up what has to be known for a change; nil for keys outside of
// branches.
func (b *Bucket) change(ctx context.Context, op, key string) (*change, error) {
	l, rel := b.at(key)
	if l == nil {
		return nil, nil
	}
	v, err := l.reading(ctx)
	if err != nil {
		return nil, err
	}
	c := &change{layer: l, v: v, rel: rel, key: key}
	if v.frozen {
		return nil, backend.Fail(op, key, backend.ErrPermission, errors.New("a commit never changes"))
	}
	if v.base == nil {
		return c, nil
	}
	o, ok, err := v.base.Lookup(ctx, rel)
	if ok {
		c.base = &o
	}
	return c, err
}

// shown says whether the base's object shows where there is no plain one.
func (c *change) shown(ctx context.Context) (bool, error) {
	if c.base == nil {
		return false, nil
	}
	w, err := c.whiteouts(ctx, c.rel)
	return err == nil && !w.hides(c.rel), err
}

// publish runs put with the condition that cond, of the branch, is for the
// plain object.
func (c *change) publish(ctx context.Context, op string, cond backend.Cond, put func(context.Context, backend.Cond) (backend.Info, error)) (backend.Info, error) {
	if err := c.nests(ctx, op); err != nil {
		return backend.Info{}, err
	}
	guarded := func(cond backend.Cond) (info backend.Info, err error) {
		err = c.guard(ctx, op, cond, func(ctx context.Context, cond backend.Cond) (err error) {
			info, err = put(ctx, cond)
			return err
		})
		return info, err
	}
	over := c.base != nil && (cond.IfAbsent || cond.IfMatch == c.base.ETag)
	if !over {
		return guarded(cond)
	}
	shown, err := c.shown(ctx)
	switch {
	case err != nil:
		return backend.Info{}, err
	case cond.IfAbsent && shown:
		return backend.Info{}, backend.Fail(op, c.key, backend.ErrPrecondition, nil)
	case cond.IfAbsent || !shown:
		return guarded(cond)
	}
	// The version is that of the base, which nothing hides: the plain object
	// is not there, unless it has the same content.
	if !c.Caps().CondCreate {
		// Who called has looked, and the store cannot do better.
		_, err := c.raw.Stat(ctx, c.key)
		if errors.Is(err, backend.ErrNotExist) {
			return guarded(backend.Cond{})
		}
		if err != nil {
			return backend.Info{}, err
		}
		return guarded(cond)
	}
	info, err := guarded(backend.Cond{IfAbsent: true})
	if !errors.Is(err, backend.ErrPrecondition) {
		return info, err
	}
	now, statErr := c.raw.Stat(ctx, c.key)
	if statErr != nil || now.ETag != cond.IfMatch {
		return backend.Info{}, err
	}
	return guarded(cond)
}

// nests returns backend.ErrBadKey, in a bucket that cannot have an object with
// a key that is a prefix of others, where the base would make it one.
func (c *change) nests(ctx context.Context, op string) error {
	if c.v.base == nil || c.Caps().ObjectPrefix {
		return nil
	}
	bad := func() error { return backend.Fail(op, c.key, backend.ErrBadKey, errors.New("object and prefix")) }
	for i := range len(c.rel) {
		if c.rel[i] != '/' || i == 0 {
			continue
		}
		if _, ok, err := c.visible(ctx, c.v, c.rel[:i]); err != nil {
			return err
		} else if ok {
			return bad()
		}
	}
	if c.rel != "" && c.rel[len(c.rel)-1] == '/' {
		return nil
	}
	for _, err := range c.below(ctx, c.v, backend.ListOptions{Prefix: c.key + "/"}, "", "") {
		if err != nil {
			return err
		}
		return bad()
	}
	return nil
}

// Put implements backend.Backend.
func (b *Bucket) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if opts.Cond.IfAbsent && opts.Cond.IfMatch != "" {
		return b.raw.Put(ctx, key, src, opts) // which says what is wrong
	}
	c, err := b.change(ctx, "put", key)
	if err != nil {
		return backend.Info{}, err
	}
	put := func(ctx context.Context, cond backend.Cond) (backend.Info, error) {
		opts := opts
		opts.Cond = cond
		return b.raw.Put(ctx, key, src, opts)
	}
	if c == nil {
		return put(ctx, opts.Cond)
	}
	return c.publish(ctx, "put", opts.Cond, put)
}

// Copy implements backend.Copier. The source may be in any branch or revision.
func (b *Bucket) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	copier, ok := backend.As[backend.Copier](b.raw)
	if !ok {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	if opts.Cond != (backend.Cond{}) && !b.Caps().CondCopy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	sources := []source{{src, opts.SourceETag, opts.SourceVersion}}
	if opts.SourceVersion == "" {
		var err error
		if sources, err = b.sources(ctx, src, opts.SourceETag, opts.Metadata == nil); err != nil {
			return backend.Info{}, err
		}
	}
	c, err := b.change(ctx, "copy", dst)
	if err != nil {
		return backend.Info{}, err
	}
	put := func(ctx context.Context, cond backend.Cond) (backend.Info, error) {
		opts := opts
		opts.Cond = cond
		return fromAny(sources, func(from source) (backend.Info, error) {
			opts.SourceETag, opts.SourceVersion = from.etag, from.version
			return copier.Copy(ctx, from.key, dst, opts)
		})
	}
	if c == nil {
		return put(ctx, opts.Cond)
	}
	// A lesser store must not be asked for conditions it does not know, so
	// nothing is translated where there is none.
	return c.publish(ctx, "copy", opts.Cond, put)
}

// Delete implements backend.Backend. What the base has gets a whiteout first:
// a crash then leaves the old object, or none.
func (b *Bucket) Delete(ctx context.Context, key string, cond backend.Cond) error {
	c, err := b.change(ctx, "delete", key)
	if err != nil {
		return err
	}
	remove := func(ctx context.Context, cond backend.Cond) error { return b.raw.Delete(ctx, key, cond) }
	switch {
	case c == nil || cond.IfAbsent:
		return remove(ctx, cond)
	case c.base == nil:
		return c.guard(ctx, "delete", cond, remove)
	}
	c.version = cond.IfMatch
	if plain, err := c.hide(ctx); err != nil || !plain {
		return err
	}
	return c.guard(ctx, "delete", cond, remove)
}

// conditionally checks the condition of a deletion where the base has the key
// too. there says that it is the plain object that has the version.
func (c *change) conditionally(ctx context.Context, version string) (there bool, err error) {
	now, err := c.raw.Stat(ctx, c.key)
	switch {
	case err == nil && now.ETag == version:
		return true, nil
	case err == nil:
		return false, backend.Fail("delete", c.key, backend.ErrPrecondition, nil)
	case !errors.Is(err, backend.ErrNotExist):
		return false, err
	}
	shown, err := c.shown(ctx)
	switch {
	case err != nil:
		return false, err
	case !shown:
		return false, backend.Fail("delete", c.key, backend.ErrNotExist, nil)
	case c.base.ETag != version:
		return false, backend.Fail("delete", c.key, backend.ErrPrecondition, nil)
	}
	return false, nil
}

// atOnce is how many whiteouts or pins are made at a time for one call.
const atOnce = 16

// DeleteBatch implements backend.BatchDeleter.
func (b *Bucket) DeleteBatch(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	deleter, ok := backend.As[backend.BatchDeleter](b.raw)
	if !ok {
		return nil, backend.Fail("delete", "", backend.ErrUnsupported, nil)
	}
	changes := make([]*change, len(objects))
	for i, o := range objects {
		c, err := b.change(ctx, "delete", o.Key)
		if err != nil {
			return nil, err
		}
		if c != nil {
			c.version = o.IfMatch
		}
		changes[i] = c
	}
	errs := make([]error, len(objects))
	plain := make([]bool, len(objects)) // is to be deleted as a plain object
	err := backend.Parallel(ctx, atOnce, indexes(len(objects)), func(ctx context.Context, i int) (err error) {
		plain[i], errs[i] = changes[i].hide(ctx)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var left []int
	var batch []backend.Deletion
	var guarded []*change
	for i := range objects {
		if plain[i] && errs[i] == nil {
			left, batch, guarded = append(left, i), append(batch, objects[i]), append(guarded, changes[i])
		}
	}
	if len(batch) == 0 {
		return errs, nil
	}
	err = guardAll(ctx, guarded, func(ctx context.Context) error {
		results, err := deleter.DeleteBatch(ctx, batch)
		for n, result := range results {
			errs[left[n]] = result
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return errs, nil
}

// hide makes the whiteout for a deletion, if the base has the object. plain
// says that a plain object is still to be deleted.
func (c *change) hide(ctx context.Context) (plain bool, err error) {
	if c == nil || c.base == nil {
		return true, nil
	}
	plain = true
	if c.version != "" {
		if plain, err = c.conditionally(ctx, c.version); err != nil {
			return false, err
		}
	}
	if err := c.cover(ctx, c.rel); err != nil || plain {
		return plain, err
	}
	return c.came(ctx)
}

// came says whether there is a plain object by now where there was none before
// the whiteout was made. That is a copy of the base's by who makes the branch
// independent, who marks the branch first as for a commit: whose whiteout was
// made within Belief of a look at a branch without mark, is seen by him.
func (c *change) came(ctx context.Context) (bool, error) {
	v, err := c.reading(ctx)
	if err != nil {
		return false, err
	}
	if v.ref == nil || v.ref.Committing == "" && v.same(c.v) {
		return false, nil
	}
	_, err = c.raw.Stat(ctx, c.key)
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrBadKey) {
		return false, nil
	}
	return err == nil, err
}

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// Rename implements backend.Renamer, where both names are of branches without
// history: elsewhere a name does not go without a trace.
func (b *Bucket) Rename(ctx context.Context, src, dst string, cond backend.Cond) (backend.Info, error) {
	renamer, ok := backend.As[backend.Renamer](b.raw)
	if !ok {
		return backend.Info{}, backend.Fail("rename", dst, backend.ErrUnsupported, nil)
	}
	from, err := b.change(ctx, "rename", src)
	if err != nil {
		return backend.Info{}, err
	}
	to, err := b.change(ctx, "rename", dst)
	if err != nil {
		return backend.Info{}, err
	}
	var info backend.Info
	rename := func(ctx context.Context) (err error) {
		info, err = renamer.Rename(ctx, src, dst, cond)
		return err
	}
	if from == nil || to == nil {
		err := rename(ctx)
		return info, err
	}
	for _, c := range []*change{from, to} {
		v, err := c.layer.view(ctx, fresh)
		switch {
		case err != nil:
			return backend.Info{}, err
		case v.ref != nil:
			return backend.Info{}, backend.Fail("rename", dst, backend.ErrUnsupported, nil)
		}
	}
	err = guardAll(ctx, []*change{from, to}, rename)
	return info, err
}

// VersionsPage implements backend.Versioner: of the plain objects.
func (b *Bucket) VersionsPage(ctx context.Context, opts backend.ListOptions) (backend.VersionsPage, error) {
	versioner, ok := backend.As[backend.Versioner](b.raw)
	if !ok {
		return backend.VersionsPage{}, backend.Fail("versions", opts.Prefix, backend.ErrUnsupported, nil)
	}
	return versioner.VersionsPage(ctx, opts)
}
