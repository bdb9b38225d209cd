package cache

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// With memory for few blocks each is used again and again while others read.
func TestABlockIsNotUsedAgainWhileSomebodyReadsIt(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 4*blockSize)
	o := new(source).object(3 * mib)
	var readers sync.WaitGroup
	for i := range uint64(4) {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(i, 1))
			for range 100 {
				off := rnd.Int64N(o.size)
				read(t, f, newReads(), o, off, min(o.size-off, 1+rnd.Int64N(3*blockSize)))
				if rnd.IntN(8) == 0 {
					f.disk.forget(f.id(o, off/blockSize).chunk)
				}
			}
		})
	}
	readers.Wait()
}

func TestADiskThatTakesNoDirectWritesKeepsChunksToo(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, 64*mib)
	var direct int
	f.disk.write = func(file *os.File, parts [][]byte, off int64) error {
		if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT != 0 {
			direct++
			return unix.EINVAL
		}
		return writeParts(file, parts, off)
	}
	content := strings.Repeat("0123456789abcdef", 3*blockSize/16+1)
	if !want(t, f, "k", content) {
		t.Error("it was here before")
	}
	f = newChunks(t, f.disk.dir, 1<<30, 64*mib)
	if want(t, f, "k", content) || f.disk.corrupt.Load()+f.disk.failed.Load() != 0 {
		t.Error("it was not kept")
	}
	if direct == 0 {
		t.Error("no direct write was tried")
	}
}

func TestAPartOfABlockIsReadWhenAllOfItWasCompared(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, -1)
	content := strings.Repeat("0123456789abcdef", 2*blockSize/16)
	want(t, f, "k", content)
	f = newChunks(t, f.disk.dir, 1<<30, -1)
	o := objectOf("k", content, func(_ context.Context, off, n int64) error {
		t.Logf("asked for %d at %d", n, off)
		return nil
	})
	id := f.id(o, 0).chunk
	part := func() {
		t.Helper()
		p := make([]byte, 10)
		if _, err := f.readAt(t.Context(), o, p, 100, false); err != nil || string(p) != content[100:110] {
			t.Fatalf("%q, %v", p, err)
		}
		f.work.Wait()
	}
	part()
	_, first := f.disk.whole(id, run(0, 1))
	_, second := f.disk.whole(id, run(1, 2))
	if !first || second {
		t.Error("not what was read is known to be whole")
	}
	part()

	// Another process knows nothing, and finds what is broken elsewhere in the block.
	f = newChunks(t, f.disk.dir, 1<<30, -1)
	file, err := os.OpenFile(f.disk.file(id), os.O_WRONLY, 0)
	ok(t, err)
	_, err = file.WriteAt([]byte("broken"), 5000)
	ok(t, err)
	ok(t, file.Close())
	part()
	if f.disk.corrupt.Load() != 1 {
		t.Errorf("%d corrupt", f.disk.corrupt.Load())
	}
}
