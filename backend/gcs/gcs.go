// Package gcs is the provider for Google Cloud Storage.
//
// It uses Google's generated client of the JSON API, google.golang.org/api/storage/v1,
// in which a method is one request. The client above that,
// cloud.google.com/go/storage, reopens a body that breaks by itself, which
// nothing turns off, and would double the size of the command.
//
// The ETag of an object is its generation and metageneration: a change of the
// content is seen, and one of the metadata alone.
//
// A bucket with a hierarchical namespace moves an object by one atomic request,
// and so is a [backend.Renamer]. Its rename of a whole folder is not used: it
// is an operation that goes on by itself, whoever gives up waiting, and refuses
// every write below the folder meanwhile; it wants a target that was never a
// folder, although folders outlive their last object; and nothing says whether
// the object "dir/" goes along, in which the attributes of a directory are. A
// directory is copied there as it is elsewhere.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/api/storage/v1"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// Options says where the bucket is and how it is used. Bucket is needed; the
// zero value of the rest is Google's own service with the application default
// credentials.
type Options struct {
	Bucket string
	Prefix string // of all keys; slashes at its ends make no difference

	// Endpoint is "https://host:port" of another server than Google's; empty
	// is that of STORAGE_EMULATOR_HOST, which is asked without credentials.
	Endpoint  string
	Key       []byte // the JSON of a service account or of another kind of credentials
	Anonymous bool   // send no credentials

	StorageClass string // of new objects, as "NEARLINE"; empty is the bucket's default

	// Caps changes what is assumed of the bucket, for servers that ignore
	// conditions: one that is taken away gives ErrUnsupported on copies.
	Caps func(*backend.Caps)

	// Transport carries the requests; nil is one of [httpio.NewTransport] that
	// ends with the backend. Share one between all backends of a process.
	Transport http.RoundTripper

	// Timeout is how long a request may make no progress, bodies included,
	// before it fails with ErrTransient. Requests by which the server moves
	// data itself get ten times as long. 0 is one minute.
	Timeout time.Duration

	Logger *slog.Logger // nil is silence
}

const (
	maxKey = 1024 // bytes
	// reserved is where the parts of assemblies are. No listing shows it.
	reserved = ".keifs-store/"
)

// bucket is the provider.
type bucket struct {
	httpio.Link
	http    *http.Client // adds the credentials
	objects *storage.ObjectsService
	server  string // https://host, without a path
	name    string
	prefix  string // empty, or ending in '/'
	url     string
	caps    backend.Caps
	class   string
	log     *slog.Logger
	swept   atomic.Bool // old parts have been looked for
}

// hierarchical is a bucket whose folders are more than a part of names: it
// renames atomically.
type hierarchical struct{ *bucket }

var (
	_ backend.Backend      = (*bucket)(nil)
	_ backend.Copier       = (*bucket)(nil)
	_ backend.Assembler    = (*bucket)(nil)
	_ backend.BatchDeleter = (*bucket)(nil)
	_ backend.Renamer      = hierarchical{}
)

