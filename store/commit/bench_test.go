package commit

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sort"
	"sync/atomic"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

// big is an entry of a tree of files, 500 in a directory, as a mount leaves them.
func big(i int, content string) Entry {
	hash := md5.Sum(fmt.Append(nil, i, content))
	path := fmt.Sprintf("data/part-%04d/object-%07d.bin", i/500, i)
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	modified := 1_790_000_000e9 + int64(i/20)*1e9
	return Entry{
		Path: path, Key: "main/" + path, ETag: hex.EncodeToString(hash[:]), Size: rnd.Int64N(1 << 20),
		Mode: 0o100644, UID: 1000, GID: 1000, Mtime: modified - rnd.Int64N(1e9), Modified: modified,
	}
}

// counting counts requests to ranges, and what is written.
type counting struct {
	backend.Backend
	gets, puts, bytes atomic.Int64
}

func (c *counting) Get(ctx context.Context, key string, opts backend.GetOptions, fn func(backend.Info, reader) error) error {
	c.gets.Add(1)
	return c.Backend.Get(ctx, key, opts, fn)
}

func (c *counting) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	c.puts.Add(1)
	c.bytes.Add(src.Size())
	return c.Backend.Put(ctx, key, src, opts)
}

// scattered are changes all over a tree of n.
func scattered(n, changes int) []Edit {
	var edits []Edit
	for i := range changes {
		e := big(i*(n/changes)+n/changes/2, "changed")
		edits = append(edits, Edit{Path: e.Path, Entry: &e})
	}
	sort.Slice(edits, func(i, j int) bool { return edits[i].Path < edits[j].Path })
	return edits
}

// BenchmarkMillion has the figures of a tree of 1,000,000 entries.
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	ctx := b.Context()
	store := &counting{Backend: mem.New("bench", mem.Options{})}
	repo := New(store, Options{})
	m, m2 := &Manifest{Branch: "main"}, &Manifest{Branch: "main"}

	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			w := repo.Writer(ctx)
			for i := range n {
				if err := w.Add(big(i, "")); err != nil {
					b.Fatal(err)
				}
			}
			ranges, err := w.Close()
			if err != nil {
				b.Fatal(err)
			}
			m.SetRanges(ranges)
			if err := repo.PutManifest(ctx, m); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(store.bytes.Load())/float64(b.N)/n, "B/entry")
		b.ReportMetric(float64(len(m.Ranges)), "ranges")
	})
	b.Run("edit", func(b *testing.B) {
		store.puts.Store(0)
		store.bytes.Store(0)
		for b.Loop() {
			ranges, err := New(store, Options{}).Edit(ctx, m, seq(scattered(n, 10)))
			if err != nil {
				b.Fatal(err)
			}
			m2.SetRanges(ranges)
			if err := repo.PutManifest(ctx, m2); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(store.puts.Load())/float64(b.N), "uploads")
		b.ReportMetric(float64(store.bytes.Load())/float64(b.N), "B-up")
	})
	b.Run("diff", func(b *testing.B) {
		store.gets.Store(0)
		for b.Loop() {
			fresh := New(store, Options{CacheBytes: 1})
			changes := 0
			for _, err := range Diff(ctx, fresh.Tree(m), fresh.Tree(m2)) {
				if err != nil {
					b.Fatal(err)
				}
				changes++
			}
			if changes != 10 {
				b.Fatal(changes)
			}
		}
		b.ReportMetric(float64(store.gets.Load())/float64(b.N), "ranges")
		b.ReportMetric(peak(), "MiB-heap")
	})
	b.Run("lookup", func(b *testing.B) {
		tree := New(store, Options{CacheBytes: 1 << 30}).Tree(m)
		for e, err := range tree.Walk(ctx, "", "") {
			if err != nil {
				b.Fatal(e, err)
			}
		}
		paths := make([]string, 4096)
		for i := range paths {
			paths[i] = big(rand.IntN(n), "").Path
		}
		i := 0
		for b.Loop() {
			i++
			if _, found, err := tree.Lookup(ctx, paths[i%len(paths)]); err != nil || !found {
				b.Fatal(found, err)
			}
		}
	})
}

func peak() float64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapSys) / (1 << 20)
}
