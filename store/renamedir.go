package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// copiesAtOnce is how many objects of a directory are copied at a time.
const copiesAtOnce = 64

// renameDir copies everything below a directory, its marker included and keys
// that cannot be shown as well, and then deletes exactly what was copied. Up to
// the first deletion the old directory is whole, and from then on the new one.
//
// What others change in the old directory meanwhile is copied too. Where the
// store's batches have conditions, each object is deleted in the version that
// was copied, so that nothing is lost which somebody writes at the last moment;
// elsewhere a write between the last listing and the deletion is lost.
//
// The objects are copied as they are, without a look at each: one that has no
// time of its own has that of the copy afterwards. replaces: dst is an empty
// directory with a marker.
func (s *Store) renameDir(ctx context.Context, caps backend.Caps, src, dst place, replaces bool, seen Seen) error {
	m := s.newDirMove(caps, src, dst)
	m.progress = seen.Progress
	err := m.copyAll(ctx)
	if err == nil && len(m.copied) > 0 && seen.Copied != nil {
		err = seen.Copied()
	}
	if err != nil {
		err = stale("rename", src.path, err)
		if !m.undo(ctx) {
			err = &UnfinishedError{Back: true, Err: err}
		}
		return err
	}
	if len(m.copied) == 0 {
		return fmt.Errorf("rename %q: %w", src.path, ErrNotExist)
	}
	if _, ok := m.copied[src.dir]; !ok && replaces {
		// The attributes are those of the directory that was moved, which has
		// none, not those of the one that was replaced.
		if err := s.b.Delete(ctx, dst.dir, backend.Cond{}); err != nil {
			return &UnfinishedError{Err: fail("rename", dst.path, err)}
		}
	}
	return m.finish(ctx, src)
}

// UnfinishedError is that of a directory rename that has left something under
// both names, and goes on by FinishRename.
type UnfinishedError struct {
	Back bool // nothing has left the old name: what is under the new one is to go
	Err  error
}

func (e *UnfinishedError) Error() string { return e.Err.Error() + "; it is not finished" }
func (e *UnfinishedError) Unwrap() error { return e.Err }

// FinishRename ends the rename of a directory that was cut off, whoever began
// it, without a plan of its own: an object that has one with the same content
// at its new name, which is not older, was copied. Forward, what is not copied yet is, and the
// old names go; back, the copies go. Where the new name has something else by
// now, both stay as they are. There is nothing to do where no copy is
// found. copied is called before the old names go.
func (s *Store) FinishRename(ctx context.Context, from, to Path, back bool, copied func() error) error {
	caps, err := s.change(ctx)
	if err != nil {
		return err
	}
	src, err := s.place(from)
	if err != nil {
		return err
	}
	dst, err := s.place(to)
	if err != nil {
		return err
	}
	m := s.newDirMove(caps, src, dst)
	begun, err := m.resume(ctx)
	if err != nil || !begun {
		return fail("finish the rename of", from, err)
	}
	if back {
		if !m.undo(ctx) {
			return fmt.Errorf("rename %q back: copies are left under %q: %w", from, to, backend.ErrTransient)
		}
		return nil
	}
	last, err := s.lastIn(ctx, src)
	if err == nil && last {
		err = s.keepDir(ctx, caps, from.Dir())
	}
	if err == nil {
		err = m.copyAll(ctx)
	}
	if err == nil {
		err = copied()
	}
	if err != nil {
		return stale("finish the rename of", from, err)
	}
	return m.finish(ctx, src)
}

func (s *Store) newDirMove(caps backend.Caps, src, dst place) *dirMove {
	return &dirMove{Store: s, caps: caps, from: src.dir, to: dst.dir, copied: map[string]string{}, made: map[string]string{}, theirs: map[string]bool{}}
}

