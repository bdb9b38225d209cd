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
	"github.com/keifs/keifs/backend/azure"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/s3"
)

// Options are those of the providers; only that of the URL's scheme is used.
type Options struct {
	File  file.Options
	S3    s3.Options    // Bucket and Prefix are taken from the URL
	GCS   gcs.Options   // Bucket and Prefix are taken from the URL
	Azure azure.Options // Container and Prefix are taken from the URL
	Bunny bunny.Options // Zone and Prefix are taken from the URL
}

// Opened is an open store and what wiring needs of it.
type Opened struct {
	// Backend is the bare provider: without scheduler and retries.
	Backend backend.Backend
	// Host is who answers, the key for a window of the scheduler.
	Host string
}

// Schemes are the forms of a store's URL, for help texts and errors.
const Schemes = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, bunny://ZONE/PREFIX, file:///DIR or mem:NAME"

// Open opens the store of a URL: "s3://bucket/prefix", "gs://bucket/prefix",
// "az://container/prefix", also with the host of the account before the
// container, "bunny://zone/prefix", "file:///dir", which may also be written as
// the bare absolute path, or "mem:name", a new and empty store that ends with
// the process. Nothing in a URL is decoded: "%20" is three bytes of a prefix or
// path. The error is ErrInvalid for a URL that is none of these, else the
// provider's.
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
	case "s3", "gs", "az", "bunny":
		if !slashed {
			return Opened{}, invalid(storeURL, "// is missing")
		}
		bucket, prefix, err := splitPlace(storeURL, place)
		if err != nil {
			return Opened{}, err
		}
		return openBucket(ctx, scheme, bucket, prefix, opts)
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

func openBucket(ctx context.Context, scheme, bucket, prefix string, opts Options) (Opened, error) {
	switch scheme {
	case "gs":
		opts.GCS.Bucket, opts.GCS.Prefix = bucket, prefix
		b, err := gcs.Open(ctx, opts.GCS)
		return opened(b, bucket+".storage.googleapis.com", err)
	case "az":
		// A container's name has no dots: this is the host of an account.
		if strings.Contains(bucket, ".") {
			opts.Azure.Endpoint = "https://" + bucket
			bucket, prefix, _ = strings.Cut(prefix, "/")
		}
		opts.Azure.Container, opts.Azure.Prefix = bucket, prefix
		b, err := azure.Open(ctx, opts.Azure)
		return opened(b, bucket, err)
	case "bunny":
		opts.Bunny.Zone, opts.Bunny.Prefix = bucket, prefix
		b, err := bunny.Open(ctx, opts.Bunny)
		return opened(b, bucket+".storage.bunnycdn.com", err)
	}
	opts.S3.Bucket, opts.S3.Prefix = bucket, prefix
	b, err := s3.Open(ctx, opts.S3)
	return opened(b, bucket+".s3.amazonaws.com", err)
}

// splitPlace is the bucket and the prefix of "bucket/prefix".
func splitPlace(storeURL, place string) (bucket, prefix string, err error) {
	bucket, prefix, _ = strings.Cut(place, "/")
	switch {
	case bucket == "":
		err = invalid(storeURL, "it names no bucket")
	case strings.ContainsAny(place, "?#"):
		err = invalid(storeURL, "? and # have no meaning there; the endpoint is an option")
	}
	return bucket, prefix, err
}

// opened tells who answers for a bucket: the endpoint, which the store's name
// ends with wherever it was configured; else host, of the bucket alone, since
// the large stores throttle each by itself.
func opened(b backend.Backend, host string, err error) (Opened, error) {
	if err != nil {
		return Opened{}, err
	}
	if _, endpoint, ok := strings.Cut(b.Name(), "?endpoint="); ok {
		if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
			host = u.Host
		}
	}
	return Opened{b, host}, nil
}

func invalid(storeURL, why string) error {
	return fmt.Errorf("%w: store %q: %s (use %s)", backend.ErrInvalid, storeURL, why, Schemes)
}
