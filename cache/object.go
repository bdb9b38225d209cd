package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// object is a version of an object whose pieces are cached.
type object struct {
	key, version string
	size         int64
	// read hands fn a range, as backend.Backend.Get.
	read func(ctx context.Context, off, n int64, fn func(io.Reader) error) error
}

// same says whether o and p have the same pieces.
func (o *object) same(p *object) bool { return o.key == p.key && o.version == p.version }

// object is the version as its pieces are cached.
func (o origin) object() (*object, error) {
	key, err := o.store.Key(o.path.String())
	return &object{key: key, version: o.version, size: o.size, read: o.read}, err
}

// readObject fills p from a version of an object, by way of the cache, for
// those reads. The range is within the object.
func (c *Cache) readObject(ctx context.Context, from origin, r *reads, p []byte, off int64) (int, error) {
	o, err := from.object()
	if err != nil {
		return 0, err
	}
	if err := r.readAt(ctx, c.fetch, o, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// read hands fn a range, which is not empty.
func (o origin) read(ctx context.Context, off, n int64, fn func(io.Reader) error) error {
	return o.store.Read(ctx, o.path, o.version, off, n, fn)
}

// readFull is io.ReadFull for a body that must be that long.
func readFull(r io.Reader, into []byte) error {
	_, err := io.ReadFull(r, into)
	return short(err)
}

// short is the error of a body that ended early.
func short(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the object is shorter than the store said", backend.ErrCorrupt)
	}
	return err
}

// download copies a range of a version into a staged file: pieces that are here
// from here, and each run of others by one request.
func (c *Cache) download(ctx context.Context, from origin, into *stagedFile, want store.Range) error {
	if want.Len == 0 {
		return nil
	}
	o, err := from.object()
	if err != nil {
		return err
	}
	buf := make([]byte, min(o.size, diskRead))
	missing := want.Off // begin of the run that are not here
	fetch := func(end int64) error {
		if missing >= end {
			return nil
		}
		return from.read(ctx, missing, end-missing, func(r io.Reader) error {
			return copyRange(into, missing, end-missing, r)
		})
	}
	for start := want.Off / diskRead * diskRead; start < want.End(); start += diskRead {
		data := buf[:min(diskRead, o.size-start)]
		if !c.fetch.cached(o, data, start) {
			continue
		}
		off := max(start, want.Off)
		if err := fetch(off); err != nil {
			return err
		}
		if _, err := into.WriteAt(data[off-start:min(int64(len(data)), want.End()-start)], off); err != nil {
			return err
		}
		missing = start + diskRead
	}
	return fetch(want.End())
}

// copyRange writes exactly n bytes of r at off.
func copyRange(into *stagedFile, off, n int64, r io.Reader) error {
	buf := make([]byte, min(n, diskRead))
	for n > 0 {
		p := buf[:min(n, int64(len(buf)))]
		if err := readFull(r, p); err != nil {
			return err
		}
		if _, err := into.WriteAt(p, off); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}
