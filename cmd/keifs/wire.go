package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/backend/sched"
	"github.com/keifs/keifs/store"
)

// preflightTimeout bounds the first question to a store: who mounts waits for it.
const preflightTimeout = 15 * time.Second

// remote is an open store, and what its requests pass on their way.
type remote struct {
	name  string // canonical URL
	sched *sched.Scheduler
	bare  backend.Backend // the provider alone: no retries
	back  backend.Backend
}

// openRemote opens the store of a URL and asks it one question without
// retries, so that what is wrong shows at once.
func (s *settings) openRemote(ctx context.Context, url string, log *slog.Logger) (*remote, error) {
	opened, err := all.Open(ctx, url, s.providers())
	if errors.Is(err, backend.ErrInvalid) {
		return nil, usageError("%w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	r := &remote{name: opened.Backend.Name(), sched: sched.New(sched.Options{}), bare: opened.Backend}
	r.back = retry.Wrap(r.sched.Wrap(r.bare, opened.Host), retry.Options{Logger: log})
	ctx, cancel := context.WithTimeoutCause(ctx, preflightTimeout,
		fmt.Errorf("%w: no answer within %v", backend.ErrUnreachable, preflightTimeout))
	defer cancel()
	if _, err := r.bare.ListPage(ctx, backend.ListOptions{Delimited: true, Limit: 1}); err != nil {
		r.close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	return r, nil
}

func (r *remote) close() error { return r.back.Close() }

// providers are the options of the providers.
func (s *settings) providers() all.Options { return all.Options{} }

// storeOptions are the options of the store for who runs this process.
func (s *settings) storeOptions(log *slog.Logger) store.Options {
	o := store.Options{
		ReadOnly: s.readOnly,
		UID:      s.uid.or(os.Getuid()), GID: s.gid.or(os.Getgid()),
		FileMode: 0o666 &^ uint32(s.umask), DirMode: 0o777 &^ uint32(s.umask),
		Logger: log,
	}
	switch s.conflict.value {
	case "fail":
		o.Policy = store.Fail
	case "overwrite":
		o.Policy = store.Overwrite
	default:
		o.Policy = store.KeepBoth
	}
	return o
}

// stack is everything below a mount.
type stack struct {
	*remote
	store *store.Store
	vol   store.Volume
	*settings
}

// openStack opens a store and the volume over it.
func openStack(ctx context.Context, m *mounting, log *slog.Logger) (_ *stack, err error) {
	if m.embedded {
		if err := os.MkdirAll(filePath(m.url), 0o700); err != nil {
			return nil, fail(exitSystem, "embedded store: %w", err)
		}
	}
	r, err := m.openRemote(ctx, m.url, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	st := &stack{remote: r, settings: m.settings}
	if st.store, err = store.Open(ctx, r.back, m.storeOptions(log)); err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	if m.embedded && !m.readOnly {
		if err := firstBranch(ctx, st.store); err != nil {
			return nil, err
		}
	}
	st.vol = store.NewDirect(st.store, store.DirectOptions{})
	return st, nil
}

// mount shows the volume at m.dir.
func (st *stack) mount(m *mounting, log *slog.Logger) (mounted, error) {
	return nil, errors.New("not wired yet")
}

// close releases what lies below the volume.
func (st *stack) close() error { return st.remote.close() }

// stackStatus is what the packages below have counted.
type stackStatus struct {
	Scheduler sched.Stats `json:"scheduler"`
}

func (st *stack) status() stackStatus { return stackStatus{Scheduler: st.sched.Stats()} }

func (s stackStatus) print(line func(name, format string, args ...any)) {
	line("requests", "%d on the wire of at most %d, %d waiting", s.Scheduler.InFlight, s.Scheduler.Slots, sum(s.Scheduler.Waiting[:]))
}

func sum(n []int) (total int) {
	for _, i := range n {
		total += i
	}
	return total
}

// openStore opens a store for a command that mounts nothing.
func (s *settings) openStore(ctx context.Context, url string) (*store.Store, *remote, error) {
	log := slog.New(slog.DiscardHandler)
	r, err := s.openRemote(ctx, url, log)
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(ctx, r.back, s.storeOptions(log))
	if err != nil {
		r.close()
		return nil, nil, fmt.Errorf("%s: %w", r.name, err)
	}
	return st, r, nil
}

// probe finds out what a store can do.
func (s *settings) probe(ctx context.Context, url string) (backend.Caps, string, error) {
	return backend.Caps{}, "", errors.New("not wired yet")
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
