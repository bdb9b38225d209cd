package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
)

const (
	// batchSize is how many objects one request deletes.
	batchSize = 1000
	// batchesAtOnce is how many such requests are on the wire.
	batchesAtOnce = 4
	// fewDeletions are sent one by one where that keeps their conditions and
	// a batch does not.
	fewDeletions = 4
)

// erase removes objects from the bucket: whatever a removal, a rename or a
// batch takes away goes through here. The result has one entry for each, nil
// where it is gone or never was there, backend.ErrPrecondition where another
// version than IfMatch is there, which stays. The error is the first that is
// not about one object alone.
//
// Many go by batches, markers of directories after all that may be in them.
// Where batches have no conditions, the versions are compared with a listing just
// before: what somebody writes between the two is lost, as FORMAT.md says.
func (s *Store) erase(ctx context.Context, caps backend.Caps, objects []backend.Deletion) ([]error, error) {
	errs := make([]error, len(objects))
	_, batches := backend.As[backend.BatchDeleter](s.b)
	if !batches || len(objects) == 1 || len(objects) <= fewDeletions && caps.CondDelete && !caps.CondBatch {
		err := backend.Parallel(ctx, copiesAtOnce, indexes(objects), func(ctx context.Context, i int) error {
			errs[i] = gone(s.eraseOne(ctx, caps, objects[i]))
			return ctx.Err()
		})
		return errs, err
	}
	order := indexes(objects) // of the keys, so that few listings compare them
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(objects[a].Key, objects[b].Key) })
	var files, markers []int
	for _, i := range order {
		if strings.HasSuffix(objects[i].Key, "/") {
			markers = append(markers, i)
		} else {
			files = append(files, i)
		}
	}
	if len(objects) <= batchSize {
		files, markers = append(files, markers...), nil
	}
	for _, some := range [][]int{files, markers} {
		batches := slices.Collect(slices.Chunk(some, batchSize))
		err := backend.Parallel(ctx, batchesAtOnce, batches, func(ctx context.Context, batch []int) error {
			return s.eraseBatch(ctx, caps, objects, batch, errs)
		})
		if err != nil {
			return errs, err
		}
	}
	return errs, nil
}

// eraseOne removes one object: backend.ErrPrecondition, backend.ErrNotExist.
func (s *Store) eraseOne(ctx context.Context, caps backend.Caps, object backend.Deletion) error {
	cond := backend.Cond{IfMatch: object.IfMatch}
	if !caps.CondDelete {
		if err := s.check(ctx, object.Key, cond); err != nil {
			return err
		}
		cond = backend.Cond{}
	}
	return s.b.Delete(ctx, object.Key, cond)
}

