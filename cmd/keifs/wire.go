package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/backend/httpio"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/backend/sched"
	"github.com/keifs/keifs/cache"
	"github.com/keifs/keifs/fs"
	"github.com/keifs/keifs/store"
)

// preflightTimeout bounds the first question to a store: who mounts waits for it.
const preflightTimeout = 15 * time.Second

// contentShare is the part of the memory that holds content: the one for a
// quarter. What is collected as garbage needs as much again, and buffers of
// requests, names and inodes have the rest.
const contentShare = 4

// shared is what all stores of this process share, however many it opens: one
// bound on their requests, one pool of connections. It is made once.
type shared struct {
	sched     *sched.Scheduler
	transport http.RoundTripper
}

func newShared() *shared {
	return &shared{sched.New(sched.Options{}), httpio.NewTransport()}
}

// remote is an open store, and what its requests pass on their way.
type remote struct {
	name string // canonical URL
	back backend.Backend
	log  *slog.Logger
}

// openRemote opens the store of a URL. Providers ask it one question on the
// way, without retries, so that what is wrong shows at once.
func (s *settings) openRemote(ctx context.Context, url string, log *slog.Logger) (*remote, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, preflightTimeout,
		fmt.Errorf("%w: no answer within %v", backend.ErrUnreachable, preflightTimeout))
	defer cancel()
	if err := s.fits(url); err != nil {
		return nil, err
	}
	providers, err := s.providers(log)
	if err != nil {
		return nil, err
	}
	opened, err := all.Open(ctx, url, providers)
	switch {
	case errors.Is(err, backend.ErrInvalid):
		return nil, usageError("%w", err)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", url, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	r := &remote{name: opened.Backend.Name(), log: log}
	r.back = retry.Wrap(s.shared.sched.Wrap(opened.Backend, opened.Host), retry.Options{Logger: log})
	return r, nil
}

func (r *remote) close() {
	if err := r.back.Close(); err != nil {
		r.log.Debug("store closed", "err", err)
	}
}

// storeOptions are the options of the store for who runs this process.
func (s *settings) storeOptions(log *slog.Logger) store.Options {
	o := store.Options{
		ReadOnly: s.readOnly,
		UID:      s.uid.or(os.Getuid()), GID: s.gid.or(os.Getgid()),
		FileMode: s.fileMode(), DirMode: s.dirMode(),
		Logger: log,
	}
	switch s.attrs.value {
	case "list":
		o.Attrs = store.AttrsList
	case "head":
		o.Attrs = store.AttrsHead
	default:
		o.Attrs = store.AttrsAuto
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
	*settings
	store *store.Store
	vol   store.Volume
	cache *cache.Cache // nil without
}

// openStack opens a store and the volume over it.
func openStack(ctx context.Context, m *mounting, log *slog.Logger) (_ *stack, err error) {
	if m.embedded {
		if err := os.MkdirAll(filePath(m.url), 0o700); err != nil {
			return nil, fail(exitSystem, "embedded store: %w", err)
		}
	}
	debug.SetMemoryLimit(int64(m.memory)) // near it, garbage is collected more often
	st := &stack{settings: m.settings}
	if st.store, st.remote, err = m.openStore(ctx, m.url, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close(ctx))
		}
	}()
	if m.embedded && !m.readOnly {
		if err := m.firstBranch(ctx, st.store); err != nil {
			return nil, err
		}
	}
	if m.cacheDir == "" {
		st.vol = store.NewDirect(st.store, store.DirectOptions{})
		return st, nil
	}
	st.cache, err = cache.Open(ctx, st.store, cache.Options{
		Dir: m.cacheDir, Size: orNone(int64(m.cacheSize)), Memory: int64(m.memory) / contentShare, MetadataTTL: time.Duration(orNone(m.metadataTTL)), Logger: log,
		SyncDeletes: m.syncDeletes, WriteBack: m.writeBack, JournalSync: m.journalSync, StrictExcl: m.strictExcl,
	})
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", m.cacheDir, err)
	}
	st.vol = st.cache
	return st, nil
}

