package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// onTwoMounts runs a test on two mounts of one bucket, each with a volume of
// its own, as two hosts have them. They trust what they know for an hour: what
// shows nevertheless shows because it was asked for.
func onTwoMounts(t *testing.T, test func(t *testing.T, a, b string)) {
	onTwoMountsOf(t, func(t *testing.T, _ backend.Backend, a, b string) { test(t, a, b) })
}

func onTwoMountsOf(t *testing.T, test func(t *testing.T, shared backend.Backend, a, b string)) {
	onPatientVolumes(t, func(t *testing.T, open newVolume) {
		shared := bucket()
		var dirs [2]string
		for i := range dirs {
			root, _ := mountVolume(t, open(t, shared), Options{TTL: time.Hour})
			dirs[i] = mainBranch(t, root)
		}
		test(t, shared, dirs[0], dirs[1])
	})
}

func TestWhatOneMountClosedTheOtherOpens(t *testing.T) {
	onTwoMounts(t, func(t *testing.T, a, b string) {
		write(t, filepath.Join(a, "file"), "first")
		mustContain(t, filepath.Join(b, "file"), "first") // attributes and pages are cached now
		for i, content := range []string{"2", "a third and longer content", "same_size_one", "same_size_two", ""} {
			from, to := a, b
			if i%2 == 1 {
				from, to = b, a
			}
			write(t, filepath.Join(from, "file"), content)
			f, err := os.Open(filepath.Join(to, "file"))
			must(t, err)
			if st, err := f.Stat(); err != nil || st.Size() != int64(len(content)) {
				t.Errorf("%d: size after open: %d, %v, want %d", i, st.Size(), err, len(content))
			}
			got, err := io.ReadAll(f)
			must(t, err)
			if string(got) != content {
				t.Errorf("%d: read %q, want %q", i, got, content)
			}
			must(t, f.Close())
		}
	})
}

func TestWhatOneMountAppendsTheOtherAppendsTo(t *testing.T) {
	onTwoMounts(t, func(t *testing.T, a, b string) {
		want := ""
		for i := range 10 {
			dir := []string{a, b}[i%2]
			line := fmt.Sprintf("line %d\n", i)
			f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			must(t, err)
			_, err = f.WriteString(line)
			must(t, err)
			must(t, f.Close())
			want += line
			for _, dir := range []string{a, b} {
				mustContain(t, filepath.Join(dir, "log"), want)
			}
		}
	})
}

// TestAnOpenFileNeverMixesTwoVersions keeps an old version open while the same
// mount opens the new one, which is shorter or longer.
func TestAnOpenFileNeverMixesTwoVersions(t *testing.T) {
	const size = 1 << 20
	for _, newSize := range []int{size / 2, size, 2 * size} {
		t.Run(fmt.Sprint(newSize), func(t *testing.T) {
			onTwoMounts(t, func(t *testing.T, a, b string) {
				name := filepath.Join(b, "file")
				write(t, filepath.Join(a, "file"), strings.Repeat("1", size))
				old, err := os.Open(name)
				must(t, err)
				defer old.Close()
				head := make([]byte, 4096)
				_, err = old.ReadAt(head, 0)
				must(t, err)

				write(t, filepath.Join(a, "file"), strings.Repeat("2", newSize))
				mustContain(t, name, strings.Repeat("2", newSize))
				must(t, os.Chmod(name, 0o600)) // by the name: that is the new one

				var st syscall.Stat_t
				must(t, syscall.Fstat(int(old.Fd()), &st))
				if st.Size != size {
					t.Errorf("fstat of the old version: %d bytes, want %d", st.Size, size)
				}
				if got := stat(t, name); got.Size != int64(newSize) || got.Ino == st.Ino {
					t.Errorf("stat of the name: %d bytes, want %d", got.Size, newSize)
				}
				// The old handle reads its version to the end, or says that it cannot.
				for off := int64(0); off < size; off += 4096 {
					n, err := old.ReadAt(head, off)
					if errors.Is(err, unix.ESTALE) {
						break
					}
					must(t, err)
					if n != len(head) || strings.Trim(string(head), "1") != "" {
						t.Fatalf("at %d the old handle reads %d bytes, %q", off, n, head[:10])
					}
				}
				mustContain(t, name, strings.Repeat("2", newSize))
			})
		})
	}
}

