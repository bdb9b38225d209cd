package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
)

// PublishOptions goes with Publish and PublishCopy.
type PublishOptions struct {
	Base      string // version the content is based on; empty: the name must be free
	Attr      Attr
	Exclusive bool // ErrExist instead of the conflict policy where the name is taken
	Replace   bool // whatever is there is replaced: no condition (rename, copy onto)
}

// publication is a file on its way into the bucket.
type publication struct {
	place
	caps     backend.Caps
	opts     PublishOptions
	size     int64
	metadata map[string]string

	// put stores the content under a key; ErrPrecondition.
	put func(ctx context.Context, key string, opts backend.PutOptions) (backend.Info, error)
	// same says whether an object has the content.
	same func(ctx context.Context, object backend.Info) (bool, error)
}

// Publish stores a whole file. See PublishOptions. On a lost race the policy
// decides; with KeepBoth the content is stored beside and the error wraps
// ErrStale and is a *ConflictError. Where the base is not changed but gone,
// KeepBoth makes the file anew under its own name: nothing is lost by that.
// Finding exactly the same bytes and attributes published already is success,
// except with Exclusive.
//
// A directory of that name is not looked for: the caller has looked the name
// up. In a bucket where both can be, the file is then shown as an escaped
// sibling.
func (s *Store) Publish(ctx context.Context, p Path, src backend.Source, opts PublishOptions) (Entry, error) {
	return s.publishAs(ctx, p, ModeRegular, src, opts)
}

func (s *Store) publishAs(ctx context.Context, p Path, kind uint32, src backend.Source, opts PublishOptions) (Entry, error) {
	pub, err := s.publication(ctx, p, kind, src.Size(), opts)
	if err != nil {
		return Entry{}, err
	}
	pub.put = func(ctx context.Context, key string, opts backend.PutOptions) (backend.Info, error) {
		return s.put(ctx, pub.caps, key, src, opts)
	}
	pub.same = func(ctx context.Context, object backend.Info) (bool, error) {
		return s.sameBytes(ctx, object, src)
	}
	return s.publish(ctx, pub)
}

// PublishCopy is Publish with the content of another object of the bucket
// (from.Read(source, version)), copied by the store where it can. ErrStale
// also where the source has another version or is gone.
func (s *Store) PublishCopy(ctx context.Context, from *Store, source Path, version string, size int64, p Path, opts PublishOptions) (Entry, error) {
	pub, err := s.publication(ctx, p, ModeRegular, size, opts)
	if err != nil {
		return Entry{}, err
	}
	pl, err := from.place(source)
	if err != nil {
		return Entry{}, err
	}
	src := backend.Info{Key: pl.key, ETag: version, Size: size}
	pub.put = func(ctx context.Context, key string, opts backend.PutOptions) (backend.Info, error) {
		return s.transfer(ctx, pub.caps, src, key, opts, false)
	}
	pub.same = func(ctx context.Context, object backend.Info) (bool, error) {
		return s.sameObjects(ctx, object, src)
	}
	return s.publish(ctx, pub)
}

func (s *Store) publication(ctx context.Context, p Path, kind uint32, size int64, opts PublishOptions) (publication, error) {
	caps, err := s.change(ctx)
	if err != nil {
		return publication{}, err
	}
	pl, err := s.place(p)
	if err != nil {
		return publication{}, err
	}
	if p.IsRoot() {
		return publication{}, fmt.Errorf("publish the root: %w", ErrIsDir)
	}
	if opts.Base == "" || pl.hollow() {
		if err := pl.creatable(); err != nil {
			return publication{}, err
		}
	}
	if !caps.Metadata && kind != ModeRegular {
		return publication{}, fmt.Errorf("%q: %w: this store keeps no metadata to say what is not a regular file", p, ErrUnsupported)
	}
	opts.Replace = (opts.Replace || s.opts.Policy == Overwrite) && !opts.Exclusive
	opts.Attr = opts.Attr.normal(kind)
	metadata := s.opts.encode(opts.Attr, true)
	if opts.Exclusive {
		metadata[metaNonce] = nonce()
	}
	return publication{place: pl, caps: caps, opts: opts, size: size, metadata: metadata}, nil
}

// attempts bounds how often a change is tried again that somebody else's came
// before.
const attempts = 5

// condition is that of the first attempt.
func (pub publication) condition() backend.Cond {
	switch {
	case pub.opts.Replace:
		return backend.Cond{}
	case pub.opts.Exclusive, pub.opts.Base == "":
		return backend.Cond{IfAbsent: true}
	}
	return backend.Cond{IfMatch: pub.opts.Base}
}

