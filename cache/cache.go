// Package cache is the volume that mounts use: a store with its metadata and
// contents cached on this machine, and with writes staged on the local disk.
//
// The types to know are [Cache], which is a store.Volume; tree, one branch of
// it; inode, an open file that its handles share; and, below them, metadata
// (what the bucket said a moment ago), chunks (pieces of object versions on
// disk) and staging (contents that are not in the bucket yet).
//
// It is write-through by default: Flush, and so close(2), returns when the
// object is in the bucket. With Options.WriteBack it returns when the staged
// content and a record in the journal (package cache/journal) will outlive this
// process; uploads publishes it a moment later, and Open takes up what a
// process that was killed has left. Sync, and so fsync(2), returns when the
// object is in the bucket either way.
//
// Locks are taken in the order gate (claims on paths, the only ones held
// across requests), tree.mu, inode.mu, uploads.mu.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// Options of Open. The zero value is usable.
type Options struct {
	// Dir is the folder for everything on the local disk; default "keifs" in
	// the user's cache folder. It belongs to one Cache at a time: where it is
	// taken, the first free one of Dir/2, Dir/3, … is used.
	Dir string
	// Size is how many bytes of chunks are kept on disk; default 10 GiB,
	// negative keeps none. A twentieth of the disk, or 1 GiB, is left free.
	Size int64
	// Memory bounds the content in memory: half of it is what was fetched
	// last, and half what may be read ahead of the readers; default 128 MiB,
	// negative keeps none, and reads nothing ahead.
	Memory int64
	// MetadataTTL is for how long an answer of the bucket about names and
	// attributes is good; default 1 s. Negative asks every time.
	MetadataTTL time.Duration
	// MetadataEntries bounds the names that are remembered; default 100,000.
	MetadataEntries int

	// WriteBack lets Flush return before the bucket has the file.
	WriteBack bool
	// Pending is how many bytes may wait for the bucket with WriteBack; who
	// comes with more waits as without. Default Size, and 1 GiB at least.
	Pending int64
	// JournalSync makes Flush wait until the disk has what it acknowledges,
	// instead of JournalEvery, default 1 s, later.
	JournalSync  bool
	JournalEvery time.Duration
	// StrictExcl makes an exclusive create ask the bucket also with
	// WriteBack, so that it excludes other hosts from the start.
	StrictExcl bool

	// SyncDeletes makes a removal wait until the bucket has done it.
	SyncDeletes bool

	Logger *slog.Logger

	patchFrom, streamPart int64 // see the constants; less in tests
	attributes            int   // that are kept on the disk, of the files asked about last; default 500,000
}

const (
	defaultSize     = 10 << 30
	defaultMemory   = 128 << 20
	defaultTTL      = time.Second
	defaultEntries  = 100_000
	maxTouchedDirs  = 10_000
	firstRetryAfter = time.Second // of a failed publication nobody waits for
	lastRetryAfter  = 5 * time.Minute
)

// Cache is a store.Volume. Make one with Open.
type Cache struct {
	store *store.Store // the view above the branches
	log   *slog.Logger
	dir   *dir
	meta  *metadata
	chunk *chunks
	fetch *fetcher
	stage *staging
	opts  Options

	journal  *journal.Journal
	removals *removals
	renames  *dirRenames
	uploads  *uploads
	room     room
	promised atomic.Int64 // bytes that are acknowledged and not in the bucket

	siblings *siblings

	ctx    context.Context // ends when Close gives up or is done
	cancel context.CancelFunc
	quit   chan struct{} // closed when Close begins
	asked  atomic.Uint64 // questions to the bucket about files to open, in order

	mu    sync.Mutex
	trees map[string]*tree
	tasks sync.WaitGroup // retries; none is added after quit

	copyMu sync.Mutex
	copies map[*inode]struct{} // whose content is still only a reference to an object
}

var _ store.Volume = (*Cache)(nil)

