package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend/fault"
)

func TestFallocateExtendsAndZeroes(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		for _, c := range []struct {
			what      string
			mode      uint32
			off, size int64
			want      string
			err       error
		}{
			{what: "extend", off: 8, size: 4, want: "0123456789\x00\x00"},
			{what: "within", off: 2, size: 4, want: "0123456789"},
			{what: "keep the size", mode: unix.FALLOC_FL_KEEP_SIZE, off: 8, size: 100, want: "0123456789"},
			{what: "punch", mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, off: 2, size: 3, want: "01\x00\x00\x0056789"},
			{what: "punch beyond the end", mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, off: 8, size: 100, want: "01234567\x00\x00"},
			{what: "zero", mode: unix.FALLOC_FL_ZERO_RANGE, off: 8, size: 4, want: "01234567\x00\x00\x00\x00"},
			{what: "zero within the size", mode: unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, off: 8, size: 4, want: "01234567\x00\x00"},
			{what: "collapse", mode: unix.FALLOC_FL_COLLAPSE_RANGE, off: 0, size: 4096, want: "0123456789", err: unix.EOPNOTSUPP},
		} {
			t.Run(c.what, func(t *testing.T) {
				write(t, name, "0123456789")
				f, err := os.OpenFile(name, os.O_RDWR, 0)
				must(t, err)
				defer f.Close()
				if got := read(t, name); got != "0123456789" { // into the page cache
					t.Fatalf("before: %q", got)
				}
				if err := unix.Fallocate(int(f.Fd()), c.mode, c.off, c.size); err != c.err {
					t.Errorf("fallocate: %v, want %v", err, c.err)
				}
				mustContain(t, name, c.want)
				must(t, f.Close())
				mustContain(t, name, c.want)
				if got := stat(t, name).Size; got != int64(len(c.want)) {
					t.Errorf("size %d, want %d", got, len(c.want))
				}
			})
		}
	})
}

func TestSeekFindsDataAndTheHoleAtTheEnd(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, "0123456789")
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		for _, c := range []struct {
			off    int64
			whence int
			want   int64
			err    error
		}{
			{0, unix.SEEK_DATA, 0, nil},
			{5, unix.SEEK_DATA, 5, nil},
			{0, unix.SEEK_HOLE, 10, nil},
			{5, unix.SEEK_HOLE, 10, nil},
			{10, unix.SEEK_DATA, 0, unix.ENXIO},
			{11, unix.SEEK_HOLE, 0, unix.ENXIO},
		} {
			got, err := unix.Seek(int(f.Fd()), c.off, c.whence)
			if err != c.err || err == nil && got != c.want {
				t.Errorf("seek %d %d: %d, %v, want %d, %v", c.off, c.whence, got, err, c.want, c.err)
			}
		}
	})
}

func TestCopyFileRangeCopies(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		content := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
		write(t, filepath.Join(dir, "source"), content)
		for _, c := range []struct {
			what        string
			before      string
			srcOff, off int64
			n           int
			want        string
		}{
			{"a whole file", "", 0, 0, len(content), content},
			{"more than there is", "", 0, 0, 10 * len(content), content},
			{"a part", "", 3, 0, 5, content[3:8]},
			{"into the middle", "________", 3, 2, 4, "__" + content[3:7] + "__"},
		} {
			t.Run(c.what, func(t *testing.T) {
				name := filepath.Join(dir, "copy")
				write(t, name, c.before)
				src, err := os.Open(filepath.Join(dir, "source"))
				must(t, err)
				defer src.Close()
				dst, err := os.OpenFile(name, os.O_RDWR, 0)
				must(t, err)
				defer dst.Close()
				left := c.n
				for left > 0 {
					n, err := unix.CopyFileRange(int(src.Fd()), &c.srcOff, int(dst.Fd()), &c.off, left, 0)
					must(t, err)
					if n == 0 {
						break
					}
					left -= n
				}
				mustContain(t, name, c.want)
				must(t, dst.Close())
				mustContain(t, name, c.want)
			})
		}
	})
}

func TestACopyIsMadeByTheStore(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		record := fault.New()
		b := record.Wrap(bucket())
		content := strings.Repeat("0123456789abcdef", 1<<16)
		t.Run("write", func(t *testing.T) {
			write(t, filepath.Join(mountBranch(t, b, open), "source"), content)
		})
		t.Run("copy", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			record.ResetRequests()
			src, err := os.Open(filepath.Join(dir, "source"))
			must(t, err)
			defer src.Close()
			dst, err := os.Create(filepath.Join(dir, "copy"))
			must(t, err)
			n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, 1<<30, 0)
			must(t, err)
			if n != len(content) {
				t.Errorf("%d bytes copied of %d", n, len(content))
			}
			must(t, dst.Close())
			copied := slices.ContainsFunc(record.Requests(), func(r string) bool { return strings.HasPrefix(r, "COPY main/copy") })
			if !copied || record.Count("get") != 0 {
				t.Errorf("requests: %q", record.Requests())
			}
			mustContain(t, filepath.Join(dir, "copy"), content)
		})
	})
}

func TestASparseFileReadsAsZeros(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "sparse")
		f, err := os.Create(name)
		must(t, err)
		_, err = f.WriteAt([]byte("end"), 4<<20)
		must(t, err)
		must(t, f.Close())
		want := append(make([]byte, 4<<20), "end"...)
		if !bytes.Equal([]byte(read(t, name)), want) {
			t.Error("the hole is not zeros")
		}
	})
}

func TestWritingDirectlyWorks(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, strings.Repeat("a", 8192))
		read(t, name)
		f, err := os.OpenFile(name, os.O_RDWR|syscall.O_DIRECT, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt(bytes.Repeat([]byte("b"), 4096), 4096)
		must(t, err)
		mustContain(t, name, strings.Repeat("a", 4096)+strings.Repeat("b", 4096))
	})
}