func TestAFileThatAnotherMountRemovedCanBeMadeAgain(t *testing.T) {
	onTwoMountsOf(t, func(t *testing.T, shared backend.Backend, a, b string) {
		for _, name := range []string{"opened", "made"} {
			write(t, filepath.Join(a, name), "first")
			mustContain(t, filepath.Join(b, name), "first")
			must(t, os.Remove(filepath.Join(a, name)))
		}
		syncDir(t, a)
		_, err := os.Open(filepath.Join(b, "opened"))
		wantErr(t, "open", err, unix.ENOENT)
		write(t, filepath.Join(b, "made"), "second") // O_CREAT on a name that this kernel takes for a file
		data, _, err := backend.ReadAll(t.Context(), shared, "main/made", 100)
		if err != nil || string(data) != "second" {
			t.Errorf("the bucket has %q, %v", data, err)
		}
	})
}

func TestAFileThatBecameADirectoryIsADirectory(t *testing.T) {
	onTwoMounts(t, func(t *testing.T, a, b string) {
		write(t, filepath.Join(a, "name"), "file")
		mustContain(t, filepath.Join(b, "name"), "file")
		must(t, os.Remove(filepath.Join(a, "name")))
		must(t, os.Mkdir(filepath.Join(a, "name"), 0o755))
		write(t, filepath.Join(a, "name/inside"), "content")
		_, err := os.ReadFile(filepath.Join(b, "name")) // asks, and so finds out
		if err == nil {
			t.Error("the file is still there")
		}
		mustContain(t, filepath.Join(b, "name/inside"), "content")
	})
}

// TestCreateWithoutTruncateKeepsWhatAnotherMountMade opens for appending a name
// that both mounts believe to be free.
func TestCreateWithoutTruncateKeepsWhatAnotherMountMade(t *testing.T) {
	onTwoMountsOf(t, func(t *testing.T, shared backend.Backend, a, b string) {
		for i := range 10 {
			name := fmt.Sprint("log", i)
			var wg sync.WaitGroup
			for j, dir := range []string{a, b} {
				wg.Go(func() {
					f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
					if err == nil {
						_, err = fmt.Fprintf(f, "writer%d\n", j)
						err = errors.Join(err, f.Close())
					}
					if err != nil && !errors.Is(err, unix.ESTALE) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			// Each line is in the file, or in the copy that a conflict kept.
			var all string
			for info, err := range backend.ListRecursive(t.Context(), shared, "main/"+name) {
				must(t, err)
				data, _, err := backend.ReadAll(t.Context(), shared, info.Key, 1000)
				must(t, err)
				all += string(data)
			}
			for j := range 2 {
				if line := fmt.Sprintf("writer%d\n", j); !strings.Contains(all, line) {
					t.Errorf("%s: %q is lost, there is %q", name, line, all)
				}
			}
		}
	})
}

func TestAnExclusiveCreateHasOneWinner(t *testing.T) {
	onTwoMounts(t, func(t *testing.T, a, b string) {
		for _, c := range []struct {
			what string
			make func(path string) error
		}{
			{"file", func(path string) error {
				f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				if err == nil {
					err = f.Close()
				}
				return err
			}},
			{"directory", func(path string) error { return os.Mkdir(path, 0o755) }},
			{"link", func(path string) error { return os.Symlink("x", path) }},
		} {
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 20 {
				dir := []string{a, b}[i%2]
				wg.Go(func() {
					switch err := c.make(filepath.Join(dir, c.what)); {
					case err == nil:
						won.Add(1)
					case !errors.Is(err, unix.EEXIST):
						t.Errorf("%s: %v", c.what, err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%s: %d winners", c.what, won.Load())
			}
		}
	})
}

func TestTwoWritersOfOneFileLoseNothing(t *testing.T) {
	onTwoMounts(t, func(t *testing.T, a, b string) {
		write(t, filepath.Join(a, "file"), "base")
		var files [2]*os.File
		for i, dir := range []string{a, b} {
			f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR, 0)
			must(t, err)
			files[i] = f
		}
		for i, f := range files {
			_, err := fmt.Fprintf(f, "writer %d", i)
			must(t, err)
		}
		must(t, files[0].Close())
		wantErr(t, "close of the second", files[1].Close(), unix.ESTALE)
		mustContain(t, filepath.Join(a, "file"), "writer 0")
		mustContain(t, filepath.Join(b, "file"), "writer 0")
		entries, err := os.ReadDir(a)
		must(t, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "file.conflict-") {
				mustContain(t, filepath.Join(a, e.Name()), "writer 1")
				return
			}
		}
		t.Errorf("the second writer's bytes are not beside: %v", entries)
	})
}
