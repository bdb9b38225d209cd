package main

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/store"
)

// entryLister and entryMaker are what a branch command needs of a root.
type entryLister interface {
	List(ctx context.Context, dir store.Path) iter.Seq2[store.Entry, error]
}

type entryMaker interface {
	Mkdir(ctx context.Context, p store.Path, attr store.Attr) (store.Entry, error)
}

var errNotWired = errors.New("not wired yet")

// stack is everything below a mount.
type stack struct {
	name string // canonical URL of the store
	vol  store.Volume
	*settings
}

func openStack(ctx context.Context, m *mounting, log *slog.Logger) (*stack, error) {
	return nil, errNotWired
}

func (st *stack) mount(m *mounting, log *slog.Logger) (mounted, error) { return nil, errNotWired }

func (st *stack) close() {}

// stackStatus is what the packages below have counted.
type stackStatus struct{}

func (st *stack) status() stackStatus { return stackStatus{} }

func (s stackStatus) print(line func(name, format string, args ...any)) {}

func (s *settings) storeBranches(ctx context.Context, url string) (branches, error) {
	return branches{}, errNotWired
}

func (s *settings) probe(ctx context.Context, url string) (backend.Caps, string, error) {
	return backend.Caps{}, "", errNotWired
}

// checkURL refuses the likely mistakes in a store's URL, with a hint; the rest
// of it is for all.Open.
func checkURL(url string) error {
	scheme, rest, ok := strings.Cut(url, ":")
	host, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	switch {
	case strings.Contains(host, "@"):
		return usageError("credentials do not belong in the URL of a store: put them into the AWS configuration or environment")
	case !ok && !filepath.IsAbs(url):
		return usageError("%q is neither a command nor a store: %s", url, all.Schemes)
	case (scheme == "s3" || scheme == "file") && !strings.HasPrefix(rest, "//"):
		want := scheme + "://" + strings.TrimLeft(rest, "/")
		if scheme == "file" {
			want = "file:///" + strings.TrimLeft(rest, "/")
		}
		return usageError("%q is not a store's URL: did you mean %s?", url, want)
	}
	return nil
}

// filePath is the folder of a file store; empty for another.
func filePath(url string) string {
	if path, ok := strings.CutPrefix(url, "file://"); ok {
		return path
	}
	if filepath.IsAbs(url) {
		return url
	}
	return ""
}
