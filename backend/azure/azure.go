// Package azure is the provider for Azure Blob Storage.
//
// [Open] finds account and credentials, and makes sure that the container is
// there and may be listed. Each method is then one request without retries,
// and each failure one of the sentinels of package backend.
//
// Azure takes some names for others: a backslash for a slash, and a component
// that ends in a dot for one without. Such keys are refused.
//
// So are accounts with a hierarchical namespace, where they tell. Theirs are
// directories in earnest: a listing has them as blobs, a blob and a directory
// cannot share a name, "dir/" names the directory itself, and the one rename
// there is belongs to another protocol. Keys would not be what they are
// elsewhere, and no emulator knows any of it to show that they are.
package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// Options says where the container is. Container is needed; the zero value of
// the rest is the account and the credentials that the environment names.
type Options struct {
	Container string
	Prefix    string // of all keys; slashes at its ends make no difference

	Account  string // empty: AZURE_STORAGE_ACCOUNT, or the endpoint's
	Endpoint string // of the account; empty: https://ACCOUNT.blob.core.windows.net

	// Key is the account's; empty: AZURE_STORAGE_KEY, else AZURE_STORAGE_SAS_TOKEN,
	// else what Azure's default chain finds: service principals, workload and
	// managed identities, az login.
	Key       string
	Anonymous bool // no credentials: for public containers

	// Caps changes what is assumed of the container.
	Caps func(*backend.Caps)

	// Transport carries the requests; nil is one of [httpio.NewTransport] that
	// ends with the backend.
	Transport http.RoundTripper

	// Timeout is how long a request may make no progress, bodies included,
	// before it fails with ErrTransient. Requests by which the server moves
	// data itself get ten times as long. 0 is one minute.
	Timeout time.Duration
}

const (
	maxKey   = 1024 // bytes; Azure counts characters
	maxDepth = 254  // components of a key
)

// container is the provider.
type container struct {
	httpio.Link
	client *azcontainer.Client
	auth   auth
	url    string // of the container, without a signature
	name   string
	prefix string // empty, or ending in '/'
	caps   backend.Caps
}

var (
	_ backend.Backend      = (*container)(nil)
	_ backend.Copier       = (*container)(nil)
	_ backend.Assembler    = (*container)(nil)
	_ backend.BatchDeleter = (*container)(nil)
)

// Open connects to a container. It fails at once, without retries, with
// ErrNoBucket, ErrCredentials, ErrPermission, ErrUnreachable or ErrInvalid.
func Open(ctx context.Context, opts Options) (backend.Backend, error) {
	if err := opts.check(); err != nil {
		return nil, backend.Fail("open", opts.Container, backend.ErrInvalid, err)
	}
	c := &container{Link: httpio.NewLink(opts.Transport, opts.Timeout), url: opts.Endpoint + "/" + opts.Container, prefix: strings.Trim(opts.Prefix, "/")}
	if c.prefix != "" {
		c.prefix += "/"
	}
	// Containers of other accounts may have that name.
	c.name = strings.TrimSuffix("az://"+opts.Container+"/"+c.prefix, "/") + "?endpoint=" + opts.Endpoint
	if err := c.connect(ctx, &opts); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.caps = backend.Caps{
		CondCreate: true, CondOverwrite: true, CondDelete: true, CondBatch: true, CondCopy: true, CondAssemble: true,
		Metadata: true, Copy: true, StrongList: true, ObjectPrefix: true,
		// 5000 MiB of one Put and 4000 of a part are for newer accounts only.
		MaxPut: 256 << 20, MaxCopy: 256 << 20, MaxPart: 100 << 20, MaxParts: 50000,
		MaxKey: maxKey - len(c.prefix), MaxMetadata: maxMetadata,
	}
	if opts.Caps != nil {
		opts.Caps(&c.caps)
	}
	return c, nil
}

// check completes the options.
func (o *Options) check() error {
	if o.Container == "" || strings.ContainsAny(o.Container, "/?#.") {
		return fmt.Errorf("%q is no name of a container", o.Container)
	}
	if prefix := strings.Trim(o.Prefix, "/"); len(prefix) >= maxKey || prefix != "" && badName(prefix) != nil {
		return fmt.Errorf("the prefix %.40q is not possible", prefix)
	}
	o.fromEnv()
	if o.Endpoint == "" {
		if o.Account == "" {
			return errors.New("which account? Set AZURE_STORAGE_ACCOUNT, or name it in the URL: az://ACCOUNT.blob.core.windows.net/CONTAINER")
		}
		o.Endpoint = "https://" + o.Account + ".blob.core.windows.net"
	}
	u, err := httpio.Endpoint(o.Endpoint)
	if err != nil {
		return fmt.Errorf("%w, as https://account.blob.core.windows.net, or http://host:port/account", err)
	}
	o.Endpoint = u.String()
	if o.Account == "" { // the first label of the host, or the path of an emulator
		if o.Account = strings.Trim(u.Path, "/"); o.Account == "" {
			o.Account, _, _ = strings.Cut(u.Hostname(), ".")
		}
	}
	return nil
}

func (c *container) Caps() backend.Caps { return c.caps }
func (c *container) Name() string       { return c.name }

// checkKey returns ErrBadKey for what Azure cannot hold under its own name.
func (c *container) checkKey(op, key string) error {
	if err := c.caps.CheckKey(op, key); err != nil {
		return err
	}
	err := badName(key)
	if err == nil && strings.Count(c.prefix+key, "/") >= maxDepth {
		err = fmt.Errorf("more than %d components", maxDepth)
	}
	if err != nil {
		return backend.Fail(op, key, backend.ErrBadKey, err)
	}
	return nil
}

// badName says why a name is not possible.
func badName(name string) error {
	if oddText(name) {
		return errors.New("a backslash, a control character, or no UTF-8")
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(name, "/"), "/") {
		if part == "" || strings.HasSuffix(part, ".") {
			return fmt.Errorf("the component %q", part)
		}
	}
	return nil
}

// oddText says whether XML cannot carry a text, or Azure takes it for another.
func oddText(s string) bool {
	odd := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == 0xfffe || r == 0xffff }
	return !utf8.ValidString(s) || strings.ContainsFunc(s, odd)
}

func (c *container) checkPut(op, key string, size int64, opts backend.PutOptions) error {
	if err := c.checkKey(op, key); err != nil {
		return err
	}
	return c.caps.CheckPut(op, key, size, opts)
}

func (c *container) blob(key string) *blockblob.Client {
	return c.client.NewBlockBlobClient(c.prefix + key)
}

// conditions are the headers of a condition; nil without.
func conditions(cond backend.Cond) *blob.AccessConditions {
	m := &blob.ModifiedAccessConditions{}
	switch {
	case cond.IfAbsent:
		m.IfNoneMatch = new(azcore.ETagAny)
	case cond.IfMatch != "":
		m.IfMatch = quoted(cond.IfMatch)
	default:
		return nil
	}
	return &blob.AccessConditions{ModifiedAccessConditions: m}
}

func quoted(etag string) *azcore.ETag { return new(azcore.ETag(`"` + etag + `"`)) }

func unquoted(etag *azcore.ETag) string {
	if etag == nil {
		return ""
	}
	return strings.Trim(string(*etag), `"`)
}

// value is what p points to; the zero value for nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
