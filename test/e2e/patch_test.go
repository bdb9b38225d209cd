package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

// TestChangesOfALargeFileReachTheBucket appends to, changes, cuts and extends a
// file that is too large to be sent again, on a real S3 server: the object is
// what the file would be on a local disk.
func TestChangesOfALargeFileReachTheBucket(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	m := s3Host(t, srv).mount("s3://" + bucket)
	m.sh(".", "mkdir main")
	want := make([]byte, 24<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(want)
	name := m.path("main", "large")
	if err := os.WriteFile(name, want, 0o644); err != nil {
		t.Fatal(err)
	}
	change := func(what string, flags int, fn func(f *os.File) error) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_RDWR|flags, 0)
		if err == nil {
			err = fn(f)
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := srv.Get(t, bucket, "main/large"); !bytes.Equal(got, want) {
			t.Errorf("%s: the object has %d bytes, want %d, or others", what, len(got), len(want))
		}
		if got := read(t, name); got != string(want) {
			t.Errorf("%s: the mount has %d bytes, want %d, or others", what, len(got), len(want))
		}
	}
	change("append", os.O_APPEND, func(f *os.File) error {
		want = append(want, "a line\n"...)
		_, err := f.WriteString("a line\n")
		return err
	})
	change("patch", 0, func(f *os.File) error {
		patch := bytes.Repeat([]byte("patch"), 800)
		for _, off := range []int64{10 << 20, 10<<20 + 1<<16, 1000} {
			copy(want[off:], patch)
			if _, err := f.WriteAt(patch, off); err != nil {
				return err
			}
		}
		return f.Sync() // and once more, by the same descriptor
	})
	change("truncate and extend", 0, func(f *os.File) error {
		want = append(want[:17<<20+5:17<<20+5], make([]byte, 1000)...)
		if err := f.Truncate(17<<20 + 5); err != nil {
			return err
		}
		return f.Truncate(17<<20 + 1005)
	})
	change("patch, read and rename", 0, func(f *os.File) error {
		copy(want[12<<20:], "between")
		if _, err := f.WriteAt([]byte("between"), 12<<20); err != nil {
			return err
		}
		p := make([]byte, 1<<20)
		if _, err := f.ReadAt(p, 12<<20-1<<19); err != nil || !bytes.Equal(p, want[12<<20-1<<19:12<<20+1<<19]) {
			t.Errorf("what is read around the change is not what the file has: %v", err)
		}
		if err := os.Rename(name, name+".moved"); err != nil {
			return err
		}
		return os.Rename(name+".moved", name)
	})
}
