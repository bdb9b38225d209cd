package bench

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/history"
	"github.com/keifs/keifs/store/refs"
	"github.com/keifs/keifs/test/versitygw"
)

// BenchmarkHistory has the figures of commits of many entries, for a store in
// memory and for a server that is 20 ms away. What the commit names is not
// there: none of this looks at it.
func BenchmarkHistory(b *testing.B) {
	stores := map[string]func(*testing.B) backend.Backend{
		"memory": func(*testing.B) backend.Backend { return mem.New("bench", mem.Options{}) },
		"20ms":   farStore,
	}
	for name, open := range stores {
		for _, n := range []int{int(100_000 * *scale), int(1_000_000 * *scale)} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { benchHistory(b, open(b), n) })
		}
	}
}

// farStore is a new bucket behind the proxy.
func farStore(b *testing.B) backend.Backend {
	s := &site{b: b, srv: versitygw.Shared(b)}
	s.startProxy()
	if err := s.reset(Profile{Lag: 20 * time.Millisecond, Rate: 90e6}); err != nil {
		b.Fatal(err)
	}
	b.Setenv("AWS_ACCESS_KEY_ID", s.srv.AccessKey)
	b.Setenv("AWS_SECRET_ACCESS_KEY", s.srv.SecretKey)
	store, err := s3.Open(b.Context(), s3.Options{Bucket: s.srv.NewBucket(b), Endpoint: s.endpoint, Region: s.srv.Region})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

// committed is an entry of a tree of files, 500 in a directory, as a mount leaves them.
func committed(i int) commit.Entry {
	hash := md5.Sum(fmt.Append(nil, i))
	path := fmt.Sprintf("data/part-%04d/object-%07d.bin", i/500, i)
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	modified := 1_790_000_000e9 + int64(i/20)*1e9
	return commit.Entry{
		Path: path, Key: "main/" + path, ETag: hex.EncodeToString(hash[:]), Size: rnd.Int64N(1 << 20),
		Mode: 0o100644, UID: 1000, GID: 1000, Mtime: modified - rnd.Int64N(1e9), Modified: modified,
	}
}

func benchHistory(b *testing.B, raw backend.Backend, n int) {
	const changes = 10
	ctx := b.Context()
	record := fault.New()
	back := record.Wrap(raw)
	open := func(b *testing.B) (*store.Store, *history.Repo) {
		caps := back.Caps()
		st, err := store.Open(ctx, back, store.Options{Caps: &caps, UID: 1000, GID: 1000})
		if err != nil {
			b.Fatal(err)
		}
		// Nobody else is there who could go by an older ref.
		return st, history.New(back, st, history.Options{Settle: func(context.Context) error { return nil }})
	}
	var first *commit.Manifest
	b.Run("write", func(b *testing.B) { // of all entries
		for b.Loop() {
			m := &commit.Manifest{Branch: "main"}
			use := measure(func() error {
				repo := commit.New(back, commit.Options{})
				w := repo.Writer(ctx)
				for i := range n {
					if err := w.Add(committed(i)); err != nil {
						return err
					}
				}
				ranges, err := w.Close()
				if err != nil {
					return err
				}
				m.SetRanges(ranges)
				return repo.PutManifest(ctx, m)
			})
			use.report(b)
			first = m
		}
		var bytes int64
		for info, err := range backend.ListRecursive(ctx, raw, commit.RangeDir) {
			if err != nil {
				b.Fatal(err)
			}
			bytes += info.Size
		}
		b.ReportMetric(float64(bytes)/float64(n), "B/entry")
	})
	_, h := open(b)
	if _, err := h.Refs().Create(ctx, "main", refs.Ref{Head: first.ID}); err != nil {
		b.Fatal(err)
	}
	branches := 0
	next := func() string { branches++; return fmt.Sprintf("dev%d", branches) }
	b.Run("branch", func(b *testing.B) {
		for b.Loop() {
			_, h := open(b)
			record.ResetRequests()
			use := measure(func() error {
				m, held, err := h.FindHeld(ctx, "main")
				if err != nil {
					return err
				}
				return h.Fork(ctx, next(), m, held)
			})
			use.report(b)
			b.ReportMetric(float64(record.Count("")), "requests")
		}
	})
	var second *commit.Manifest
	b.Run("commit", func(b *testing.B) { // of changes all over the tree
		for b.Loop() {
			st, h := open(b)
			m, held, err := h.FindHeld(ctx, "main")
			if err != nil {
				b.Fatal(err)
			}
			dev := next()
			if err := h.Fork(ctx, dev, m, held); err != nil {
				b.Fatal(err)
			}
			for i := range changes {
				key := dev + "/" + committed(i*(n/changes)+n/changes/2).Path
				if _, err := st.Bucket().Put(ctx, key, backend.Bytes([]byte("changed")), backend.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			_, h = open(b)
			record.ResetRequests()
			use := measure(func() (err error) {
				second, err = h.Commit(ctx, dev, history.CommitOptions{Message: "changed"})
				return err
			})
			use.report(b)
			b.ReportMetric(float64(record.Count("put")), "uploads")
			b.ReportMetric(float64(record.Count("")), "requests")
		}
	})
	b.Run("diff", func(b *testing.B) {
		for b.Loop() {
			repo := commit.New(back, commit.Options{})
			record.ResetRequests()
			found := 0
			use := measure(func() error {
				for _, err := range commit.Diff(ctx, repo.Tree(first), repo.Tree(second)) {
					if err != nil {
						return err
					}
					found++
				}
				return nil
			})
			if found != changes {
				b.Fatal(found)
			}
			use.report(b)
			b.ReportMetric(float64(record.Count("get")), "ranges")
		}
	})
	b.Run("lookup", func(b *testing.B) { // warm
		tree := commit.New(back, commit.Options{CacheBytes: 1 << 30}).Tree(first)
		for _, err := range tree.Walk(ctx, "", "") {
			if err != nil {
				b.Fatal(err)
			}
		}
		const looks = 10_000
		for b.Loop() {
			use := measure(func() error {
				for range looks {
					if _, found, err := tree.Lookup(ctx, committed(rand.IntN(n)).Path); err != nil || !found {
						return fmt.Errorf("found %v: %w", found, err)
					}
				}
				return nil
			})
			b.ReportMetric(float64(use.cpu.Microseconds())/looks, "µs-cpu")
		}
	})
}

// usage is what something cost this process.
type usage struct {
	err  error
	cpu  time.Duration
	peak uint64 // bytes of the heap beyond what there was before, garbage included
}

// measure runs fn, and looks at the heap all the time.
func measure(fn func() error) usage {
	heap := func() uint64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	runtime.GC()
	before, cpu := heap(), ownCPU()
	peak := before
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, heap())
			case <-stop:
				return
			}
		}
	}()
	u := usage{err: fn()}
	close(stop)
	<-ended
	u.cpu, u.peak = ownCPU()-cpu, max(peak, heap())-before
	return u
}

func (u usage) report(b *testing.B) {
	b.Helper()
	if u.err != nil {
		b.Fatal(u.err)
	}
	b.ReportMetric(float64(u.cpu.Microseconds())/1000, "ms-cpu")
	b.ReportMetric(float64(u.peak)/(1<<20), "MiB-peak")
}
