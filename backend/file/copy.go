package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// Copy shares the blocks of the source where the file system can, and leaves
// the copying to the kernel elsewhere.
func (b *bucket) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	if opts.SourceVersion != "" {
		return backend.Info{}, backend.Fail("copy", src, backend.ErrUnsupported, errors.New("versions are not looked at"))
	}
	put := backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata}
	if err := b.checkPut(ctx, "copy", dst, 0, put); err != nil {
		return backend.Info{}, err
	}
	if src == dst {
		info, err := b.replaceMetadata(ctx, dst, opts)
		return info, b.fail("copy", dst, err)
	}
	o, err := b.open(ctx, "copy", src)
	if err != nil {
		return backend.Info{}, err
	}
	defer o.f.Close()
	if opts.SourceETag != "" && opts.SourceETag != o.etag() {
		return backend.Info{}, backend.Fail("copy", src, backend.ErrPrecondition, errors.New("the source is another version"))
	}
	if put.ContentType = o.contentType; put.Metadata == nil {
		put.Metadata = o.metadata
	}
	if isMarker(dst) {
		if o.size() > 0 {
			return backend.Info{}, backend.Fail("copy", dst, backend.ErrBadKey, errors.New("a directory has no content"))
		}
		return b.putMarker(ctx, "copy", dst, put)
	}
	t, err := b.tempFile()
	if err != nil {
		return backend.Info{}, b.fail("copy", dst, err)
	}
	defer t.discard()
	if err := copyRange(ctx, t.f, 0, o, 0, o.size()); err != nil {
		return backend.Info{}, b.fail("copy", dst, err)
	}
	info, err := b.finish(ctx, dst, t, newRecord(put), opts.Cond)
	return info, b.fail("copy", dst, err)
}

// replaceMetadata is Copy onto itself. The content and so its ETag stay; that
// something has changed is told by the time.
func (b *bucket) replaceMetadata(ctx context.Context, key string, opts backend.CopyOptions) (backend.Info, error) {
	folder, name := split(key)
	dir, err := b.openFolder(folder)
	if err != nil {
		return backend.Info{}, b.failMissing("copy", key, err)
	}
	defer dir.Close()
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return backend.Info{}, err
	}
	defer unlock()
	o, err := openIn(dir, name, key)
	if err != nil {
		return backend.Info{}, b.failMissing("copy", key, err)
	}
	defer o.f.Close()
	etag := o.etag()
	if opts.SourceETag != "" && opts.SourceETag != etag || opts.Cond.IfMatch != "" && opts.Cond.IfMatch != etag || opts.Cond.IfAbsent {
		return backend.Info{}, backend.Fail("copy", key, backend.ErrPrecondition, nil)
	}
	if !b.xattrs {
		return o.info(), nil
	}
	if o.known = true; opts.Metadata != nil {
		o.metadata = opts.Metadata
	}
	if o.isDir() {
		o.marker = true // a directory of another tool is one while it is empty
	}
	o.replaced = time.Now()
	if err := o.write(o.f); err != nil {
		return backend.Info{}, err
	}
	if err := o.f.Sync(); err != nil {
		return backend.Info{}, err
	}
	return o.info(), nil
}

// copyRange copies n bytes of o at off to dst at to, and keeps its holes. The
// caller has made sure that o reaches so far.
func copyRange(ctx context.Context, dst *os.File, to int64, o *object, off, n int64) error {
	if err := again(func() error { return unix.Ftruncate(int(dst.Fd()), to+n) }); err != nil {
		return err
	}
	if off == 0 && to == 0 && n == o.size() {
		if err := again(func() error { return unix.IoctlFileClone(int(dst.Fd()), int(o.f.Fd())) }); err == nil {
			return unchanged(o)
		}
	}
	for end := off + n; off < end; {
		data, hole, err := nextData(o.f, off, end)
		if err != nil {
			return err
		}
		if err := copyData(ctx, dst, to+data-off, o.f, data, hole-data); err != nil {
			return err
		}
		to, off = to+hole-off, hole
	}
	return unchanged(o)
}

func unchanged(o *object) error {
	if o.changed() {
		return backend.Fail("copy", o.key, backend.ErrTransient, errChanged)
	}
	return nil
}

// nextData finds the next run of data at or after off, and its end. Both are
// end where there is none. A file system that cannot tell has only data.
func nextData(f *os.File, off, end int64) (data, hole int64, err error) {
	data, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO) || err == nil && data >= end:
		return end, end, nil
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP):
		return off, end, nil
	case err != nil:
		return 0, 0, err
	}
	hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	return data, min(hole, end), err
}

// copyData copies n bytes in the kernel, or through memory where it refuses.
func copyData(ctx context.Context, dst *os.File, to int64, src *os.File, off, n int64) error {
	const most = 64 << 20 // so that a cancelled context ends it soon
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := retry(func() (int, error) {
			from, into := off, to
			return unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &into, int(min(n, most)), 0)
		})
		if err != nil && kind(err) != backend.ErrIO && kind(err) != backend.ErrPermission {
			return err
		}
		if err != nil || done == 0 {
			buf := make([]byte, min(n, 1<<20))
			done, err = src.ReadAt(buf, off)
			if done == 0 {
				return fmt.Errorf("copying: %w", errors.Join(err, io.ErrUnexpectedEOF))
			}
			if _, err := dst.WriteAt(buf[:done], to); err != nil {
				return err
			}
		}
		off, to, n = off+int64(done), to+int64(done), n-int64(done)
	}
	return nil
}