// Open connects to a bucket. It fails at once, without retries, with
// ErrNoBucket, ErrCredentials, ErrPermission, ErrUnreachable or ErrInvalid.
func Open(ctx context.Context, opts Options) (backend.Backend, error) {
	if err := opts.check(); err != nil {
		return nil, backend.Fail("open", opts.Bucket, backend.ErrInvalid, err)
	}
	b := &bucket{
		Link: httpio.NewLink(opts.Transport, opts.Timeout), name: opts.Bucket, prefix: strings.Trim(opts.Prefix, "/"), class: opts.StorageClass, log: opts.Logger,
	}
	if b.prefix != "" {
		b.prefix += "/"
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.url = strings.TrimSuffix("gs://"+b.name+"/"+b.prefix, "/")
	if opts.Endpoint != "" {
		b.url += "?endpoint=" + opts.Endpoint // a bucket of that name elsewhere is another one
	}
	b.caps = backend.Caps{
		CondCreate: true, CondOverwrite: true, CondDelete: true, CondBatch: true, CondCopy: true, CondAssemble: true,
		Metadata: true, Copy: true, StrongList: true, ListAfter: true, ObjectPrefix: true,
		MaxPut: 5 << 40, MaxCopy: 5 << 40, MaxPart: 5 << 40, MaxParts: 10000,
		MaxKey: maxKey - len(b.prefix), MaxMetadata: 8 << 10, ChangeEvery: time.Second,
	}
	if opts.Caps != nil {
		opts.Caps(&b.caps)
	}
	tree, err := b.connect(ctx, &opts)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if tree {
		return hierarchical{b}, nil
	}
	return b, nil
}

func (o *Options) check() error {
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/?#") {
		return fmt.Errorf("%q is no bucket name", o.Bucket)
	}
	if len(o.Prefix) >= maxKey {
		return errors.New("the prefix is longer than a key can be")
	}
	if o.Anonymous && o.Key != nil {
		return errors.New("a key, and no credentials")
	}
	if o.Endpoint == "" {
		return nil
	}
	u, err := httpio.Endpoint(o.Endpoint)
	if err != nil {
		return err
	}
	if u.Path != "" {
		return errors.New("the endpoint has no path")
	}
	o.Endpoint = u.String()
	return nil
}

func (b *bucket) Caps() backend.Caps { return b.caps }
func (b *bucket) Name() string       { return b.url }

// full is the key in the bucket.
func (b *bucket) full(key string) string { return b.prefix + key }

// checkKey returns ErrBadKey for what no bucket can hold.
func (b *bucket) checkKey(op, key string) error {
	if err := b.caps.CheckKey(op, key); err != nil {
		return err
	}
	bad := func(why string) error { return backend.Fail(op, key, backend.ErrBadKey, errors.New(why)) }
	switch full := b.full(key); {
	case !utf8.ValidString(key):
		return bad("not UTF-8")
	case strings.ContainsAny(key, "\r\n\x00"):
		return bad("the store takes no line ends in a name")
	case full == "." || full == ".." || strings.HasPrefix(full, ".well-known/acme-challenge/"):
		return bad("the store does not take this name")
	case strings.HasPrefix(key, reserved):
		return bad("reserved")
	}
	return nil
}

func (b *bucket) checkPut(op, key string, size int64, opts backend.PutOptions) error {
	if err := b.checkKey(op, key); err != nil {
		return err
	}
	return b.caps.CheckPut(op, key, size, opts)
}

// version is what an ETag says.
type version struct{ generation, metageneration int64 }

func (v version) String() string {
	return strconv.FormatInt(v.generation, 10) + "." + strconv.FormatInt(v.metageneration, 10)
}

// parseVersion reads an ETag. One that is not ours is a version that no object
// can have: the store says so, or that there is no object.
func parseVersion(etag string) version {
	g, m, _ := strings.Cut(etag, ".")
	generation, err1 := strconv.ParseInt(g, 10, 64)
	metageneration, err2 := strconv.ParseInt(m, 10, 64)
	if err1 != nil || err2 != nil || generation <= 0 || metageneration <= 0 {
		return version{1, 1}
	}
	return version{generation, metageneration}
}

// conditional is a call of the client with the conditions of its target.
type conditional[C any] interface {
	IfGenerationMatch(int64) C
	IfMetagenerationMatch(int64) C
}

// apply adds a condition to a call.
func apply[C any](call conditional[C], cond backend.Cond) {
	switch {
	case cond.IfAbsent:
		call.IfGenerationMatch(0)
	case cond.IfMatch != "":
		v := parseVersion(cond.IfMatch)
		call.IfGenerationMatch(v.generation)
		call.IfMetagenerationMatch(v.metageneration)
	}
}
