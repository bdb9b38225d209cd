// Package mem is an object store in memory: for tests, for trying things out,
// and as the plainest example of a provider. It has every capability, and
// [Options] takes away what a test wants to miss.
package mem

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// Options says in what way the bucket is a lesser one. The zero value has all
// powers and no limits but those of S3 on keys and metadata.
type Options struct {
	// Caps changes the capabilities; the bucket then behaves so. A condition
	// that is switched off gives ErrUnsupported.
	Caps func(*backend.Caps)

	// IgnoreConds makes conditions that are switched off be ignored without
	// a word, as some stores do; those of Copy, which a provider has to know,
	// still give ErrUnsupported.
	IgnoreConds bool

	Versions bool // keep all versions, and have the Versioner
	Plain    bool // no optional power at all
	Seconds  bool // times in whole seconds, as most stores have them
	PageSize int  // entries of a page at most; 0 is 1000
}

// New returns an empty bucket. Several clients may share it: its Close does
// nothing, so that what one of them closes lives on for the others.
func New(name string, opts Options) backend.Backend {
	if opts.PageSize <= 0 {
		opts.PageSize = 1000
	}
	b := &bucket{name: name, opts: opts, objects: map[string]*object{}, assemblies: map[string]*assembly{}}
	b.caps = backend.Caps{
		CondCreate: true, CondOverwrite: true, CondDelete: true, CondBatch: true, CondCopy: true, CondAssemble: true,
		Metadata: true, Copy: true, StrongList: true, ListAfter: true, ObjectPrefix: true,
		MaxParts: 10000, MaxKey: 1024, MaxMetadata: 2048,
	}
	if opts.Caps != nil {
		opts.Caps(&b.caps)
	}
	b.caps.Copy = b.caps.Copy && !opts.Plain
	b.caps.CondBatch = b.caps.CondBatch && !opts.Plain
	b.caps.Versions = opts.Versions
	return b.withPowers()
}

func (b *bucket) withPowers() backend.Backend {
	switch {
	case b.opts.Plain:
		return b
	case b.opts.Versions:
		return versioned{powerful{b}}
	}
	return powerful{b}
}

// bucket has what every Backend has.
type bucket struct {
	name string
	opts Options
	caps backend.Caps

	mu      sync.Mutex
	objects map[string]*object
	keys    []string // of objects, sorted; with versions, also keys that are deleted now
	serial  int      // of the last version

	assemblies map[string]*assembly // that have not ended
	begun      int
}

// Clone returns another bucket with what one of New has now, and nothing of its
// unfinished assemblies. It costs no copies of content.
func Clone(b backend.Backend) backend.Backend {
	of, ok := backend.As[interface{ clone() backend.Backend }](b)
	if !ok {
		panic("mem: Clone of another backend")
	}
	return of.clone()
}

func (b *bucket) clone() backend.Backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &bucket{name: b.name, opts: b.opts, caps: b.caps, serial: b.serial, assemblies: map[string]*assembly{}}
	c.objects, c.keys = maps.Clone(b.objects), slices.Clone(b.keys)
	return c.withPowers()
}

// object is one version. It never changes once it is in the bucket, so that
// readers need no lock; older versions hang behind it.
type object struct {
	info    backend.Info
	data    []byte
	deleted bool
	older   *object
}

func (b *bucket) Caps() backend.Caps { return b.caps }
func (b *bucket) Name() string       { return "mem:" + b.name }
func (b *bucket) Close() error       { return nil }

func (b *bucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	o, err := b.get(ctx, "stat", key, "")
	if err != nil {
		return backend.Info{}, err
	}
	return o.fullInfo(), nil
}