// Open makes a Cache of a store. It reads and cleans the local folder and
// sends no request. store.ErrCache where the folder cannot be used.
func Open(_ context.Context, s *store.Store, opts Options) (*Cache, error) {
	if opts.Dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("%w: no cache folder given, and none known: %v", store.ErrCache, err)
		}
		opts.Dir = filepath.Join(base, "keifs")
	}
	if opts.Size == 0 {
		opts.Size = defaultSize
	}
	if opts.patchFrom == 0 {
		opts.patchFrom = patchFrom
	}
	if opts.streamPart == 0 {
		opts.streamPart = streamPart
	}
	if opts.Pending <= 0 {
		opts.Pending = max(opts.Size, defaultSize/10)
	}
	if opts.Memory == 0 {
		opts.Memory = defaultMemory
	}
	if opts.MetadataTTL == 0 {
		opts.MetadataTTL = defaultTTL
	}
	if opts.MetadataEntries == 0 {
		opts.MetadataEntries = defaultEntries
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		store: s.RootView(), log: opts.Logger, opts: opts,
		trees: map[string]*tree{}, copies: map[*inode]struct{}{}, quit: make(chan struct{}),
		room: room{ended: make(chan struct{})},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.meta = newMetadata(opts.MetadataTTL, opts.MetadataEntries, s.Frozen)
	c.uploads = newUploads(c)
	c.removals, c.renames = newRemovals(c), &dirRenames{c: c}
	if err := c.openDisk(); err != nil {
		c.cancel()
		return nil, err
	}
	c.siblings = &siblings{c: c, budget: max(opts.Memory, 0) / 2 / aheadFraction}
	c.tasks.Go(c.uploads.run)
	c.tasks.Go(func() { c.meta.kept.run(c.quit) })
	c.removals.start()
	c.renames.start()
	return c, nil
}

// openDisk opens everything in the first folder that is free and has no
// records of another store.
func (c *Cache) openDisk() (err error) {
	for n := 1; ; n++ {
		if c.dir, n, err = openDir(c.opts.Dir, n); err != nil {
			return err
		}
		if err = c.openIn(c.dir); err == nil {
			return nil
		}
		if c.journal != nil {
			err = errors.Join(err, c.journal.Close())
		}
		if c.meta.kept != nil {
			err = errors.Join(err, c.meta.kept.shelf.Close())
		}
		c.dir.close()
		if !errors.Is(err, journal.ErrForeign) {
			return err
		}
		c.log.Warn("this cache folder has files for another bucket, which a mount of that has to take up", "folder", c.dir.root, "error", err)
	}
}

func (c *Cache) openIn(d *dir) (err error) {
	if c.stage, err = openStaging(d.path("staging")); err != nil {
		return err
	}
	c.journal, err = journal.Open(d.path("journal"), journal.Options{
		Store: c.store.BackendName(), SyncEach: c.opts.JournalSync, SyncEvery: c.opts.JournalEvery, BeforeSync: c.stage.sync, Logger: c.log,
	})
	switch {
	case errors.Is(err, journal.ErrForeign), errors.Is(err, journal.ErrFormat):
		return fmt.Errorf("%w: %w", store.ErrCache, err)
	case err != nil:
		return diskError(err)
	}
	c.meta.kept = openKept(d.path("attributes"), c.store, c.opts.attributes, c.log)
	if c.chunk, err = openChunks(d.path("chunks"), c.store.BackendName(), c.opts.Size); err != nil {
		return err
	}
	c.fetch = newFetcher(c.chunk, c.opts.Memory)
	c.stage.relieve = c.chunk.relieve
	return c.replay()
}

// check returns store.ErrClosed after Close has begun.
func (c *Cache) check() error {
	if c.closed() {
		return fmt.Errorf("volume: %w", store.ErrClosed)
	}
	return nil
}

func (c *Cache) closed() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// await waits until done is closed. store.ErrClosed where the cache is before.
func (c *Cache) await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-c.quit:
		return fmt.Errorf("volume: %w", store.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs fn on a goroutine that Close waits for.
func (c *Cache) start(fn func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(); err != nil {
		return err
	}
	c.tasks.Go(fn)
	return nil
}

// bound is ctx, ending with the cache too.
func (c *Cache) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// detach is a context for what must not be left half done when the request
// that began it is interrupted: it ends only with the cache.
func (c *Cache) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return c.bound(context.WithoutCancel(ctx))
}
