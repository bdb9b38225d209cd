package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

func (b *bucket) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := b.checkPut(ctx, "put", key, src.Size(), opts); err != nil {
		return backend.Info{}, err
	}
	if isMarker(key) {
		return b.putMarker(ctx, "put", key, opts)
	}
	t, err := b.tempFile()
	if err != nil {
		return backend.Info{}, b.fail("put", key, err)
	}
	defer t.discard()
	if err := b.write(ctx, "put", key, t.f, src); err != nil {
		return backend.Info{}, err
	}
	info, err := b.finish(ctx, key, t, newRecord(opts), opts.Cond)
	return info, b.fail("put", key, err)
}

func isMarker(key string) bool { return strings.HasSuffix(key, "/") }

// checkPut refuses what can be refused before anything is done.
func (b *bucket) checkPut(ctx context.Context, op, key string, size int64, opts backend.PutOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.checkKey(op, key); err != nil {
		return err
	}
	if err := b.Caps().CheckPut(op, key, size, opts); err != nil {
		return err
	}
	if len(opts.ContentType) > 255 || strings.ContainsAny(opts.ContentType, "\n\x00") {
		return backend.Fail(op, key, backend.ErrInvalid, fmt.Errorf("content type %q", opts.ContentType))
	}
	if isMarker(key) && size > 0 {
		return backend.Fail(op, key, backend.ErrBadKey, errors.New("a directory has no content"))
	}
	return nil
}

// write copies src to f. An error of src is returned as it is.
func (b *bucket) write(ctx context.Context, op, key string, f *os.File, src backend.Source) error {
	size := src.Size()
	buf := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), size-off)]
		if n, err := src.ReadAt(p, off); n < len(p) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s %s: source: %w", op, key, err)
		}
		if err := writeSparse(f, p, off); err != nil {
			return b.fail(op, key, err)
		}
		off += int64(len(p))
	}
	return b.fail(op, key, f.Truncate(size)) // where it ends in a hole
}

// writeSparse writes p but for its blocks of zeros, which stay holes.
func writeSparse(f *os.File, p []byte, off int64) error {
	const block = 64 << 10
	for len(p) > 0 {
		n := 0
		for n < len(p) && !allZero(p[n:min(n+block, len(p))]) {
			n = min(n+block, len(p))
		}
		if n > 0 {
			if _, err := f.WriteAt(p[:n], off); err != nil {
				return err
			}
		} else {
			n = min(block, len(p))
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// allZero compares p with itself, shifted by one.
func allZero(p []byte) bool {
	return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// finish makes the object of a written temporary file, and publishes it.
func (b *bucket) finish(ctx context.Context, key string, t *temp, r record, cond backend.Cond) (backend.Info, error) {
	if b.xattrs {
		if err := r.write(t.f); err != nil {
			return backend.Info{}, err
		}
	}
	// The kernel stamps writes with the time of its last tick, so this exact
	// time is one that a later write by another tool does not repeat.
	now := unix.NsecToTimespec(time.Now().UnixNano())
	err := again(func() error {
		return unix.UtimesNanoAt(int(t.ws.owner.Fd()), t.name, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return backend.Info{}, err
	}
	if err := t.f.Sync(); err != nil {
		return backend.Info{}, err
	}
	o, err := stat(key, t.f)
	if err != nil {
		return backend.Info{}, err
	}
	err = b.place(ctx, key, cond, func(dir *os.File, name string) error {
		if err := t.adopt(dir, name); err != nil {
			return err
		}
		return t.publish(dir, name, cond.IfAbsent)
	})
	if err != nil {
		return backend.Info{}, err
	}
	return o.info(), nil
}

// place calls publish for the object's directory and name there, alone at key
// (and at others) and with cond holding, and returns when that is on the disk.
func (b *bucket) place(ctx context.Context, key string, cond backend.Cond, publish func(dir *os.File, name string) error, others ...string) error {
	folder, name := split(key)
	for range 1000 {
		again, err := b.tryPlace(ctx, folder, name, key, cond, publish, others)
		if !again {
			return err
		}
	}
	return backend.Fail("put", key, backend.ErrTransient, errors.New("its directory does not come to rest"))
}

// tryPlace is place, but asks to be called again where somebody removed the
// directory, or a directory that is no object was in the way.
func (b *bucket) tryPlace(ctx context.Context, folder, name, key string, cond backend.Cond, publish func(*os.File, string) error, others []string) (again bool, err error) {
	var dir *os.File
	if cond.IfMatch != "" {
		if dir, err = b.openFolder(folder); notThere(err) && !removed(b.root) {
			return false, backend.Fail("put", key, backend.ErrPrecondition, err)
		}
	} else {
		dir, err = b.makeFolder(ctx, folder)
	}
	if errors.Is(err, unix.ENOENT) && !removed(b.root) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	unlock, err := b.lock(ctx, append(others, key)...)
	if err != nil {
		return false, err
	}
	err = check(dir, name, key, cond)
	if err == nil {
		err = publish(dir, name)
	}
	unlock()
	switch {
	case err == nil:
		return false, dir.Sync()
	case errors.Is(err, unix.ENOENT) && removed(dir) && !removed(b.root):
		return true, nil
	case errors.Is(err, unix.EEXIST) && cond.IfAbsent: // by another tool, since check
		return false, backend.Fail("put", key, backend.ErrPrecondition, err)
	case errors.Is(err, unix.EISDIR) && !isMarker(key):
		gone, pruneErr := b.pruneFolder(ctx, key+"/")
		if pruneErr != nil {
			err = pruneErr
		}
		return gone, err
	}
	return false, err
}

// check returns an error where cond does not hold, or where something is in
// the way that is not an object.
func check(dir *os.File, name, key string, cond backend.Cond) error {
	st, err := statAt(dir, name)
	there := err == nil
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case !there:
	case isMarker(key):
		if kind != unix.S_IFDIR {
			return unix.ENOTDIR
		}
	case kind == unix.S_IFDIR:
		return unix.EISDIR
	case kind != unix.S_IFREG:
		return backend.Fail("put", key, backend.ErrBadKey, errors.New("there is something that is not a regular file"))
	}
	if cond == (backend.Cond{}) {
		return nil
	}
	o, err := openIn(dir, name, key)
	if errors.Is(err, unix.ENOENT) {
		o = nil
	} else if err != nil {
		return err
	} else {
		o.f.Close()
	}
	if o != nil && cond.IfAbsent || cond.IfMatch != "" && (o == nil || o.etag() != cond.IfMatch) {
		return backend.Fail("put", key, backend.ErrPrecondition, nil)
	}
	return nil
}

// putMarker makes the directory an object, and makes it where it is not there.
func (b *bucket) putMarker(ctx context.Context, op, key string, opts backend.PutOptions) (backend.Info, error) {
	r := newRecord(opts)
	r.marker = true
	var info backend.Info
	publish := func(dir *os.File, name string) error {
		r.fresh = true
		err := b.addFolder(dir, name, r)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		f, err := openDir(dir, name)
		if err != nil {
			return err
		}
		defer f.Close()
		if b.xattrs {
			is := readRecord(f)
			r.fresh = is.fresh || !is.known // stays as it is
			if err := r.write(f); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
		}
		o, err := stat(key, f)
		if err == nil {
			info = o.info()
		}
		return err
	}
	err := b.place(ctx, key, opts.Cond, publish)
	if err != nil {
		return backend.Info{}, b.fail(op, key, err)
	}
	return info, nil
}