func (s *Store) publish(ctx context.Context, pub publication) (Entry, error) {
	cond := pub.condition()
	for range attempts {
		info, err := pub.put(ctx, pub.key, pub.putOptions(cond))
		if err == nil {
			return s.published(pub, info), nil
		}
		if errors.Is(err, backend.ErrBadKey) {
			return Entry{}, s.badKey(ctx, pub.place, pub.opts.Exclusive)
		}
		if !errors.Is(err, backend.ErrPrecondition) || errors.Is(err, errSource) {
			return Entry{}, fail("publish", pub.path, err)
		}
		current, statErr := s.b.Stat(ctx, pub.key)
		switch {
		case errors.Is(statErr, backend.ErrNotExist):
			// Removed by somebody else. With a version to replace, that is a
			// conflict in which only one of the two has any content.
			if cond.IfMatch != "" && s.opts.Policy == Fail {
				return Entry{}, &ConflictError{Path: pub.path}
			}
			if cond.IfAbsent && !pub.caps.ObjectPrefix {
				// Some such stores call a directory of that name a lost
				// condition.
				if err := s.directoryAt(ctx, pub.place, pub.opts.Exclusive); err != nil {
					return Entry{}, err
				}
			}
			cond = backend.Cond{IfAbsent: true}
			continue
		case statErr != nil:
			return Entry{}, fail("publish", pub.path, statErr)
		}
		won, err := s.alreadyThere(ctx, pub, current, errors.Is(err, backend.ErrAmbiguous))
		if err != nil {
			return Entry{}, fail("publish", pub.path, err)
		}
		if won {
			return s.fileFound(pub.path, current).Entry, nil
		}
		if pub.opts.Exclusive {
			return Entry{}, fmt.Errorf("%q: %w", pub.path, ErrExist)
		}
		return Entry{}, s.conflict(ctx, pub)
	}
	return Entry{}, fmt.Errorf("publish %q: it comes and goes: %w", pub.path, ErrStale)
}

func (pub publication) putOptions(cond backend.Cond) backend.PutOptions {
	return backend.PutOptions{Cond: cond, Metadata: pub.metadata, ContentType: pub.opts.Attr.ContentType}
}

// published is the entry of what has just been stored.
func (s *Store) published(pub publication, info backend.Info) Entry {
	return s.stored(pub.path, pub.caps, info, pub.size, pub.metadata, pub.opts.Attr.ContentType)
}

// stored is the entry that a lookup of an object would give, which an answer
// to a change does not tell in full.
func (s *Store) stored(p Path, caps backend.Caps, info backend.Info, size int64, metadata map[string]string, contentType string) Entry {
	if !caps.Metadata {
		metadata = nil
	}
	if info.ModTime.IsZero() {
		info.ModTime = time.Now()
	}
	info.Size, info.Metadata, info.ContentType, info.Date = size, metadata, contentType, time.Time{}
	return s.fileFound(p, info).Entry
}

// alreadyThere says whether the object that is in the way is the publication
// itself, since an answer got lost on an earlier attempt.
func (s *Store) alreadyThere(ctx context.Context, pub publication, current backend.Info, ambiguous bool) (bool, error) {
	if pub.opts.Exclusive {
		// The bytes say nothing: everybody begins with an empty file.
		return ambiguous && pub.caps.Metadata && current.Metadata[metaNonce] == pub.metadata[metaNonce], nil
	}
	if current.Size != pub.size || pub.caps.Metadata && !sameAttributes(current.Metadata, pub.metadata) {
		return false, nil
	}
	return pub.same(ctx, current)
}

// sameObjects says whether two objects have the same content. It may read both.
func (s *Store) sameObjects(ctx context.Context, a, b backend.Info) (bool, error) {
	if a.Size != b.Size || a.ETag == b.ETag {
		return a.Size == b.Size, nil
	}
	var sums [2][]byte
	for i, info := range []backend.Info{a, b} {
		err := s.b.Get(ctx, info.Key, backend.GetOptions{IfMatch: info.ETag}, func(_ backend.Info, body io.Reader) error {
			h := sha256.New()
			_, err := io.Copy(h, body)
			sums[i] = h.Sum(nil)
			return err
		})
		if errors.Is(err, backend.ErrPrecondition) || errors.Is(err, backend.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return bytes.Equal(sums[0], sums[1]), nil
}

// directoryAt returns ErrIsDir, or for an exclusive create ErrExist, where
// there is a directory at a place.
func (s *Store) directoryAt(ctx context.Context, pl place, exclusive bool) error {
	below, err := s.peek(ctx, pl.dir, 1)
	switch {
	case err != nil || len(below) == 0:
		return err
	case exclusive:
		return fmt.Errorf("%q: %w", pl.path, ErrExist)
	}
	return fmt.Errorf("%q: %w", pl.path, ErrIsDir)
}

// badKey finds out why a bucket cannot hold a new key.
func (s *Store) badKey(ctx context.Context, pl place, exclusive bool) error {
	if err := s.directoryAt(ctx, pl, exclusive); err != nil {
		return err
	}
	// A parent that is a file.
	for dir := pl.path.Dir(); !dir.IsRoot(); dir = dir.Dir() {
		_, err := s.Head(ctx, dir)
		if err == nil {
			return fmt.Errorf("%q: %q: %w", pl.path, dir, ErrNotDir)
		}
		if !errors.Is(err, ErrNotExist) {
			return err
		}
	}
	for component := range strings.SplitSeq(pl.key, "/") {
		if len(component) > MaxName {
			return fmt.Errorf("%q: a component of its key has %d bytes: %w", pl.path, len(component), ErrNameTooLong)
		}
	}
	return fmt.Errorf("%q cannot be in this store: %w", pl.path, ErrBadName)
}
