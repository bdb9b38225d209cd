// Package bunny is the provider for Bunny Storage by its own HTTP API.
//
// That API stores, reads, removes and lists, and that is all: no conditions,
// no copies, no metadata, no uploads in parts. Caps says so, and what is above
// degrades to one writer, attributes that are not kept, and renames through
// the client.
//
// A zone has real directories, which stay when their last file goes, and whose
// removal takes along whatever is in them. Keys have none: a directory without
// a file below it is not shown, the object "dir/" is the file [Marker] in it,
// and only the removal of that object removes a directory, where it is empty.
package bunny

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

const (
	// KeyEnv names the variable with the zone's password.
	KeyEnv = "BUNNY_STORAGE_KEY"
	// RegionEnv names the variable with the zone's region.
	RegionEnv = "BUNNY_REGION"

	// Marker is the name of the file that stands for the object "dir/".
	Marker = ".keifs-directory"

	// maxKey is our own bound, in bytes: Bunny documents none.
	maxKey = 1024
)

// Options says which zone it is. Zone is needed, and a key.
type Options struct {
	Zone   string
	Prefix string // of all keys; slashes at its ends make no difference

	Key      string // the zone's password; empty: of the environment
	Region   string // "de", "ny", …; empty: of the environment, else "de"
	Endpoint string // "https://host" in place of the region's

	// Caps changes what is assumed of the zone.
	Caps func(*backend.Caps)

	// Transport carries the requests; nil is one of [httpio.NewTransport] that
	// ends with the backend.
	Transport http.RoundTripper

	// Timeout is how long a request may make no progress, bodies included,
	// before it fails with ErrTransient. 0 is one minute.
	Timeout time.Duration
}

// zone is the provider.
type zone struct {
	httpio.Link
	client   *http.Client
	endpoint string // "https://host"
	zone     string
	prefix   string // empty, or ending in '/'
	name     string
	key      string
	caps     backend.Caps
	gate     gate
}

var _ backend.Backend = (*zone)(nil)

// Open connects to a zone, by listing it. It fails at once, without retries,
// with ErrCredentials, ErrUnreachable, ErrInvalid or the like.
func Open(ctx context.Context, opts Options) (backend.Backend, error) {
	endpoint, err := opts.check()
	if err != nil {
		return nil, backend.Fail("open", opts.Zone, backend.ErrInvalid, err)
	}
	z := &zone{Link: httpio.NewLink(opts.Transport, opts.Timeout), endpoint: endpoint, zone: opts.Zone, prefix: strings.Trim(opts.Prefix, "/"), key: opts.Key}
	z.client = z.HTTPClient()
	if z.key == "" {
		z.key = os.Getenv(KeyEnv)
	}
	if z.key == "" {
		return nil, backend.Fail("open", opts.Zone, backend.ErrCredentials, errors.New("set "+KeyEnv+" to the password of the zone"))
	}
	if z.prefix != "" {
		z.prefix += "/"
	}
	z.name = strings.TrimSuffix("bunny://"+z.zone+"/"+z.prefix, "/")
	if opts.Endpoint != "" {
		z.name += "?endpoint=" + endpoint // a zone of that name elsewhere is another one
	}
	z.caps = backend.Caps{MaxKey: maxKey - len(z.prefix)}
	if opts.Caps != nil {
		opts.Caps(&z.caps)
	}
	if _, _, err := z.list(ctx, "open", ""); err != nil {
		return nil, errors.Join(err, z.Close())
	}
	return z, nil
}

// check returns the endpoint.
func (o *Options) check() (string, error) {
	if o.Zone == "" || strings.ContainsAny(o.Zone, "/?#") {
		return "", fmt.Errorf("%q is no name of a zone", o.Zone)
	}
	if prefix := strings.Trim(o.Prefix, "/"); len(prefix) >= maxKey || prefix != "" && badPath(prefix) != nil {
		return "", fmt.Errorf("the prefix %.40q is not possible", prefix)
	}
	if o.Endpoint != "" {
		u, err := httpio.Endpoint(o.Endpoint)
		if err != nil {
			return "", err
		}
		if u.Path != "" {
			return "", errors.New("the endpoint has no path")
		}
		return u.String(), nil
	}
	region := o.Region
	if region == "" {
		region = os.Getenv(RegionEnv)
	}
	switch region = strings.ToLower(region); {
	case region == "" || region == "de":
		return "https://storage.bunnycdn.com", nil
	case !regexp.MustCompile(`^[a-z]+$`).MatchString(region):
		return "", fmt.Errorf("%q is no region: use de, uk, ny, la, sg, se, br, jh or syd", region)
	}
	return "https://" + region + ".storage.bunnycdn.com", nil
}

func (z *zone) Caps() backend.Caps { return z.caps }
func (z *zone) Name() string       { return z.name }

// checkKey returns ErrBadKey for what no path of a zone can be.
func (z *zone) checkKey(op, key string) error {
	if err := z.caps.CheckKey(op, key); err != nil {
		return err
	}
	if err := badPath(strings.TrimSuffix(key, "/")); err != nil {
		return backend.Fail(op, key, backend.ErrBadKey, err)
	}
	return nil
}

// badPath says why a path cannot be one of a zone: its components are names of
// directories, and listings are JSON.
func badPath(path string) error {
	if !utf8.ValidString(path) || strings.ContainsAny(path, "\x00\\") {
		return errors.New("no UTF-8, or a backslash, which may be taken for a slash")
	}
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".", "..":
			return fmt.Errorf("the component %q", part)
		case Marker:
			return errors.New("the name is that of a directory's marker")
		}
	}
	return nil
}

// path is the path in the zone of a key: for "dir/", that of the marker.
func (z *zone) path(key string) string {
	if key == "" || strings.HasSuffix(key, "/") {
		key += Marker
	}
	return z.prefix + key
}

// url is the address of a path in the zone.
func (z *zone) url(path string) string {
	parts := strings.Split(z.zone+"/"+path, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return z.endpoint + "/" + strings.Join(parts, "/")
}
