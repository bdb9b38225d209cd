package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// period is that of the content of a source: no place looks like one that is a
// block, a piece or a window away.
const period = 65521

var periods = func() []byte {
	r := rand.New(rand.NewPCG(7, 7))
	one := make([]byte, period)
	for i := range one {
		one[i] = byte(r.Uint32())
	}
	return bytes.Repeat(one, 5*mib/period)
}()

// contentAt is that of a source, n bytes up to 4 MiB.
func contentAt(off, n int64) []byte { return periods[off%period:][:n] }

// source is an object with that content.
type source struct {
	mu     sync.Mutex
	asked  []extent
	before func(ctx context.Context, off, n int64) error // of each request; may be nil
	cut    func(off int64) int64                         // bytes after which a body breaks, 0 for never; may be nil
}

var errBroken = errors.New("broken")

func (s *source) object(size int64) *object {
	return &object{key: "k", version: "v", size: size, read: func(ctx context.Context, off, n int64, fn func(io.Reader) error) error {
		s.mu.Lock()
		s.asked = append(s.asked, extent{off, off + n})
		s.mu.Unlock()
		if s.before != nil {
			if err := s.before(ctx, off, n); err != nil {
				return err
			}
		}
		if s.cut != nil {
			if after := s.cut(off); after > 0 {
				return fn(io.MultiReader(io.LimitReader(&endless{off}, after), errReader{errBroken}))
			}
		}
		return fn(io.LimitReader(&endless{off}, n))
	}}
}

type endless struct{ off int64 }

func (c *endless) Read(p []byte) (int, error) {
	n := copy(p, contentAt(c.off, mib))
	c.off += int64(n)
	return n, nil
}

// sizes are those of the requests, in KiB and in the order of their offsets.
func (s *source) sizes() (kibs []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.asked, func(a, b extent) int { return int(a.off - b.off) })
	for _, e := range s.asked {
		kibs = append(kibs, (e.end-e.off)/kib)
	}
	return kibs
}

func newReads() *reads { return &reads{fill: new(filling)} }

// read reads through a handle and compares.
func read(t testing.TB, f *fetcher, r *reads, o *object, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := r.readAt(t.Context(), f, o, p, off); err != nil {
		t.Errorf("%d bytes at %d: %v", n, off, err)
		return
	}
	if !bytes.Equal(p, contentAt(off, n)) {
		t.Errorf("%d bytes at %d: wrong", n, off)
	}
}

// What it costs to read 256 MiB from the begin to the end.
func TestRequestsOfASequentialRead(t *testing.T) {
	growing := slices.Concat(slices.Repeat([]int64{2048}, 8), slices.Repeat([]int64{4096}, 8), slices.Repeat([]int64{8192}, 24))
	for what, c := range map[string]struct {
		n    int64
		want []int64
	}{
		"by 1 MiB":   {mib, slices.Concat(slices.Repeat([]int64{1024}, 16), growing)},
		"by 128 KiB": {128 * kib, slices.Concat([]int64{128, 896}, slices.Repeat([]int64{1024}, 13), []int64{2048}, growing)},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { // so that how fast the source is does not depend on the machine
			f := newChunks(t, dir, 1<<30, 64*mib)
			src := new(source)
			o, r := src.object(256*mib), newReads()
			for off := int64(0); off < o.size; off += c.n {
				read(t, f, r, o, off, c.n)
			}
			f.work.Wait()
			if got := src.sizes(); !slices.Equal(got, c.want) {
				t.Errorf("%s: %d requests of KiB: %v", what, len(got), got)
			}
			if misses := f.misses.Load() * blockSize; misses > c.n {
				t.Errorf("%s: %d bytes were not read ahead", what, misses)
			}
		})
	}
}

// What it costs to read some of a file backward, or at equal distances.
func TestRequestsOfOtherReadsInOrder(t *testing.T) {
	growing := slices.Concat(slices.Repeat([]int64{4096}, 8), slices.Repeat([]int64{2048}, 8), slices.Repeat([]int64{1024}, 16))
	for what, c := range map[string]struct {
		off, step, n, count int64
		want                []int64 // with what was fetched ahead in vain
	}{
		"backward by 1 MiB":               {63 * mib, -mib, mib, 64, growing},
		"4 KiB of every 10 MiB":           {0, 10 * mib, 4 * kib, 20, slices.Repeat([]int64{128}, 26)},
		"4 KiB of every 10 MiB, backward": {200 * mib, -10 * mib, 4 * kib, 20, slices.Repeat([]int64{128}, 21)},
		"1 MiB of every 10 MiB":           {0, 10 * mib, mib, 20, slices.Repeat([]int64{1024}, 26)},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := newChunks(t, dir, 1<<30, 64*mib)
				src := new(source)
				o, r := src.object(256*mib), newReads()
				for i := range c.count {
					read(t, f, r, o, c.off+i*c.step, c.n)
					synctest.Wait()
				}
				r.close(f)
				f.work.Wait()
				if got := src.sizes(); !slices.Equal(got, c.want) {
					t.Errorf("%d requests of KiB: %v", len(got), got)
				}
			})
		})
	}
}