// finish deletes what was copied, and copies what somebody changes meanwhile.
func (m *dirMove) finish(ctx context.Context, src place) error {
	m.forgetTree(m.from)
	m.forgetTree(m.to)
	for range attempts {
		switch kept, err := m.deleteCopied(ctx); {
		case err != nil:
			return &UnfinishedError{Err: fail("rename", src.path, err)}
		case !kept:
			return nil
		}
		if err := m.copyAll(ctx); err != nil {
			return &UnfinishedError{Err: stale("rename", src.path, err)}
		}
	}
	return &UnfinishedError{Err: fmt.Errorf("rename %q: it changes all the time: %w", src.path, ErrStale)}
}

// resume finds out what has been copied. begun: something has, and is under
// both names; else nothing is known to have to do with the rename.
func (m *dirMove) resume(ctx context.Context) (begun bool, err error) {
	there := map[string]backend.Info{}
	for info, err := range backend.ListRecursive(ctx, m.b, m.to) {
		if err != nil {
			return false, err
		}
		there[info.Key] = info
	}
	var both []backend.Info
	markers := true // it has nothing else
	for info, err := range backend.ListRecursive(ctx, m.b, m.from) {
		if err != nil {
			return false, err
		}
		markers = markers && strings.HasSuffix(info.Key, "/")
		if _, ok := there[m.target(info.Key)]; ok {
			both = append(both, info)
		}
	}
	err = backend.Parallel(ctx, copiesAtOnce, both, func(ctx context.Context, info backend.Info) error {
		now := there[m.target(info.Key)]
		same := !info.ModTime.After(now.ModTime) // else it was written after the copy
		if same {
			var err error
			if same, err = m.sameObjects(ctx, info, now); err != nil {
				return err
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if same {
			m.copied[info.Key], m.made[info.Key] = info.ETag, now.ETag
			return nil
		}
		m.theirs[info.Key] = true
		m.log.Warn("a rename that was cut off leaves a file where it was: its new name has another content by now",
			"store", m.BackendName(), "key", info.Key, "new", now.Key)
		return nil
	})
	for key := range m.copied {
		begun = begun || markers || !strings.HasSuffix(key, "/")
	}
	return begun, err
}

// dirMove is one directory on its way.
type dirMove struct {
	*Store
	caps     backend.Caps
	from, to string // prefixes
	progress func(done, of int)
	theirs   map[string]bool // keys of from that stay: the new name has something else

	mu     sync.Mutex
	listed int               // objects of from
	copied map[string]string // by key of from: the version that was listed when it was copied
	made   map[string]string // by key of from: the version that its copy is
}

// target is the new key of a key of from.
func (m *dirMove) target(key string) string { return m.to + strings.TrimPrefix(key, m.from) }

// copyAll copies until nothing is new.
func (m *dirMove) copyAll(ctx context.Context) error {
	if !m.caps.Copy { // what is sent anew has its times in its attributes
		if err := m.markAttrs(ctx, m.caps); err != nil { // once, not by each copy
			return err
		}
	}
	for range attempts {
		var todo []backend.Info
		listed := map[string]bool{}
		for info, err := range backend.ListRecursive(ctx, m.b, m.from) {
			if err != nil {
				return err
			}
			if limit := m.caps.MaxKey; limit > 0 && len(m.target(info.Key)) > limit {
				return fmt.Errorf("%q: its new key would be too long: %w", info.Key, ErrNameTooLong)
			}
			listed[info.Key] = true
			if m.theirs[info.Key] {
				continue
			}
			if m.copied[info.Key] != info.ETag {
				todo = append(todo, info)
			}
		}
		m.mu.Lock()
		m.listed = len(listed)
		m.mu.Unlock()
		if len(todo) == 0 {
			return m.forgetRemoved(ctx, listed)
		}
		// Markers come last: all of them look alike, so that they do not show
		// to whoever finishes this that something was copied.
		isMarker := func(info backend.Info) bool { return strings.HasSuffix(info.Key, "/") }
		files := slices.DeleteFunc(slices.Clone(todo), isMarker)
		markers := slices.DeleteFunc(todo, func(info backend.Info) bool { return !isMarker(info) })
		for _, some := range [][]backend.Info{files, markers} {
			if err := backend.Parallel(ctx, copiesAtOnce, some, m.copy); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("it changes all the time: %w", ErrStale)
}

// forgetRemoved removes the copies of what somebody else removed meanwhile.
func (m *dirMove) forgetRemoved(ctx context.Context, listed map[string]bool) error {
	for key := range m.copied {
		if listed[key] {
			continue
		}
		err := m.eraseOne(ctx, m.caps, backend.Deletion{Key: m.target(key), IfMatch: m.made[key]})
		if err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrPrecondition) {
			return err
		}
		delete(m.copied, key)
		delete(m.made, key)
	}
	return nil
}

// undo removes the copies; false where some may be left. A marker stays: what
// it belongs to may have been there before.
func (m *dirMove) undo(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	delete(m.made, m.from)
	keys := slices.Collect(maps.Keys(m.made))
	objects := make([]backend.Deletion, len(keys))
	for i, key := range keys {
		objects[i] = backend.Deletion{Key: m.target(key), IfMatch: m.made[key]}
	}
	errs, err := m.erase(ctx, m.caps, objects)
	for _, e := range errs {
		if e != nil && !errors.Is(e, backend.ErrPrecondition) {
			err = e
		}
	}
	if err != nil {
		m.log.Warn("copies are left in the store", "store", m.BackendName(), "prefix", m.to, "err", err)
	}
	return err == nil
}

// copy copies one object. One that is gone by now is not an error.
func (m *dirMove) copy(ctx context.Context, listed backend.Info) error {
	dst, info := m.target(listed.Key), listed
	m.mu.Lock()
	_, again := m.copied[listed.Key]
	m.mu.Unlock()
	for range attempts {
		var opts backend.PutOptions
		if !again && dst != m.to { // the marker of an empty directory is replaced
			opts.Cond.IfAbsent = true
		}
		made, err := m.transfer(ctx, m.caps, info, dst, opts, true)
		if errors.Is(err, errSource) {
			info, err = m.b.Stat(ctx, listed.Key)
			if errors.Is(err, backend.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info.Metadata = nil
			continue
		}
		if errors.Is(err, backend.ErrAmbiguous) {
			if now, statErr := m.b.Stat(ctx, dst); statErr == nil {
				same, sameErr := m.sameObjects(ctx, now, info)
				if sameErr != nil {
					return sameErr
				}
				if same {
					made, err = now, nil
				}
			}
		}
		if errors.Is(err, backend.ErrPrecondition) {
			return fmt.Errorf("%q is there by now: %w", dst, ErrNotEmpty)
		}
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.copied[listed.Key], m.made[listed.Key] = info.ETag, made.ETag
		if m.progress != nil {
			m.progress(len(m.copied), m.listed)
		}
		return nil
	}
	return fmt.Errorf("%q changes all the time: %w", listed.Key, ErrStale)
}

// deleteCopied deletes what was copied. kept says that somebody has written to
// some of it since, which is still there.
func (m *dirMove) deleteCopied(ctx context.Context) (kept bool, err error) {
	keys := slices.Sorted(maps.Keys(m.copied))
	// The marker, which sorts first, goes last: so the directory stays one.
	slices.Reverse(keys)
	objects := make([]backend.Deletion, len(keys))
	for i, key := range keys {
		if objects[i].Key = key; m.caps.CondBatch || !m.batches() || m.caps.CondDelete && len(keys) <= fewDeletions {
			objects[i].IfMatch = m.copied[key]
		}
	}
	errs, err := m.erase(ctx, m.caps, objects)
	for i, key := range keys {
		switch e := errs[i]; {
		case e == nil && err != nil: // it may be there or not
		case e == nil:
			// The copy is the only one now, which nothing may take back.
			delete(m.copied, key)
			delete(m.made, key)
		case errors.Is(e, backend.ErrPrecondition):
			kept = true
		case err == nil:
			err = fmt.Errorf("delete %q: %w", key, e)
		}
	}
	return kept, err
}

// batches says whether many are deleted by one request.
func (m *dirMove) batches() bool {
	_, ok := backend.As[backend.BatchDeleter](m.b)
	return ok
}
