package fs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		name := filepath.Join(dir, "file")
		f, err := os.Create(name)
		must(t, err)
		rnd := rand.New(rand.NewPCG(1, 2))
		model := make([]byte, 3<<20)
		size := 0
		for range 200 {
			piece := make([]byte, 1+rnd.IntN(64<<10))
			for i := range piece {
				piece[i] = byte(rnd.Uint32())
			}
			off := rnd.IntN(len(model) - len(piece))
			_, err := f.WriteAt(piece, int64(off))
			must(t, err)
			copy(model[off:], piece)
			size = max(size, off+len(piece))
		}
		got, err := io.ReadAll(f)
		must(t, err)
		if !bytes.Equal(got, model[:size]) {
			t.Error("the open file has other bytes")
		}
		must(t, f.Close())
		if read(t, name) != string(model[:size]) {
			t.Error("the closed file has other bytes")
		}
		if got := stat(t, name).Size; got != int64(size) {
			t.Errorf("size %d, want %d", got, size)
		}
	})
}

func TestALargeFileIsReadInOnePiece(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
		t.Run("write", func(t *testing.T) {
			must(t, os.WriteFile(filepath.Join(mountBranch(t, b, open), "large"), content, 0o644))
		})
		t.Run("read", func(t *testing.T) {
			if read(t, filepath.Join(mountBranch(t, b, open), "large")) != string(content) {
				t.Error("other bytes after a remount")
			}
		})
	})
}

func TestTruncateShortensAndExtends(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, "hello world")
		must(t, os.Truncate(name, 5))
		mustContain(t, name, "hello")
		must(t, os.Truncate(name, 8))
		mustContain(t, name, "hello\x00\x00\x00")
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		must(t, f.Truncate(2))
		must(t, f.Close())
		mustContain(t, name, "he")
		f, err = os.OpenFile(name, os.O_RDWR|os.O_TRUNC, 0)
		must(t, err)
		if st, err := f.Stat(); err != nil || st.Size() != 0 {
			t.Errorf("after O_TRUNC: %v, %v", st.Size(), err)
		}
		must(t, f.Close())
		mustContain(t, name, "")
	})
}

func TestOCreateWithoutOTruncKeepsTheContent(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		for i := range 3 {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
			must(t, err)
			_, err = f.WriteAt([]byte{byte('a' + i)}, int64(i))
			must(t, err)
			must(t, f.Close())
		}
		mustContain(t, name, "abc")
	})
}

func TestAnUnlinkedFileStaysReadableAndWritable(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		name := filepath.Join(dir, "file")
		write(t, name, "old content")
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		before := stat(t, name)
		must(t, os.Remove(name))
		write(t, name, "new") // the name is free for another file

		var st syscall.Stat_t
		must(t, syscall.Fstat(int(f.Fd()), &st))
		if st.Nlink != 0 || st.Size != int64(len("old content")) || st.Ino != before.Ino {
			t.Errorf("fstat: nlink %d size %d ino %d, want 0, 11, %d", st.Nlink, st.Size, st.Ino, before.Ino)
		}
		if other := stat(t, name); other.Ino == before.Ino {
			t.Error("the new file has the inode number of the open one")
		}
		_, err = f.WriteAt([]byte("OLD"), 0)
		must(t, err)
		must(t, f.Chmod(0o600))
		got, err := io.ReadAll(f)
		must(t, err)
		if string(got) != "OLD content" {
			t.Errorf("the open file reads %q", got)
		}
		must(t, f.Close())
		mustContain(t, name, "new")
		if got := names(t, dir); got != "file" {
			t.Errorf("the directory has %q", got)
		}
	})
}

func TestAReplacedFileStaysReadable(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		name := filepath.Join(dir, "file")
		write(t, name, "old content")
		write(t, name+".new", "new")
		f, err := os.Open(name)
		must(t, err)
		defer f.Close()
		must(t, os.Rename(name+".new", name))
		var st syscall.Stat_t
		must(t, syscall.Fstat(int(f.Fd()), &st))
		if st.Nlink != 0 || st.Size != int64(len("old content")) {
			t.Errorf("fstat: nlink %d size %d, want 0 and 11", st.Nlink, st.Size)
		}
		got, err := io.ReadAll(f)
		must(t, err)
		if string(got) != "old content" {
			t.Errorf("the open file reads %q", got)
		}
		mustContain(t, name, "new")
	})
}

