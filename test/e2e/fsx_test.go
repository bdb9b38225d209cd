package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestFSX exercises one file with random reads, writes, truncates and shared
// mappings, and compares each step with a copy in memory, in each mode of the
// cache. The seed is in the test's name: run it again with -run.
func TestFSX(t *testing.T) {
	for seed, flags := range [][]string{nil, {"--write-back"}, {"--write-back", "--journal-sync"}, {"--cache=off"}} {
		t.Run(fmt.Sprintf("seed=%d%s", seed, strings.Join(flags, "")), func(t *testing.T) {
			store := "file://" + t.TempDir()
			m := newHost(t).mount(store, flags...)
			m.sh(".", "mkdir main")
			x := &fsx{t: t, path: m.path("main", "fsx"), r: rand.New(rand.NewPCG(uint64(seed), 2))}
			x.open()
			for x.step = range 25_000 {
				x.one()
			}
			x.compareAll()
			x.must(x.f.Close())
			m.umount()
			m.start(store, "--cache=off")
			stored, err := os.ReadFile(x.path)
			x.must(err)
			x.equal(stored, x.want)
		})
	}
}

const fsxMax = 256 << 10

type fsx struct {
	t    *testing.T
	path string
	r    *rand.Rand
	f    *os.File
	want []byte // the content the file must have
	step int
	last string
}

func (x *fsx) open() {
	f, err := os.OpenFile(x.path, os.O_RDWR|os.O_CREATE, 0o644)
	x.must(err)
	x.f = f
}

func (x *fsx) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatalf("step %d %s: %v", x.step, x.last, err)
	}
}

// extent is a random range that begins at most at limit and ends at most at top.
func (x *fsx) extent(limit, top int) (off, n int) {
	off = x.r.IntN(limit + 1)
	return off, min(x.r.IntN(32<<10)+1, top-off)
}

func (x *fsx) one() {
	size := len(x.want)
	switch k := x.r.IntN(1000); {
	case k < 350:
		off, n := x.extent(size, fsxMax)
		x.last = fmt.Sprintf("read %d+%d of %d", off, n, size)
		buf := make([]byte, n)
		got, err := x.f.ReadAt(buf, int64(off))
		if err != nil && err != io.EOF {
			x.must(err)
		}
		x.equal(buf[:got], x.want[off:min(off+n, size)])
	case k < 650:
		off, n := x.extent(min(fsxMax-1, size+8192), fsxMax)
		x.last = fmt.Sprintf("write %d+%d of %d", off, n, size)
		data := x.random(n)
		_, err := x.f.WriteAt(data, int64(off))
		x.must(err)
		x.grow(off + n)
		copy(x.want[off:], data)
	case k < 720:
		n := x.r.IntN(fsxMax)
		x.last = fmt.Sprintf("truncate %d to %d", size, n)
		x.must(x.f.Truncate(int64(n)))
		x.grow(n)
		x.want = x.want[:n]
	case k < 840 && size > 0:
		off, n := x.extent(size-1, size)
		x.last = fmt.Sprintf("mapread %d+%d of %d", off, n, size)
		x.mapped(syscall.PROT_READ, func(p []byte) { x.equal(p[off:off+n], x.want[off:off+n]) })
	case k < 960 && size > 0:
		off, n := x.extent(size-1, size)
		x.last = fmt.Sprintf("mapwrite %d+%d of %d", off, n, size)
		data := x.random(n)
		x.mapped(syscall.PROT_READ|syscall.PROT_WRITE, func(p []byte) { copy(p[off:], data) })
		copy(x.want[off:], data)
	case k < 985 && size > 0:
		off, n := x.extent(size-1, size)
		x.last = fmt.Sprintf("punch %d+%d of %d", off, n, size)
		const keepSize, punchHole = 1, 2
		x.must(syscall.Fallocate(int(x.f.Fd()), keepSize|punchHole, int64(off), int64(n)))
		clear(x.want[off : off+n])
	case k < 990:
		x.last = "fsync"
		x.must(x.f.Sync())
	case k < 995:
		x.last = "close and open"
		x.must(x.f.Close())
		x.open()
		x.compareAll()
	default:
		x.last = "stat"
		st, err := x.f.Stat()
		x.must(err)
		if st.Size() != int64(size) {
			x.t.Fatalf("step %d: size is %d, want %d", x.step, st.Size(), size)
		}
	}
}

func (x *fsx) random(n int) []byte {
	p := make([]byte, n)
	word := byte(x.r.UintN(256))
	for i := range p {
		p[i] = word + byte(i*7)
	}
	return p
}

func (x *fsx) grow(n int) {
	if n > len(x.want) {
		x.want = append(x.want, make([]byte, n-len(x.want))...)
	}
}

func (x *fsx) mapped(prot int, use func([]byte)) {
	p, err := syscall.Mmap(int(x.f.Fd()), 0, len(x.want), prot, syscall.MAP_SHARED)
	x.must(err)
	use(p)
	x.must(syscall.Munmap(p))
}

func (x *fsx) equal(got, want []byte) {
	x.t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	x.t.Fatalf("step %d %s: got %d bytes, want %d; they differ from byte %d on", x.step, x.last, len(got), len(want), i)
}

func (x *fsx) compareAll() {
	x.t.Helper()
	got, err := os.ReadFile(x.path)
	x.must(err)
	x.equal(got, x.want)
}
