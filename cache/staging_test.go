package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

func newStaging(t *testing.T, dir string) *staging {
	t.Helper()
	s, err := openStaging(filepath.Join(dir, "staging"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAStagedFileIsSparse(t *testing.T) {
	s := newStaging(t, t.TempDir())
	f, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	defer f.discard()
	const size = 5 << 30
	if err := f.truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{1 << 20, 1 << 30} {
		if _, err := f.WriteAt([]byte(strings.Repeat("x", 1<<20)), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.punch(1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 2<<20 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
	for _, tt := range []struct {
		off  int64
		hole bool
		want int64
	}{{0, true, 0}, {0, false, 1 << 30}, {1 << 30, true, 1<<30 + 1<<20}} {
		got, err := f.seek(tt.off, tt.hole)
		if err != nil || got != tt.want {
			t.Errorf("seek %+v: %d, %v", tt, got, err)
		}
	}
	if _, err := f.seek(1<<30+1<<20, false); !errors.Is(err, store.ErrNoData) {
		t.Errorf("data after the last: %v", err)
	}
	var src backend.Source = f.source(size)
	p := make([]byte, 10)
	if n, err := src.ReadAt(p, 1<<20); n != 10 || err != nil || string(p) != strings.Repeat("\x00", 10) {
		t.Errorf("punched: %q, %v", p[:n], err)
	}
}

func TestWhatADeadOwnerStagedIsCleanedUnlessItIsAdopted(t *testing.T) {
	dir := t.TempDir()
	s := newStaging(t, dir)
	if _, err := s.create(); err != nil {
		t.Fatal(err)
	}
	kept, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	s = newStaging(t, dir)
	f, size, err := s.adopt(kept.name())
	if err != nil || size != 0 {
		t.Fatalf("adopted %d bytes, %v", size, err)
	}
	if err := s.clean(); err != nil {
		t.Fatal(err)
	}
	if left := files(t, s.dir); len(left) != 1 || filepath.Base(left[0]) != f.name() {
		t.Errorf("left: %q", left)
	}
	if other, err := s.create(); err != nil || other.name() == f.name() {
		t.Errorf("the next is %s, %v", other.name(), err)
	}
}

func TestAFullDiskMakesRoomOrIsSaidToBeFull(t *testing.T) {
	c := newChunks(t, t.TempDir(), 1<<30, -1)
	for _, key := range []string{"a", "b", "c"} {
		want(t, c, key, strings.Repeat("x", 50_000))
	}
	s := newStaging(t, t.TempDir())
	s.relieve = c.disk.relieve
	s.writeAt = func(f *os.File, p []byte, off int64) (int, error) { // chunks and staging have 200,000 bytes
		room := 200_000 - c.disk.disk.total() - off
		if room >= int64(len(p)) {
			return f.WriteAt(p, off)
		}
		n, err := f.WriteAt(p[:max(0, room)], off)
		if err == nil {
			err = unix.ENOSPC
		}
		return n, err
	}
	f, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	defer f.discard()
	content := strings.Repeat("0123456789", 18_000)
	if n, err := f.WriteAt([]byte(content), 0); n != len(content) || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if len(files(t, c.disk.dir)) != 0 {
		t.Error("the chunks are still there")
	}
	p := make([]byte, len(content))
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != content {
		t.Errorf("read back: %v", err)
	}
	if _, err = f.WriteAt(make([]byte, 1<<20), 180_000); !errors.Is(err, store.ErrCacheFull) {
		t.Errorf("full: %v", err)
	}
}

func TestErrorsOfTheDiskAreNotThoseOfFiles(t *testing.T) {
	err := diskError(&os.PathError{Op: "open", Path: "x", Err: unix.ENOENT})
	if !errors.Is(err, store.ErrCache) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrNotExist) {
		t.Errorf("a lost file of the cache is %v", err)
	}
	for cause, want := range map[error]error{unix.ENOSPC: store.ErrCacheFull, unix.EDQUOT: store.ErrCacheFull, unix.EIO: store.ErrCache, unix.EFBIG: store.ErrTooBig} {
		if err := diskError(&os.PathError{Err: cause}); !errors.Is(err, want) {
			t.Errorf("%v is %v", cause, err)
		}
	}
	if diskError(nil) != nil {
		t.Error("nil is an error")
	}
	s := newStaging(t, t.TempDir())
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.create(); !errors.Is(err, store.ErrCache) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its folder: %v", err)
	}
}

func TestAFolderBelongsToOneCacheAtATime(t *testing.T) {
	root := t.TempDir()
	first, _, err := openDir(root, 1)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := openDir(root, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer second.close()
	if first.root != root || second.root != filepath.Join(root, "2") {
		t.Errorf("first %s, second %s", first.root, second.root)
	}
	first.close()
	third, _, err := openDir(root, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer third.close()
	if third.root != root {
		t.Errorf("third %s", third.root)
	}
}

func TestAnUnusableFolderIsAnErrorOfTheCache(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openDir(filepath.Join(name, "cache"), 1); !errors.Is(err, store.ErrCache) {
		t.Errorf("error %v", err)
	}
}
