// Package all opens a store by its URL: it is the one place that knows every
// provider. A new provider gets one case in [Open].
package all

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/mem"
)

// Options are those of the providers; only that of the URL's scheme is used.
type Options struct {
	File file.Options
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

func invalid(storeURL, why string) error {
	return fmt.Errorf("%w: store %q: %s (use %s)", backend.ErrInvalid, storeURL, why, Schemes)
}
