package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
)

// PinKey is where the content of an object is kept once it is overwritten or
// deleted.
func PinKey(key, etag string) string {
	sum := sha256.Sum256([]byte(key + "\x00" + etag))
	return PinDir + hex.EncodeToString(sum[:])
}

// PinOfKey is what makes a pin's key one of its own; ok is false for other keys.
func PinOfKey(key string) (id string, ok bool) {
	id, ok = strings.CutPrefix(key, PinDir)
	return id, ok && commit.ValidID(id)
}

// gone says whether an object is not there, or is another version.
func gone(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrPrecondition) || errors.Is(err, backend.ErrBadKey)
}

// lost is the error where neither the object nor its pin is there.
func lost(o Object) error { return fmt.Errorf("%s of version %s: %w", o.Key, o.ETag, ErrLost) }

// info is the object of a base as it looks in the branch.
func (l *layer) info(o Object) backend.Info {
	return backend.Info{
		Key: l.prefix + o.Rel, Size: o.Size, ETag: o.ETag, ModTime: o.ModTime, VersionID: o.VersionID,
		Metadata: o.Metadata, ContentType: o.ContentType,
	}
}

// describe is info with the metadata, which the content has where the commit
// does not.
func (l *layer) describe(ctx context.Context, o Object) (backend.Info, error) {
	info := l.info(o)
	if info.Metadata != nil {
		return info, nil
	}
	info.Metadata = map[string]string{} // also where the content is lost: who reads it is told
	now, err := l.raw.Stat(ctx, o.Key)
	if err != nil && !gone(err) {
		return backend.Info{}, err
	}
	same := err == nil && now.ETag == o.ETag
	other := !same || !now.ModTime.Equal(o.ModTime) // the same content may have other attributes by now
	if other && o.VersionID != "" {
		version, err := l.describeVersion(ctx, o)
		if err != nil && !gone(err) && !errors.Is(err, backend.ErrUnsupported) {
			return backend.Info{}, err
		}
		if err == nil {
			now, same, other = version, true, false
		}
	}
	if other {
		pin, err := l.raw.Stat(ctx, PinKey(o.Key, o.ETag))
		if err != nil && !gone(err) {
			return backend.Info{}, err
		}
		if err == nil {
			now, same = pin, true
		}
	}
	if same {
		info.Metadata, info.ContentType = now.Metadata, now.ContentType
	}
	return info, nil
}

// describeVersion asks for the metadata of a version by reading a byte of it,
// for which every store that has versions has a request.
func (l *layer) describeVersion(ctx context.Context, o Object) (info backend.Info, err error) {
	opts := backend.GetOptions{VersionID: o.VersionID, IfMatch: o.ETag, Length: 1}
	err = l.raw.Get(ctx, o.Key, opts, func(of backend.Info, _ io.Reader) error {
		info = of
		return nil
	})
	return info, err
}

// fetch reads the content that an object of a commit had: of its version, else
// of the object while it is the same, else of the pin. The pin is made before
// the object is changed, so that it is one of the two.
func (l *layer) fetch(ctx context.Context, o Object, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	var own error
	tell := func(now backend.Info, body io.Reader) error {
		info := l.info(o)
		if info.Metadata == nil {
			info.Metadata, info.ContentType = now.Metadata, now.ContentType
		}
		own = fn(info, body)
		return own
	}
	opts.IfMatch, opts.VersionID = o.ETag, o.VersionID
	err := l.raw.Get(ctx, o.Key, opts, tell)
	missing := func() bool { return own == nil && err != nil && (gone(err) || errors.Is(err, backend.ErrUnsupported)) }
	if o.VersionID != "" && missing() { // versions can be made to expire
		opts.VersionID = ""
		err = l.raw.Get(ctx, o.Key, opts, tell)
	}
	if !missing() {
		return err
	}
	opts.IfMatch = ""
	err = l.raw.Get(ctx, PinKey(o.Key, o.ETag), opts, tell)
	if own == nil && errors.Is(err, backend.ErrNotExist) {
		return lost(o)
	}
	return err
}

// source is a place to copy the content of an object from.
type source struct{ key, etag, version string }

// sources are the places where a version of an object may be, the likeliest
// first. attributes: those of the object are wanted too, which another
// version with the same content need not have.
func (b *Bucket) sources(ctx context.Context, key, etag string, attributes bool) ([]source, error) {
	plain := []source{{key: key, etag: etag}}
	l, rel := b.at(key)
	if l == nil {
		return plain, nil
	}
	v, err := l.reading(ctx)
	if err != nil || v.base == nil {
		return plain, err
	}
	o, ok, err := v.base.Lookup(ctx, rel)
	if err != nil || !ok || etag != "" && o.ETag != etag {
		return plain, err
	}
	base := []source{{o.Key, o.ETag, o.VersionID}, {key: PinKey(o.Key, o.ETag)}}
	if o.VersionID != "" {
		base = slices.Insert(base, 1, source{key: o.Key, etag: o.ETag})
	}
	if v.frozen {
		return base, nil
	}
	if etag == "" { // whatever is there
		_, err := l.raw.Stat(ctx, key)
		if !errors.Is(err, backend.ErrNotExist) {
			return plain, err
		}
		w, err := l.whiteouts(ctx, rel)
		if err != nil || w.hides(rel) {
			return plain, err
		}
		return base, nil
	}
	if attributes {
		return append(plain, base...), nil
	}
	return append(base, plain...), nil
}

// fromAny runs fn on each source until one is there. A condition that failed may
// have been that of the destination, and is told rather than that another
// source is not there.
func fromAny[T any](sources []source, fn func(source) (T, error)) (result T, err error) {
	for i, src := range sources {
		var next error
		result, next = fn(src)
		missing := gone(next) || src.version != "" && errors.Is(next, backend.ErrUnsupported)
		if i == 0 || next == nil || !missing || errors.Is(next, backend.ErrPrecondition) {
			err = next
		}
		if err == nil || !missing {
			return result, err
		}
	}
	return result, err
}