// orNone says by -1 what a flag says by 0, which options take for the default.
func orNone[T ~int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// mount shows the volume at m.dir.
func (st *stack) mount(m *mounting, log *slog.Logger) (*fs.Server, error) {
	ttl := time.Duration(orNone(m.metadataTTL))
	if st.cache == nil {
		ttl = -1
	}
	server, err := fs.Mount(m.dir, st.vol, fs.Options{
		Source: m.source(), ReadOnly: m.readOnly, AllowOther: m.allowOther, TTL: ttl,
		UID: m.uid.or(os.Getuid()), GID: m.gid.or(os.Getgid()), MountOptions: m.kernel,
		Logger: log, Debug: m.debugFuse,
	})
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fail(exitSystem, "%w: this user or container may not mount (in a container: --cap-add SYS_ADMIN)", err)
	case err != nil && m.logPath != "": // fusermount3 says why to standard error, which that is
		return nil, fail(exitSystem, "%w; see %s", err, m.logPath)
	case err != nil:
		return nil, fail(exitSystem, "%w", err)
	}
	return server, nil
}

// close publishes what is pending, as store.Volume.Close, and releases the rest.
func (st *stack) close(ctx context.Context) error {
	var err error
	if st.vol != nil {
		err = st.vol.Close(ctx)
	}
	st.remote.close()
	return err
}

// stackStatus is what the packages below have counted.
type stackStatus struct {
	Unnameable struct {
		Count    int      `json:"count"`
		Examples []string `json:"examples,omitempty"`
	} `json:"unnameable"` // keys that the mount cannot show
	Conflicts int64           `json:"conflicts"` // changes that were stored beside, since the mount
	Cache     *cacheStatus    `json:"cache,omitempty"`
	Scheduler schedulerStatus `json:"scheduler"`
}

// cacheStatus are the counts of the cache since the mount.
type cacheStatus struct {
	Hits        int64 `json:"hits"` // names and attributes
	Misses      int64 `json:"misses"`
	ListHits    int64 `json:"list_hits"`
	ListMisses  int64 `json:"list_misses"`
	ChunkHits   int64 `json:"chunk_hits"` // pieces of files
	ChunkMisses int64 `json:"chunk_misses"`
	ChunkBytes  int64 `json:"chunk_bytes"`
	Entries     int64 `json:"entries"`
	OpenFiles   int64 `json:"open_files"`
}

// schedulerStatus is what is on the wire.
type schedulerStatus struct {
	Slots    int                   `json:"slots"`
	InFlight int                   `json:"in_flight"`
	Waiting  int                   `json:"waiting"`
	Hosts    map[string]hostStatus `json:"hosts"`
}

type hostStatus struct {
	Window    int   `json:"window"`
	InFlight  int   `json:"in_flight"`
	Throttled int64 `json:"throttled"`
}

func (st *stack) status() (out stackStatus) {
	below := st.store.Stats()
	out.Unnameable.Count, out.Unnameable.Examples = below.Unnameable, below.Examples
	out.Conflicts = below.Conflicts
	if st.cache != nil {
		c := st.cache.Stats()
		out.Cache = &cacheStatus{
			Hits: c.Hits + c.NegativeHits + c.Collapsed, Misses: c.Misses, ListHits: c.ListHits, ListMisses: c.ListMisses,
			ChunkHits: c.ChunkHits + c.ChunkCollapsed, ChunkMisses: c.ChunkMisses, ChunkBytes: c.ChunkBytes,
			Entries: c.Entries, OpenFiles: c.OpenFiles,
		}
	}
	s := st.shared.sched.Stats()
	out.Scheduler = schedulerStatus{Slots: s.Slots, InFlight: s.InFlight, Hosts: map[string]hostStatus{}}
	for _, n := range s.Waiting {
		out.Scheduler.Waiting += n
	}
	for name, h := range s.Hosts {
		out.Scheduler.Hosts[name] = hostStatus{h.Window, h.InFlight, h.Throttled}
	}
	return out
}

// openStore opens a store, without anything above it.
func (s *settings) openStore(ctx context.Context, url string, log *slog.Logger) (*store.Store, *remote, error) {
	r, err := s.openRemote(ctx, url, log)
	if err != nil {
		return nil, nil, err
	}
	opts := s.storeOptions(log)
	known := knownCaps{store: r.name, log: log}
	opts.Caps, opts.Probed = known.load(), known.save
	st, err := store.Open(ctx, r.back, opts)
	if err != nil {
		r.close()
		return nil, nil, fmt.Errorf("%s: %w", r.name, err)
	}
	return st, r, nil
}