func TestAReadAtRandomFetchesOneBlock(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	src := new(source)
	o, r := src.object(1024*mib), newReads()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		read(t, f, r, o, rnd.Int64N(1<<18)*4096, 4096)
	}
	got := src.sizes()
	if len(got) > 100 || slices.Max(got) > 128 {
		t.Errorf("%d requests of KiB: %v", len(got), got)
	}
	// The first ones try out whether more is read around there.
	if blocks := countOf(got, 128); blocks != sparseAfter || countOf(got, 4) != len(got)-blocks {
		t.Errorf("%d of %d requests fetched a block", blocks, len(got))
	}
}

func countOf(all []int64, n int64) (c int) {
	for _, m := range all {
		if m == n {
			c++
		}
	}
	return c
}

func TestASecondReadAtRandomFetchesTheBlock(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	src := new(source)
	o, r := src.object(1024*mib), newReads()
	rnd := rand.New(rand.NewPCG(1, 2))
	blocks := rnd.Perm(1024 * mib / blockSize)[:sparseAfter+20]
	for _, part := range []int64{0, 3, 1, 2} {
		for _, b := range blocks {
			read(t, f, r, o, int64(b)*blockSize+part*5*4096, 4096)
		}
	}
	got := src.sizes()
	if len(got) != len(blocks)+20 || countOf(got, 128) != len(blocks) || countOf(got, 4) != 20 {
		t.Errorf("%d requests of KiB: %v", len(got), got)
	}
}

// Where what is fetched around a read is read as well, whole blocks pay.
func TestReadsNearOneAnotherFetchBlocks(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	src := new(source)
	o, r := src.object(1024*mib), newReads()
	for _, b := range rand.New(rand.NewPCG(1, 2)).Perm(1024 * mib / blockSize)[:40] {
		for _, part := range []int64{9, 3, 25} {
			read(t, f, r, o, int64(b)*blockSize+part*4096, 4096)
		}
	}
	if got := src.sizes(); len(got) != 40 || countOf(got, 128) != 40 {
		t.Errorf("%d requests of KiB: %v", len(got), got)
	}
}

func TestManyReadsAtRandomFetchTheFile(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	src := new(source)
	o, r := src.object(80*mib), newReads()
	for _, block := range rand.New(rand.NewPCG(1, 2)).Perm(640)[:fillAfter+10] {
		read(t, f, r, o, int64(block)*blockSize+5, 10)
	}
	f.work.Wait()
	before := len(src.sizes())
	for i := range int64(640) {
		read(t, f, r, o, i*blockSize, blockSize)
	}
	if got := src.sizes(); before <= fillAfter || len(got) != before {
		t.Errorf("%d requests, later %d", before, len(got))
	}
}

