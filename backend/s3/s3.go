// Package s3 is the provider for Amazon S3 and for stores that speak its
// protocol.
//
// [Open] finds credentials and region, and makes sure that the bucket is there
// and may be listed. Each method is then one request without retries, which
// are a decorator's business, and each failure one of the sentinels of package
// backend.
//
// User metadata travels in HTTP headers and is therefore ASCII, as
// [backend.PutOptions] says; anything else is refused with ErrInvalid, not
// encoded. What other tools stored comes back as the server tells it.
package s3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// Options says where the bucket is and how it is used. Bucket is needed; the
// zero value of the rest is Amazon S3 with the credentials, the region and the
// profile that the AWS environment variables and files name.
type Options struct {
	Bucket string
	Prefix string // of all keys; slashes at its ends make no difference

	Endpoint  string // "https://host:port" of another store than Amazon's; "https://" may be left out
	Region    string // empty: from the environment, else that of the bucket
	Profile   string // of the AWS configuration files
	PathStyle *bool  // nil: on when there is an endpoint
	Anonymous bool   // sign nothing

	RequesterPays bool
	StorageClass  string // of new objects, as "STANDARD_IA"; empty is the bucket's default

	SSE            string // "AES256", "aws:kms" or "aws:kms:dsse" for new objects; empty is the bucket's default
	SSEKMSKeyID    string // with "aws:kms"
	SSECustomerKey []byte // 32 bytes: the store encrypts with it and forgets it

	// Caps changes what is assumed of the bucket: without a call every
	// condition is sent, and a server that does not know it may ignore it. A
	// condition that is taken away gives ErrUnsupported where it could do harm,
	// on copies.
	Caps func(*backend.Caps)

	// Transport carries the requests; nil is one of [httpio.NewTransport] that ends
	// with the backend. Share one between all backends of a process.
	Transport http.RoundTripper

	// Timeout is how long a request may make no progress, bodies included,
	// before it fails with ErrTransient. Requests by which the server moves
	// data itself get ten times as long. 0 is one minute.
	Timeout time.Duration

	Logger *slog.Logger // nil is silence
}

const maxKey = 1024 // bytes

// bucket is the provider.
type bucket struct {
	httpio.Link
	client   *s3.Client
	name     string
	prefix   string // empty, or ending in '/'
	url      string
	caps     backend.Caps
	encodes  bool        // listings can name every key
	sumless  atomic.Bool // uploads in parts cannot declare checksums
	log      *slog.Logger
	class    types.StorageClass
	sse      types.ServerSideEncryption
	kmsKey   *string
	customer customerKey
}

var (
	_ backend.Backend      = (*bucket)(nil)
	_ backend.Copier       = (*bucket)(nil)
	_ backend.Assembler    = (*bucket)(nil)
	_ backend.Discarder    = (*bucket)(nil)
	_ backend.BatchDeleter = (*bucket)(nil)
	_ backend.Versioner    = (*bucket)(nil)
)

