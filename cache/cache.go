// Package cache is the volume that mounts use: a store with its metadata and
// contents cached on this machine, and with writes staged on the local disk.
//
// The types to know are [Cache], which is a store.Volume; tree, one branch of
// it; inode, an open file that its handles share; and, below them, metadata
// (what the bucket said a moment ago), chunks (pieces of object versions on
// disk) and staging (contents that are not in the bucket yet).
//
// It is write-through: Flush, and so close(2), returns when the object is in
// the bucket. Locks are taken in the order gate (claims on paths, the only
// ones held across requests), tree.mu, inode.mu.
package cache

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keifs/keifs/store"
)

// Options of Open. The zero value is usable.
type Options struct {
	// Dir is the folder for everything on the local disk; default "keifs" in
	// the user's cache folder. It belongs to one Cache at a time: where it is
	// taken, the first free one of Dir/2, Dir/3, … is used.
	Dir string
	// Size is how many bytes of chunks are kept on disk; default 10 GiB,
	// negative keeps none.
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
	Logger          *slog.Logger
}

const (
	defaultSize     = 10 << 30
	defaultMemory   = 128 << 20
	defaultTTL      = time.Second
	defaultEntries  = 100_000
	maxTouchedDirs  = 10_000
	publishAtOnce   = 16          // of Sync; requests are bounded by the scheduler
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
	d, err := openDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		store: s.RootView(), log: opts.Logger, dir: d,
		trees: map[string]*tree{}, copies: map[*inode]struct{}{}, quit: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.meta = newMetadata(opts.MetadataTTL, opts.MetadataEntries)
	if c.chunk, err = openChunks(d.path("chunks"), s.BackendName(), opts.Size); err == nil {
		c.fetch = newFetcher(c.chunk, opts.Memory)
		c.stage, err = openStaging(d.path("staging"))
	}
	if err != nil {
		c.cancel()
		d.close()
		return nil, err
	}
	c.stage.relieve = c.chunk.relieve
	c.siblings = &siblings{c: c, budget: max(opts.Memory, 0) / 2 / aheadFraction}
	return c, nil
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