func (b *bucket) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, io.Reader) error) error {
	if opts.Offset < 0 || opts.Length < 0 {
		return backend.Fail("get", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", opts.Offset, opts.Length))
	}
	o, err := b.get(ctx, "get", key, opts.VersionID)
	if err != nil {
		return err
	}
	if opts.IfMatch != "" && opts.IfMatch != o.info.ETag {
		return backend.Fail("get", key, backend.ErrPrecondition, nil)
	}
	data := o.data[min(opts.Offset, o.info.Size):]
	if opts.Length > 0 {
		data = data[:min(opts.Length, int64(len(data)))]
	}
	return fn(o.fullInfo(), &body{ctx: ctx, r: bytes.NewReader(data)})
}

// body ends with the context of its request, as a body from the network does.
type body struct {
	ctx context.Context
	r   *bytes.Reader
}

func (r *body) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (b *bucket) get(ctx context.Context, op, key, version string) (*object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.checkKey(op, key); err != nil {
		return nil, err
	}
	if version != "" && !b.opts.Versions {
		return nil, backend.Fail(op, key, backend.ErrUnsupported, fmt.Errorf("versions"))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[key]
	for version != "" && o != nil && o.info.VersionID != version {
		o = o.older
	}
	if o == nil || o.deleted {
		return nil, backend.Fail(op, key, backend.ErrNotExist, nil)
	}
	return o, nil
}

// fullInfo is the info with a copy of the metadata, which a caller may change.
func (o *object) fullInfo() backend.Info {
	info := o.info
	info.Metadata = maps.Clone(info.Metadata)
	info.Date = time.Now()
	return info
}

func (b *bucket) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	if err := b.checkPut(ctx, "put", key, src.Size(), opts, b.caps.CondCreate, b.caps.CondOverwrite); err != nil {
		return backend.Info{}, err
	}
	data, err := read(src)
	if err != nil {
		return backend.Info{}, fmt.Errorf("put %s: source: %w", key, err)
	}
	return b.store(ctx, "put", b.object(key, data, opts), opts.Cond, b.caps.CondCreate, b.caps.CondOverwrite)
}

func read(src backend.Source) ([]byte, error) {
	data := make([]byte, src.Size())
	n, err := src.ReadAt(data, 0)
	if n == len(data) {
		return data, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// object makes an object that is not in the bucket yet.
func (b *bucket) object(key string, data []byte, opts backend.PutOptions) *object {
	sum := md5.Sum(data)
	o := &object{data: data, info: backend.Info{
		Key: key, Size: int64(len(data)), ETag: hex.EncodeToString(sum[:]),
		ContentType: opts.ContentType, Metadata: map[string]string{},
	}}
	if o.info.ContentType == "" {
		o.info.ContentType = "application/octet-stream"
	}
	if b.caps.Metadata {
		maps.Copy(o.info.Metadata, opts.Metadata)
	}
	return o
}

// store puts the object into the bucket when cond holds.
func (b *bucket) store(ctx context.Context, op string, o *object, cond backend.Cond, create, overwrite bool) (backend.Info, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return backend.Info{}, err
	}
	if err := b.condLocked(op, o.info.Key, cond, create, overwrite); err != nil {
		return backend.Info{}, err
	}
	if err := b.parentsLocked(op, o.info.Key); err != nil {
		return backend.Info{}, err
	}
	b.addLocked(o)
	return o.fullInfo(), nil
}

func (b *bucket) addLocked(o *object) {
	o.info.ModTime = time.Now().Round(0) // no monotonic part: times of objects are compared with ==
	if b.opts.Seconds {
		o.info.ModTime = o.info.ModTime.Truncate(time.Second)
	}
	key := o.info.Key
	b.insertKeyLocked(key)
	if b.opts.Versions {
		b.serial++
		o.info.VersionID = fmt.Sprintf("v%08d", b.serial)
		o.older = b.objects[key]
	}
	b.objects[key] = o
}

// condLocked checks a condition of which the bucket honours what the two
// flags say.
func (b *bucket) condLocked(op, key string, cond backend.Cond, create, overwrite bool) error {
	o := b.objects[key]
	there := o != nil && !o.deleted
	if create && cond.IfAbsent && there || overwrite && cond.IfMatch != "" && (!there || o.info.ETag != cond.IfMatch) {
		return backend.Fail(op, key, backend.ErrPrecondition, nil)
	}
	return nil
}

func (b *bucket) Delete(ctx context.Context, key string, cond backend.Cond) error {
	return b.remove(ctx, key, cond, b.caps.CondDelete)
}

// remove deletes, on a condition that the bucket honours or not.
func (b *bucket) remove(ctx context.Context, key string, cond backend.Cond, honoured bool) error {
	if err := b.checkPut(ctx, "delete", key, 0, backend.PutOptions{Cond: cond}, true, honoured); err != nil {
		return err
	}
	if cond.IfAbsent {
		return backend.Fail("delete", key, backend.ErrInvalid, fmt.Errorf("condition of absence"))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[key]
	if o == nil || o.deleted {
		if cond.IfMatch != "" && honoured {
			return backend.Fail("delete", key, backend.ErrNotExist, nil)
		}
		return nil
	}
	if err := b.condLocked("delete", key, cond, true, honoured); err != nil {
		return err
	}
	if b.opts.Versions {
		b.addLocked(&object{deleted: true, info: backend.Info{Key: key}})
		return nil
	}
	delete(b.objects, key)
	b.removeKeyLocked(key)
	return nil
}

func (b *bucket) checkKey(op, key string) error {
	if err := b.caps.CheckKey(op, key); err != nil {
		return err
	}
	if !utf8.ValidString(key) {
		return backend.Fail(op, key, backend.ErrBadKey, fmt.Errorf("not UTF-8"))
	}
	return nil
}

// checkPut refuses what can be refused before the content is read.
func (b *bucket) checkPut(ctx context.Context, op, key string, size int64, opts backend.PutOptions, create, overwrite bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.checkKey(op, key); err != nil {
		return err
	}
	if err := b.caps.CheckPut(op, key, size, opts); err != nil {
		return err
	}
	if !b.opts.IgnoreConds && (opts.Cond.IfAbsent && !create || opts.Cond.IfMatch != "" && !overwrite) {
		return backend.Fail(op, key, backend.ErrUnsupported, fmt.Errorf("condition"))
	}
	return nil
}