// TestReadersNeverMissANameThatIsReplaced is how configuration and state are
// kept by programs everywhere: written beside, and renamed over.
func TestReadersNeverMissANameThatIsReplaced(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		name := filepath.Join(dir, "state")
		content := func(i int) string { return strings.Repeat(fmt.Sprintf("%06d\n", i), 1000) }
		write(t, name, content(0))
		stop := make(chan struct{})
		done := make(chan error, 3)
		for range cap(done) {
			go func() {
				for {
					select {
					case <-stop:
						done <- nil
						return
					default:
					}
					data, err := os.ReadFile(name)
					if err != nil {
						done <- err
						return
					}
					i, err := strconv.Atoi(string(data[:min(6, len(data))]))
					if err != nil || string(data) != content(i) {
						done <- fmt.Errorf("%d bytes that begin with %q are no whole content", len(data), data[:min(20, len(data))])
						return
					}
				}
			}()
		}
		for i := range 150 {
			write(t, name+".tmp", content(i))
			must(t, os.Rename(name+".tmp", name))
		}
		close(stop)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func clientAppend(args []string) error {
	f, err := os.OpenFile(args[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for i := range 100 {
		if _, err := fmt.Fprintf(f, "%s %d\n", args[1], i); err != nil {
			return err
		}
	}
	return f.Close()
}

func TestAppendsOfSeveralProcessesAreAllKept(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "log")
		var waits []func() error
		for i := range 8 {
			waits = append(waits, start(t, "append", name, fmt.Sprint("writer", i)))
		}
		for _, wait := range waits {
			must(t, wait())
		}
		next := map[string]int{}
		for line := range strings.Lines(read(t, name)) {
			writer, number, ok := strings.Cut(strings.TrimSpace(line), " ")
			if i, err := strconv.Atoi(number); !ok || err != nil || i != next[writer] {
				t.Fatalf("line %q, want number %d of that writer", line, next[writer])
			}
			next[writer]++
		}
		for i := range 8 {
			if got := next[fmt.Sprint("writer", i)]; got != 100 {
				t.Errorf("writer %d: %d lines of 100", i, got)
			}
		}
	})
}

// TestWhatIsAppendedIsSeenByOtherReaders reads before and after, so that the
// last page is cached.
func TestWhatIsAppendedIsSeenByOtherReaders(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "log")
		write(t, name, "first\n")
		reader, err := os.Open(name)
		must(t, err)
		defer reader.Close()
		want := "first\n"
		for i := range 20 {
			buf := make([]byte, 1000)
			n, err := reader.ReadAt(buf, 0)
			if err != io.EOF || string(buf[:n]) != want {
				t.Fatalf("%d: read %q, %v, want %q", i, buf[:n], err, want)
			}
			f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			line := fmt.Sprintf("line %d\n", i)
			_, err = f.WriteString(line)
			must(t, err)
			must(t, f.Close())
			want += line
			mustContain(t, name, want)
		}
	})
}

func clientMmap(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	shared, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("shared: %w", err)
	}
	private, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("private: %w", err)
	}
	if shared[0] != 'x' || private[8191] != 'x' {
		return fmt.Errorf("mapped %q and %q", shared[0], private[8191])
	}
	copy(private[100:], "private")
	copy(shared[5000:], "through the mapping")
	if args[1] == "msync" {
		if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
			return err
		}
		buf := make([]byte, 7)
		if _, err := f.ReadAt(buf, 5000); err != nil || string(buf) != "through" {
			return fmt.Errorf("after msync: %q, %w", buf, err)
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if args[1] == "late" { // after the descriptor is closed: only the mapping is left
		copy(shared[6000:], "late")
	}
	if err := unix.Munmap(shared); err != nil {
		return err
	}
	return unix.Munmap(private)
}

func TestMappingsReadAndWrite(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		for _, how := range []string{"close", "msync", "late"} {
			t.Run(how, func(t *testing.T) {
				b := bucket()
				vol := open(t, b)
				root, s := mountVolume(t, vol, Options{})
				name := filepath.Join(mainBranch(t, root), "file")
				write(t, name, strings.Repeat("x", 8192))
				run(t, "mmap", name, how)
				must(t, s.Unmount()) // what was written late is here by then
				must(t, vol.Sync(t.Context()))
				want := []byte(strings.Repeat("x", 8192))
				copy(want[5000:], "through the mapping")
				if how == "late" {
					copy(want[6000:], "late")
				}
				mustContain(t, filepath.Join(mountBranch(t, b, open), "file"), string(want))
			})
		}
	})
}

func clientLock(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		return fmt.Errorf("flock of a locked file: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 10}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != unix.EAGAIN {
		return fmt.Errorf("fcntl of a locked range: %w", err)
	}
	lock = unix.Flock_t{Type: unix.F_WRLCK, Start: 20, Len: 10}
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
}

func TestLocksWorkBetweenTheProcessesOfAMount(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, "content")
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 20}))
		run(t, "lock", name)
	})
}