func TestAReaderGetsABlockBeforeTheRequestEnds(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	src := new(source)
	o := src.object(mib)
	block, release := make([]byte, blockSize), make(chan struct{})
	whole := o.read
	o.read = func(ctx context.Context, off, n int64, fn func(io.Reader) error) error {
		return whole(ctx, off, n, func(r io.Reader) error {
			return fn(io.MultiReader(io.LimitReader(r, blockSize), door(release), r))
		})
	}
	var both sync.WaitGroup
	both.Go(func() { read(t, f, newReads(), o, 0, mib) })
	for len(src.sizes()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := f.readAt(t.Context(), o, block, 0, false); err != nil || !bytes.Equal(block, contentAt(0, blockSize)) {
		t.Error(err)
	}
	close(release)
	both.Wait()
	if len(src.sizes()) != 1 {
		t.Errorf("%v", src.sizes())
	}
}

type door chan struct{}

func (d door) Read([]byte) (int, error) {
	<-d
	return 0, io.EOF
}

func TestAFailedReadAheadFailsNoRead(t *testing.T) {
	for what, src := range map[string]*source{
		"refused": {before: func(ctx context.Context, _, _ int64) error {
			if backend.PriorityOf(ctx) == backend.ReadAhead {
				return errBroken
			}
			return nil
		}},
		"cut": {cut: func(off int64) int64 { return off % (3 * mib) / 2 }},
	} {
		t.Run(what, func(t *testing.T) {
			if cut := src.cut; cut != nil { // each place once
				var seen sync.Map
				src.cut = func(off int64) int64 {
					if _, again := seen.LoadOrStore(off, true); again {
						return 0
					}
					return cut(off)
				}
			}
			f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
			o, r := src.object(32*mib), newReads()
			for off := int64(0); off < o.size; off += 128 * kib {
				p := make([]byte, 128*kib)
				err := r.readAt(t.Context(), f, o, p, off)
				if errors.Is(err, errBroken) { // its own request, not one ahead
					err = r.readAt(t.Context(), f, o, p, off)
				}
				if err != nil || !bytes.Equal(p, contentAt(off, 128*kib)) {
					t.Fatalf("at %d: %v", off, err)
				}
			}
		})
	}
}

func TestCloseEndsReadAhead(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk, err := openChunks(dir, "b", 1<<30)
		ok(t, err)
		f := newFetcher(disk, 128*mib)
		var ended atomic.Int64
		src := &source{before: func(ctx context.Context, off, _ int64) error {
			if off < 2*mib {
				return nil
			}
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		}}
		o, r := src.object(100*mib), newReads()
		read(t, f, r, o, 0, mib)
		read(t, f, r, o, mib, mib)
		synctest.Wait()
		if got := src.sizes(); len(got) < 4 || ended.Load() != 0 {
			t.Fatalf("%v, %d ended", got, ended.Load())
		}
		r.close(f)
		f.work.Wait()
		if int(ended.Load()) != len(src.sizes())-2 {
			t.Errorf("%d ended of %v", ended.Load(), src.sizes())
		}
		if len(f.spans)+len(f.all)+len(f.ahead.used) != 0 {
			t.Errorf("left: %v, %v, %v", f.spans, f.all, f.ahead.used)
		}
		n := len(src.sizes())
		r.note(t.Context(), f, o, 2*mib, mib)
		if len(src.sizes()) != n {
			t.Error("a closed handle reads ahead")
		}

		// Another handle still waits when the cache is closed.
		go func() {
			time.Sleep(time.Second)
			f.close()
		}()
		if err := newReads().readAt(t.Context(), f, o, make([]byte, 1), 50*mib); !errors.Is(err, store.ErrClosed) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWhoWaitsForADroppedReadAheadGetsIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk, err := openChunks(dir, "b", 1<<30)
		ok(t, err)
		f := newFetcher(disk, 128*mib)
		src := &source{before: func(ctx context.Context, _, _ int64) error {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			return ctx.Err()
		}}
		o, r := src.object(100*mib), newReads()
		read(t, f, r, o, 0, mib)
		read(t, f, r, o, mib, mib)
		r.note(t.Context(), f, o, 2*mib, 4*mib)
		synctest.Wait()
		n := len(src.sizes())
		var other sync.WaitGroup
		other.Go(func() { read(t, f, newReads(), o, 8*mib, kib) })
		synctest.Wait()
		r.close(f)
		other.Wait()
		if len(src.sizes()) > n {
			t.Errorf("fetched twice: %v", src.sizes())
		}
		f.close()
	})
}

func TestStreamsShareTheMemory(t *testing.T) {
	s := shares{max: 64 * mib, used: map[*track]time.Time{}}
	synctest.Test(t, func(t *testing.T) {
		a, b := new(track), new(track)
		if got, _ := s.share(a); got != 64*mib {
			t.Errorf("alone: %d", got)
		}
		if got, _ := s.share(b); got != 32*mib {
			t.Errorf("two: %d", got)
		}
		time.Sleep(idle + 1)
		if got, _ := s.share(a); got != 64*mib {
			t.Errorf("the other is idle: %d", got)
		}
		s.share(b)
		s.leave(b)
		if got, _ := s.share(a); got != 64*mib || len(s.used) != 1 {
			t.Errorf("the other has left: %d", got)
		}
	})
}

// A file that somebody else replaces while it is read ahead.
func TestNoReaderSeesTwoVersions(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{MetadataTTL: -1})
	b.put("main/f", strings.Repeat("old!", 16*mib/4))
	f := open(t, tree, "f", store.OpenFlags{})
	defer f.Close(t.Context())
	b.faults.Add(fault.Rule{Op: "get", From: 3, Times: 1, Do: func(context.Context, *backend.Op) error {
		b.put("main/f", strings.Repeat("new?", 16*mib/4))
		return nil
	}})
	p := make([]byte, mib)
	for off := int64(0); off < 16*mib; off += mib {
		n, err := f.ReadAt(t.Context(), p, off)
		if errors.Is(err, store.ErrStale) {
			break
		}
		if err != nil || strings.Count(string(p[:n]), "old!") != mib/4 {
			t.Fatalf("at %d: %.8q, %v", off, p[:n], err)
		}
	}
	b.faults.Clear()
	c.fetch.work.Wait()
	if got := readFile(t, tree, "f"); strings.Count(got, "new?") != 16*mib/4 {
		t.Errorf("afterwards %.8q", got)
	}
}

