package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/keifs/keifs/backend"
)

// readObject fills p from a version of an object, by chunks. The range is
// within the object.
func (c *Cache) readObject(ctx context.Context, from origin, p []byte, off int64) (int, error) {
	key, err := from.store.Key(from.path.String())
	if err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		index := (off + int64(n)) / chunkSize
		start := index * chunkSize
		size := min(chunkSize, from.size-start)
		data, err := c.chunk.get(ctx, c.chunk.id(key, from.version, index), int(size), func(ctx context.Context, into []byte) error {
			return from.read(ctx, start, size, func(r io.Reader) error { return readFull(r, into) })
		})
		if err != nil {
			return 0, err
		}
		n += copy(p[n:], data[off+int64(n)-start:])
	}
	return n, nil
}

// read hands fn a range, which is not empty.
func (o origin) read(ctx context.Context, off, n int64, fn func(io.Reader) error) error {
	return o.store.Read(ctx, o.path, o.version, off, n, fn)
}

// readFull is io.ReadFull for a body that must be that long.
func readFull(r io.Reader, into []byte) error {
	_, err := io.ReadFull(r, into)
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the object is shorter than the store said", backend.ErrCorrupt)
	}
	return err
}

// download copies the first n bytes of a version into a staged file: chunks
// that are here from here, and each run of others by one request.
func (c *Cache) download(ctx context.Context, from origin, into *stagedFile, n int64) error {
	if n == 0 {
		return nil
	}
	key, err := from.store.Key(from.path.String())
	if err != nil {
		return err
	}
	missing := int64(0) // begin of the run of chunks that are not here
	fetch := func(end int64) error {
		if missing >= end {
			return nil
		}
		return from.read(ctx, missing, end-missing, func(r io.Reader) error {
			return copyRange(into, missing, end-missing, r)
		})
	}
	for start := int64(0); start < n; start += chunkSize {
		data, ok := c.chunk.cached(c.chunk.id(key, from.version, start/chunkSize), int(min(chunkSize, from.size-start)))
		if !ok {
			continue
		}
		if err := fetch(start); err != nil {
			return err
		}
		data = data[:min(int64(len(data)), n-start)]
		if _, err := into.WriteAt(data, start); err != nil {
			return err
		}
		missing = start + chunkSize
	}
	return fetch(n)
}

// copyRange writes exactly n bytes of r at off.
func copyRange(into *stagedFile, off, n int64, r io.Reader) error {
	buf := make([]byte, min(n, chunkSize))
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