// Open connects to a bucket. It fails at once, without retries, with
// ErrNoBucket, ErrCredentials, ErrPermission, ErrUnreachable or ErrInvalid.
func Open(ctx context.Context, opts Options) (backend.Backend, error) {
	if err := opts.check(); err != nil {
		return nil, backend.Fail("open", opts.Bucket, backend.ErrInvalid, err)
	}
	// Such a bucket lists its keys in no order, which a listing here promises.
	if strings.HasSuffix(opts.Bucket, "--x-s3") {
		return nil, backend.Fail("open", opts.Bucket, backend.ErrUnsupported, errors.New("a directory bucket (S3 Express)"))
	}
	b := &bucket{
		Link: httpio.NewLink(opts.Transport, opts.Timeout), name: opts.Bucket, prefix: strings.Trim(opts.Prefix, "/"), log: opts.Logger,
		class: types.StorageClass(opts.StorageClass), sse: types.ServerSideEncryption(opts.SSE), kmsKey: optional(opts.SSEKMSKeyID),
		customer: newCustomerKey(opts.SSECustomerKey),
	}
	if b.prefix != "" {
		b.prefix += "/"
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.connect(ctx, &opts); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.url = strings.TrimSuffix("s3://"+b.name+"/"+b.prefix, "/")
	if endpoint := b.client.Options().BaseEndpoint; endpoint != nil {
		b.url += "?endpoint=" + *endpoint // a bucket of that name elsewhere is another one
	}
	b.caps = backend.Caps{
		CondCreate: true, CondOverwrite: true, CondDelete: true, CondBatch: true, CondCopy: true, CondAssemble: true,
		Metadata: true, Copy: true, Versions: b.versioned(ctx), StrongList: true, ListAfter: true, ObjectPrefix: true,
		MaxPut: 5 << 30, MaxCopy: 5 << 30, MinPart: 5 << 20, MaxPart: 5 << 30, MaxParts: 10000,
		MaxKey: maxKey - len(b.prefix), MaxMetadata: 2048,
	}
	if opts.Caps != nil {
		opts.Caps(&b.caps)
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
	if n := len(o.SSECustomerKey); n != 0 && n != 32 {
		return fmt.Errorf("the customer's encryption key has %d bytes, not 32", n)
	}
	if n := len(o.SSECustomerKey); n > 0 && o.SSE != "" {
		return errors.New("two kinds of encryption")
	}
	if o.Endpoint == "" {
		return nil
	}
	u, err := httpio.Endpoint(o.Endpoint)
	if err != nil {
		return err
	}
	o.Endpoint = u.String()
	return nil
}

// versioned says whether the bucket keeps versions, as far as we may know.
func (b *bucket) versioned(ctx context.Context) bool {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.name})
	if err != nil {
		b.log.Debug("the bucket does not tell whether it keeps versions", "bucket", b.name, "err", err)
		return false
	}
	return out.Status == types.BucketVersioningStatusEnabled
}

func (b *bucket) Caps() backend.Caps { return b.caps }
func (b *bucket) Name() string       { return b.url }

// full is the key in the bucket.
func (b *bucket) full(key string) *string { return aws.String(b.prefix + key) }

// checkKey returns ErrBadKey for what no S3 store can hold.
func (b *bucket) checkKey(op, key string) error {
	if err := b.caps.CheckKey(op, key); err != nil {
		return err
	}
	if !utf8.ValidString(key) {
		return backend.Fail(op, key, backend.ErrBadKey, errors.New("not UTF-8"))
	}
	// Some servers take such a key and then list another one in its place.
	if !b.encodes && strings.ContainsFunc(key, notXML) {
		return backend.Fail(op, key, backend.ErrBadKey, errors.New("no listing of this store could name it"))
	}
	return nil
}

func (b *bucket) checkPut(op, key string, size int64, opts backend.PutOptions) error {
	if err := b.checkKey(op, key); err != nil {
		return err
	}
	return b.caps.CheckPut(op, key, size, opts)
}

// version is the version that an answer names: nothing that lasts, where the
// bucket does not keep versions, or did not when the object was made.
func (b *bucket) version(id *string) string {
	if v := aws.ToString(id); b.caps.Versions && v != "null" {
		return v
	}
	return ""
}

// optional is nil for the empty string: a field that is not sent.
func optional[T ~string](s T) *T {
	if s == "" {
		return nil
	}
	return &s
}

// ifNoneMatch and ifMatch are the headers of a condition.
func ifNoneMatch(c backend.Cond) *string {
	if c.IfAbsent {
		return aws.String("*")
	}
	return nil
}

func ifMatch(etag string) *string {
	if etag == "" {
		return nil
	}
	if strings.HasPrefix(etag, "W/") {
		return &etag
	}
	return aws.String(`"` + etag + `"`)
}

func unquote(etag *string) string {
	s := aws.ToString(etag)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
