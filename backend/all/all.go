// Package all opens a store by its URL: it is the one place that knows every
// provider. A new provider gets one case in [Open].
package all

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/s3"
)

// Options are those of the providers; only that of the URL's scheme is used.
type Options struct {
	File file.Options
	S3   s3.Options // Bucket and Prefix are taken from the URL
}

// Opened is an open store and what wiring needs of it.
type Opened struct {
	// Backend is the bare provider: without scheduler and retries.
	Backend backend.Backend
	// Host is who answers, the key for a window of the scheduler.
	Host string
}

// Schemes are the forms of a store's URL, for help texts and errors.
const Schemes = "s3://BUCKET/PREFIX, file:///DIR or mem:NAME"

// Open opens the store of a URL: "s3://bucket/prefix", "file:///dir", which may
// also be written as the bare absolute path, or "mem:name", a new and empty
// store that ends with the process. Nothing in a URL is decoded: "%20" is three
// bytes of a prefix or path. The error is ErrInvalid for a URL that is none of
// these, else the provider's.
func Open(ctx context.Context, storeURL string, opts Options) (Opened, error) {
	scheme, rest, ok := strings.Cut(storeURL, ":")
	if filepath.IsAbs(storeURL) {
		scheme, rest, ok = "file", "//"+storeURL, true
	}
	if !ok {
		return Opened{}, invalid(storeURL, "it has no scheme")
	}
	place, slashed := strings.CutPrefix(rest, "//")
	switch scheme {
	case "s3":
		if !slashed {
			return Opened{}, invalid(storeURL, "// is missing")
		}
		return openS3(ctx, storeURL, place, opts.S3)
	case "file":
		if !slashed || !filepath.IsAbs(place) {
			return Opened{}, invalid(storeURL, "it has no absolute path")
		}
		b, err := file.Open(place, opts.File)
		if err != nil {
			return Opened{}, err
		}
		return Opened{b, "file"}, nil
	case "mem":
		return Opened{mem.New(rest, mem.Options{}), "mem"}, nil
	}
	return Opened{}, invalid(storeURL, fmt.Sprintf("the scheme %q is not known", scheme))
}

func openS3(ctx context.Context, storeURL, place string, opts s3.Options) (Opened, error) {
	opts.Bucket, opts.Prefix, _ = strings.Cut(place, "/")
	if opts.Bucket == "" {
		return Opened{}, invalid(storeURL, "it names no bucket")
	}
	if strings.ContainsAny(place, "?#") {
		return Opened{}, invalid(storeURL, "? and # have no meaning there; the endpoint is an option")
	}
	b, err := s3.Open(ctx, opts)
	if err != nil {
		return Opened{}, err
	}
	return Opened{b, host(b.Name(), opts.Bucket)}, nil
}

// host is who answers for an S3 bucket: the endpoint, which the store's name
// ends with wherever it was configured; at Amazon, where each bucket is
// throttled by itself, the bucket.
func host(name, bucket string) string {
	if _, endpoint, ok := strings.Cut(name, "?endpoint="); ok {
		if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
			return u.Host
		}
	}
	return bucket + ".s3.amazonaws.com"
}

func invalid(storeURL, why string) error {
	return fmt.Errorf("%w: store %q: %s (use %s)", backend.ErrInvalid, storeURL, why, Schemes)
}
