package main

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"

	"github.com/keifs/keifs/backend"
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

// checkURL refuses what cannot be a store, with a hint.
func checkURL(url string) error {
	scheme, rest, ok := strings.Cut(url, ":")
	switch {
	case !ok:
		return usageError("%q is neither a command nor a store: s3://bucket[/prefix], file:///dir or mem:", url)
	case (scheme == "s3" || scheme == "file") && !strings.HasPrefix(rest, "//"):
		return usageError("%q: a store needs two slashes: %s://%s", url, scheme, strings.TrimLeft(rest, "/"))
	case scheme != "s3" && scheme != "file" && scheme != "mem":
		return usageError("%q: unknown kind of store %q: s3://bucket[/prefix], file:///dir or mem:", url, scheme)
	}
	return nil
}

// filePath is the folder of a file store; empty for another.
func filePath(url string) string {
	path, _ := strings.CutPrefix(url, "file://")
	if path == url {
		return ""
	}
	return path
}
