// Package commit keeps trees of a branch as they were: manifests, which name
// ranges of sorted entries, in the bucket.
//
// The types to know are [Entry], one object as it was; [Manifest], a commit;
// [Repo], which reads and writes both and remembers what it read; [Writer],
// which makes ranges of sorted entries; [Tree], which answers for paths of a
// commit. What lies in the bucket is in store/FORMAT.md.
//
// Ranges are cut where a hash of the path says so, so that a stretch of a
// tree that did not change is the same range in the next commit, and costs
// neither reading nor writing. They are large, 65,536 entries at least and
// about 190,000 on average, so that a commit or a diff of a few changes in a
// million entries stays within a dozen requests wherever the changes are: a
// range of 7 MB is still little beside the listing of what it describes.
//
// Of a tree of 1,000,000 entries (BenchmarkMillion): 38 bytes an entry in the
// bucket, 6 ranges; 10 changes all over it upload 7 objects, and 4 for the ref
// and its log before and after; a diff of the two reads 12 ranges.
package commit

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/keifs/keifs/backend"
)

// The bounds of a range, in entries; the first is met by all but the last one.
const (
	MinRange = 64 << 10
	MaxRange = 512 << 10
	// cutBits of the hash of a path are zero where a range ends.
	cutBits = 17
)

// Where the records lie.
const (
	Dir      = ".kei/commits/"
	RangeDir = ".kei/ranges/"
)

// Key is the key of a commit's manifest.
func Key(id string) string { return Dir + "manifest-" + id + ".json" }

// RangeKey is the key of a range.
func RangeKey(id string) string { return RangeDir + id + ".parquet" }

// IDOfKey is the inverse of Key; ok is false for other keys.
func IDOfKey(key string) (id string, ok bool) { return between(key, Dir+"manifest-", ".json") }

// RangeOfKey is the inverse of RangeKey; ok is false for other keys.
func RangeOfKey(key string) (id string, ok bool) { return between(key, RangeDir, ".parquet") }

func between(key, before, after string) (id string, ok bool) {
	id, ok = strings.CutPrefix(key, before)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, after)
	return id, ok && ValidID(id)
}

// ValidID says whether id can be that of a commit or a range: 64 hexadecimal
// digits in lower case.
func ValidID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// Options of New. The zero value is usable.
type Options struct {
	CacheBytes int64 // of decoded ranges in memory; default 128 MiB
	MaxEntries int   // of a range, for tests; default MaxRange
	MinEntries int   // default MinRange
	CutBits    int   // default 17: one path in 131072
}

// Repo is the commits of one bucket. It remembers decoded ranges and
// manifests, which never change. Safe for concurrent use.
type Repo struct {
	b     backend.Backend
	opts  Options
	cache *cache
}

// New returns the commits of a bucket. It sends no request.
func New(b backend.Backend, opts Options) *Repo {
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = 128 << 20
	}
	if opts.MaxEntries <= 0 || opts.MaxEntries > MaxRange {
		opts.MaxEntries = MaxRange
	}
	if opts.MinEntries <= 0 {
		opts.MinEntries = min(MinRange, opts.MaxEntries)
	}
	if opts.CutBits <= 0 {
		opts.CutBits = cutBits
	}
	return &Repo{b: b, opts: opts, cache: newCache(opts.CacheBytes)}
}

// Manifest reads a commit and checks it against its id. The result is shared:
// it must not be changed. backend.ErrNotExist, backend.ErrCorrupt.
func (r *Repo) Manifest(ctx context.Context, id string) (*Manifest, error) {
	if !ValidID(id) {
		return nil, fmt.Errorf("commit %q: not an id: %w", id, backend.ErrInvalid)
	}
	v, err := r.cache.get(ctx, id, func(ctx context.Context) (any, int64, error) { return r.manifest(ctx, id) })
	if err != nil {
		return nil, err
	}
	return v.(*Manifest), nil
}

// CheckManifest is Manifest, but asks the bucket whatever is remembered.
func (r *Repo) CheckManifest(ctx context.Context, id string) (*Manifest, error) {
	m, _, err := r.manifest(ctx, id)
	return m, err
}

func (r *Repo) manifest(ctx context.Context, id string) (m *Manifest, size int64, err error) {
	data, _, err := backend.ReadAll(ctx, r.b, Key(id), maxManifest)
	if err != nil {
		return nil, 0, fmt.Errorf("commit %.12s: %w", id, err)
	}
	m, err = ParseManifest(id, data)
	return m, int64(len(data)), err
}

// PutManifest completes m with its id and writes it. The ranges must have
// been written before.
func (r *Repo) PutManifest(ctx context.Context, m *Manifest) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	m.ID = sum(data)
	// Without a condition: whoever wrote it before wrote the same.
	_, err = r.b.Put(ctx, Key(m.ID), backend.Bytes(data), backend.PutOptions{ContentType: "application/json"})
	if err != nil {
		return fmt.Errorf("commit %.12s: %w", m.ID, err)
	}
	return nil
}

// Tree is the tree of a commit. It sends no request. A nil manifest is the
// empty tree.
func (r *Repo) Tree(m *Manifest) *Tree {
	if m == nil {
		m = &Manifest{}
	}
	return &Tree{repo: r, ranges: m.Ranges}
}

// TreeOf is the tree of ranges that no manifest names yet.
func (r *Repo) TreeOf(ranges []Range) *Tree { return &Tree{repo: r, ranges: ranges} }

// CheckRange yields the entries of a range, which it reads from the bucket,
// whatever is remembered, and checks against its id and description. An error is
// yielded last: backend.ErrNotExist, backend.ErrCorrupt.
func (r *Repo) CheckRange(ctx context.Context, desc Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		d, err := r.fetch(ctx, desc)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for at := range d.len() {
			if !yield(d.entry(at), nil) {
				return
			}
		}
	}
}