// A disk that takes nothing holds up no reader, and what waits for it does not
// grow without bound.
func TestMemoryStaysInBoundsWhenTheDiskIsStuck(t *testing.T) {
	const half = 8 * mib // of what was fetched last; as much may be ahead, and may wait for the disk
	f := newChunks(t, t.TempDir(), 1<<30, half)
	stuck := make(chan struct{})
	f.disk.write = func(*os.File, [][]byte, int64) error {
		<-stuck
		return unix.ENOSPC
	}
	defer close(stuck)
	o, r := new(source).object(48*mib), newReads()
	for off := int64(0); off < o.size; off += mib {
		read(t, f, r, o, off, mib)
		if n := heldBytes(f); n > 3*half+maxPiece {
			t.Fatalf("at %d: %d bytes in memory", off, n)
		}
	}
}

// heldBytes is how much content is in memory.
func heldBytes(f *fetcher) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := map[*block]bool{}
	for _, id := range f.memory.keys() {
		b, _ := f.memory.peek(id)
		held[b] = true
	}
	for s := range f.all {
		for _, b := range s.blocks {
			held[b] = true
		}
	}
	return int64(len(held)) * blockSize
}

func TestMemoryStaysInBoundsHoweverFilesAreRead(t *testing.T) {
	const half, size = 16 * mib, 64 * mib // memory as above
	for what, offset := range map[string]func(i int64, rnd *rand.Rand) int64{
		"streams":  func(i int64, _ *rand.Rand) int64 { return i * 64 * kib },
		"backward": func(i int64, _ *rand.Rand) int64 { return size - (i+1)*64*kib },
		"strides":  func(i int64, _ *rand.Rand) int64 { return i * 320 * kib % (size - 64*kib) / kib * kib },
		"at random, until all is fetched": func(_ int64, rnd *rand.Rand) int64 {
			return rnd.Int64N(size/4096) * 4096 / (64 * kib) * 64 * kib
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newChunks(t, t.TempDir(), 1<<30, half)
			var readers sync.WaitGroup
			for i := range uint64(4) {
				readers.Go(func() {
					o, r := new(source).object(size), newReads()
					o.key = string(rune('a' + i))
					defer r.fill.close(f)
					defer r.close(f)
					rnd := rand.New(rand.NewPCG(i, 1))
					for i := range int64(size / (64 * kib)) {
						read(t, f, r, o, offset(i, rnd), 4096+60*kib*(i%2))
						if n := heldBytes(f); n > 3*half+4*maxPiece {
							t.Errorf("after %d reads: %d bytes in memory", i, n)
							return
						}
					}
				})
			}
			readers.Wait()
		})
	}
}

// Several readers of a file that another host replaces again and again: what
// each gets through one handle is of one version.
func TestNoReaderSeesTwoVersionsHoweverOftenItIsReplaced(t *testing.T) {
	b := newBucket(t)
	_, tree := b.open(Options{MetadataTTL: -1})
	version := func(i int) string { return strings.Repeat(string(rune('a'+i)), 6*mib) }
	b.put("main/f", version(0))
	name := path(t, "f")
	var work sync.WaitGroup
	work.Go(func() {
		for i := range 20 {
			_, err := b.raw.Put(t.Context(), "main/f", backend.Bytes([]byte(version(1+i))), backend.PutOptions{})
			if err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		work.Go(func() {
			for range 4 {
				f, err := tree.Open(t.Context(), name, store.OpenFlags{})
				if err != nil {
					t.Error(err)
					return
				}
				p, seen := make([]byte, mib), byte(0)
				for off := int64(0); off < 6*mib; off += mib {
					n, err := f.ReadAt(t.Context(), p, off)
					if errors.Is(err, store.ErrStale) {
						break
					}
					if seen == 0 {
						seen = p[0]
					}
					if err != nil || n != mib || bytes.Count(p, []byte{seen}) != mib {
						t.Errorf("at %d: %d bytes, %q after %q, %v", off, n, p[0], seen, err)
						break
					}
				}
				if err := f.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
}