// gone is the error of a removal without that of what is not there.
func gone(err error) error {
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// eraseBatch removes those of the objects by one request, at most batchSize.
func (s *Store) eraseBatch(ctx context.Context, caps backend.Caps, objects []backend.Deletion, send []int, errs []error) error {
	if !caps.CondBatch {
		var err error
		if send, err = s.compare(ctx, objects, send, errs); err != nil {
			return err
		}
	}
	if len(send) == 0 {
		return nil
	}
	batch := make([]backend.Deletion, len(send))
	for n, i := range send {
		if batch[n] = objects[i]; !caps.CondBatch {
			batch[n].IfMatch = ""
		}
	}
	deleter, _ := backend.As[backend.BatchDeleter](s.b)
	results, err := deleter.DeleteBatch(ctx, batch)
	if err != nil {
		return err
	}
	for n, i := range send {
		if err = results[n]; errors.Is(err, backend.ErrThrottled) || errors.Is(err, backend.ErrTransient) {
			err = s.b.Delete(ctx, batch[n].Key, backend.Cond{IfMatch: batch[n].IfMatch}) // which is tried again, with patience
		}
		errs[i] = gone(err)
	}
	return nil
}

// compare returns which of the objects are there, and in the version that is
// to go; the errors of others are set.
func (s *Store) compare(ctx context.Context, objects []backend.Deletion, batch []int, errs []error) ([]int, error) {
	var keys []string
	for _, i := range batch {
		if o := objects[i]; o.IfMatch != "" {
			keys = append(keys, o.Key)
		}
	}
	current, err := s.versions(ctx, keys)
	if err != nil {
		return nil, err
	}
	var send []int
	for _, i := range batch {
		o := objects[i]
		version, there := current[o.Key]
		switch {
		case o.IfMatch == "" || version == o.IfMatch:
			send = append(send, i)
		case there:
			errs[i] = backend.Fail("delete", o.Key, backend.ErrPrecondition, nil)
		}
	}
	return send, nil
}

// versions asks which of the keys are there, and in which version: by one
// listing where they lie close together, else one by one.
func (s *Store) versions(ctx context.Context, keys []string) (map[string]string, error) {
	current := map[string]string{}
	if len(keys) == 0 {
		return current, nil
	}
	keys = slices.Sorted(slices.Values(keys))
	first, last := keys[0], keys[len(keys)-1]
	opts := backend.ListOptions{Prefix: first[:sharedPrefix(first, last)]}
	if after := first[:len(first)-1]; s.b.Caps().ListAfter && after > opts.Prefix {
		opts.After = after
	}
	for range 2 + 2*len(keys)/batchSize {
		page, err := s.b.ListPage(ctx, opts)
		if err != nil {
			return nil, err
		}
		for _, info := range page.Objects {
			current[info.Key] = info.ETag
		}
		n := len(page.Objects)
		if page.Next == "" || n > 0 && page.Objects[n-1].Key >= last {
			return current, nil
		}
		if n > 0 {
			i, _ := slices.BinarySearch(keys, page.Objects[n-1].Key+"\x00")
			keys = keys[i:]
		}
		opts.Token, opts.After = page.Next, ""
	}
	found := make([]backend.Info, len(keys))
	err := backend.Parallel(ctx, copiesAtOnce, indexes(keys), func(ctx context.Context, i int) (err error) {
		found[i], err = s.b.Stat(ctx, keys[i])
		return gone(err)
	})
	for i, info := range found {
		if info.ETag != "" {
			current[keys[i]] = info.ETag
		}
	}
	return current, err
}

// sharedPrefix is the length of what both begin with.
func sharedPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func indexes[T any](items []T) []int {
	all := make([]int, len(items))
	for i := range all {
		all[i] = i
	}
	return all
}

// Removal is a name on its way out.
type Removal struct {
	Path    Path
	Version string // of a file: it goes only as this version; empty: whatever it is
	Dir     bool   // a directory: its marker goes, and what is in it stays
}

// RemoveAll removes many names at once, without looking at them first: the
// caller has, and says which versions it has seen. The result has one entry
// for each, nil where the name is gone, ErrStale where another version is
// there, which stays. What others have put into a directory keeps it. Parents
// live on, but for those that are gone, though they are not among these.
func (s *Store) RemoveAll(ctx context.Context, all []Removal, gone func(Path) bool) ([]error, error) {
	caps, err := s.change(ctx)
	if err != nil {
		return nil, err
	}
	places := make([]place, len(all))
	objects := make([]backend.Deletion, len(all))
	for i, r := range all {
		if places[i], err = s.place(r.Path); err != nil {
			return nil, err
		}
		if objects[i] = (backend.Deletion{Key: places[i].key, IfMatch: r.Version}); r.Dir {
			objects[i] = backend.Deletion{Key: places[i].dir}
		}
	}
	if err := s.keepParents(ctx, caps, places, objects, gone); err != nil {
		return nil, err
	}
	errs, err := s.erase(ctx, caps, objects)
	for i, e := range errs {
		if errs[i] = stale("remove", all[i].Path, e); all[i].Dir {
			s.forget(places[i].dir)
		}
	}
	return errs, err
}

// keepParents gives a marker to each directory that would vanish with what is
// about to go, unless it is gone itself: once, however many go.
func (s *Store) keepParents(ctx context.Context, caps backend.Caps, places []place, objects []backend.Deletion, gone func(Path) bool) error {
	going := map[string]bool{}
	for _, o := range objects {
		going[o.Key] = true
	}
	losses := map[Path]int{}
	for _, pl := range places {
		if !pl.shadow {
			losses[pl.path.Dir()]++
		}
	}
	var look []Path
	for dir, n := range losses {
		pl, err := s.place(dir)
		if err != nil {
			return err
		}
		if pl.dir != "" && !going[pl.dir] && !gone(dir) && !s.spend(pl.dir, n) {
			look = append(look, dir)
		}
	}
	return backend.Parallel(ctx, copiesAtOnce, look, func(ctx context.Context, dir Path) error {
		pl, err := s.place(dir)
		if err != nil {
			return err
		}
		last, err := s.losesAll(ctx, pl, func(key string) bool { return going[key] })
		if err == nil && last {
			err = s.keepDir(ctx, caps, dir)
		}
		return err
	})
}

// losesAll says whether a directory has no marker, and nothing but what goes:
// keys, those of directories with a '/' at the end.
func (s *Store) losesAll(ctx context.Context, pl place, goes func(key string) bool) (bool, error) {
	opts := backend.ListOptions{Prefix: pl.dir, Delimited: true}
	for {
		asked := time.Now()
		page, err := s.b.ListPage(ctx, opts)
		if err != nil {
			return false, err
		}
		others := 0
		for _, info := range page.Objects {
			if info.Key == pl.dir && info.Size == 0 {
				s.noteMarker(pl.dir)
				return false, nil
			}
			if !goes(info.Key) {
				others++
			}
		}
		for _, prefix := range page.Prefixes {
			if !goes(prefix) {
				others++
			}
		}
		s.noteOthers(pl.dir, others, asked)
		if others > 0 || page.Next == "" {
			return others == 0, nil
		}
		opts.Token = page.Next
	}
}

// CheckEmpty returns nil for a directory in which the bucket has nothing but
// names that are gone; ErrNotEmpty, ErrNotDir, ErrNotExist.
func (s *Store) CheckEmpty(ctx context.Context, dir Path, gone func(name string) bool) error {
	pl, err := s.place(dir)
	if err != nil {
		return err
	}
	if pl.shadow {
		return fmt.Errorf("%q: %w", dir, ErrNotDir)
	}
	nothing := true
	for e, err := range backend.List(ctx, s.b, pl.dir) {
		if err != nil {
			return fail("list", dir, err)
		}
		nothing = false
		component := strings.TrimSuffix(strings.TrimPrefix(e.Key, pl.dir), "/")
		beside, _ := shadowName(component)
		if e.Key == pl.dir && e.Size == 0 || gone(displayName(component)) || !e.Prefix && gone(beside) {
			continue
		}
		return fmt.Errorf("%q: %w", dir, ErrNotEmpty)
	}
	if nothing {
		return s.existsEmpty(ctx, pl)
	}
	return nil
}

// Hides says whether a directory is known to have keys in it that the mount
// cannot show.
func (s *Store) Hides(dir Path) bool {
	pl, err := s.place(dir)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.unnameable {
		if strings.HasPrefix(key, pl.dir) {
			return true
		}
	}
	return false
}
