// Package file is a local directory as an object store, durable and atomic.
//
// Objects are plain files, DIR/<key>, that any tool reads and writes; a key
// that ends in '/' is a marker, and is the directory itself. What the file
// system has no place for lies in one extended attribute of each (see record).
// Every change is prepared below DIR/.keifs-store, synced, and put in place by
// one rename, so that neither kill -9 nor a power cut leaves a torn object.
// Symbolic links are never followed, and are no objects; nor is anything else
// that is not a regular file.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// Options goes with Open.
type Options struct {
	Create bool // make the directory, with its parents, where it is not there
}

// Open returns the directory as a bucket. It writes nothing before the first
// change, but for removing what a dead process has left in DIR/.keifs-store.
// It returns ErrNoBucket when the directory is not there.
//
// Any number of processes may have the same directory open; conditions hold
// between them. They hold against changes of other tools as well, but for one
// that happens at the very moment of a conditional overwrite or delete.
func Open(dir string, opts Options) (backend.Backend, error) {
	b, err := open(dir, opts)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func open(dir string, opts Options) (*bucket, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, backend.Fail("open", "", backend.ErrNoBucket, err)
	}
	if opts.Create {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, backend.Fail("open", dir, kind(err), err)
		}
	}
	root, err := os.OpenFile(dir, unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		k := kind(err)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			k = backend.ErrNoBucket
		}
		return nil, backend.Fail("open", "", k, err)
	}
	b := &bucket{dir: dir, root: root}
	b.xattrs = hasXattrs(root)
	for i := range b.shards {
		b.shards[i] = make(chan struct{}, 1)
	}
	b.removeStale()
	return b, nil
}

type bucket struct {
	dir    string
	root   *os.File
	xattrs bool // the file system has user extended attributes

	shards [shards]chan struct{} // the part of the locks that is for this process

	mu sync.Mutex
	ws *workspace // nil before the first change
}

var (
	_ backend.Copier       = (*bucket)(nil)
	_ backend.Assembler    = (*bucket)(nil)
	_ backend.BatchDeleter = (*bucket)(nil)
)

const (
	maxMetadata = 2048 // fits, with all else, into the 4 KiB that ext4 has for attributes
	maxParts    = 10000
)

func (b *bucket) Caps() backend.Caps {
	return backend.Caps{
		CondCreate: true, CondOverwrite: true, CondDelete: true, CondBatch: true, CondCopy: true, CondAssemble: true,
		Metadata: b.xattrs, Copy: true, StrongList: true, ListAfter: true,
		MaxParts: maxParts, MaxMetadata: maxMetadata,
		MaxKey: max(unix.PathMax-1-len(b.dir)-1, 1), // so that DIR/<key> is a path that tools can use
	}
}

func (b *bucket) Name() string { return "file://" + b.dir }

func (b *bucket) Close() error {
	b.mu.Lock()
	ws := b.ws
	b.ws = nil
	b.mu.Unlock()
	if ws != nil {
		ws.close()
	}
	return b.root.Close()
}

func (b *bucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	o, err := b.open(ctx, "stat", key)
	if err != nil {
		return backend.Info{}, err
	}
	defer o.f.Close()
	return o.info(), nil
}

func (b *bucket) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	if opts.VersionID != "" {
		return backend.Fail("get", key, backend.ErrUnsupported, errors.New("versions"))
	}
	o, err := b.open(ctx, "get", key)
	if err != nil {
		return err
	}
	defer o.f.Close()
	if opts.IfMatch != "" && opts.IfMatch != o.etag() {
		return backend.Fail("get", key, backend.ErrPrecondition, nil)
	}
	end := o.size()
	from := min(opts.Offset, end)
	if opts.Length > 0 {
		end = from + min(opts.Length, end-from)
	}
	return fn(o.info(), &body{ctx: ctx, o: o, off: from, end: end})
}

// open opens the object of that key for reading.
func (b *bucket) open(ctx context.Context, op, key string) (*object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.checkKey(op, key); err != nil {
		return nil, err
	}
	o, err := b.openObject(key)
	return o, b.failMissing(op, key, err)
}

// failMissing is fail for a request that reads what is at key.
func (b *bucket) failMissing(op, key string, err error) error {
	if notThere(err) && !removed(b.root) {
		return backend.Fail(op, key, backend.ErrNotExist, nil)
	}
	return b.fail(op, key, err)
}

// body reads one version of an object. keifs never changes a file in place;
// another tool may, and then the body breaks rather than be a mix of two.
type body struct {
	ctx      context.Context
	o        *object
	off, end int64
}

func (r *body) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.off >= r.end {
		return 0, io.EOF
	}
	n, err := r.o.f.ReadAt(p[:min(int64(len(p)), r.end-r.off)], r.off)
	if err != nil && err != io.EOF {
		return 0, backend.Fail("get", r.o.key, kind(err), err)
	}
	if n == 0 && len(p) > 0 || r.o.changed() {
		return 0, backend.Fail("get", r.o.key, backend.ErrTransient, errChanged)
	}
	r.off += int64(n)
	return n, nil
}

var errChanged = errors.New("the file was changed in place while it was read")
