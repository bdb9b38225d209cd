// Package all opens a store by its URL: it is the one place that knows every
// provider. A new provider gets one case in [Open].
package all

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

// Options are those of the providers; only that of the URL's scheme is used.
type Options struct {
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
// also be written as the bare absolute path, or "mem:name", an empty store that
// lives as long as the process. The error is ErrInvalid for a URL that is none
// of these, else the provider's.
func Open(ctx context.Context, url string, opts Options) (Opened, error) {
	scheme, rest, ok := strings.Cut(url, ":")
	if filepath.IsAbs(url) {
		scheme, rest, ok = "file", url, true
	}
	if !ok {
		return Opened{}, invalid(url, "it has no scheme")
	}
	switch scheme {
	case "mem":
		return Opened{Backend: mem.New(strings.TrimPrefix(rest, "//"), mem.Options{}), Host: "mem"}, nil
	}
	return Opened{}, invalid(url, fmt.Sprintf("the scheme %q is not known", scheme))
}

func invalid(url, why string) error {
	return fmt.Errorf("%w: store %q: %s (use %s)", backend.ErrInvalid, url, why, Schemes)
}
