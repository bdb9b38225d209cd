package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

// faultyMount is a mount of a new bucket through a fault proxy, with branch main.
func faultyMount(t *testing.T, flags ...string) (m *mount, p *faultProxy, srv *versitygw.Server, bucket string) {
	t.Helper()
	srv = versitygw.Shared(t)
	bucket = srv.NewBucket(t)
	srv.Put(t, bucket, "main/", nil)
	p = newFaultProxy(t, srv.Endpoint)
	h := newHost(t, "KEIFS_ENDPOINT="+p.Endpoint, "AWS_ACCESS_KEY_ID="+srv.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+srv.SecretKey, "AWS_REGION=us-east-1")
	m = h.mount("s3://"+bucket, flags...)
	t.Cleanup(func() { p.fail(nil) }) // before the unmount of the line above
	return m, p, srv, bucket
}

func wantErrno(t *testing.T, what string, err error, want ...syscall.Errno) {
	t.Helper()
	for _, e := range want {
		if errors.Is(err, e) {
			return
		}
	}
	t.Fatalf("%s: %v, want %v", what, err, want)
}

// TestPassingFailuresAreNotSeen: a 500, a 503 and a body cut in the middle
// are retried; programs see none of them.
func TestPassingFailuresAreNotSeen(t *testing.T) {
	m, p, srv, bucket := faultyMount(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	srv.Put(t, bucket, "main/there", content)
	for _, status := range []int{500, 503, cutBody} {
		var seen sync.Map // each request fails the first time it is made
		p.fail(func(r *http.Request) int {
			if status == cutBody && r.Method != http.MethodGet {
				return 0
			}
			if _, again := seen.LoadOrStore(r.Method+r.URL.String(), true); again {
				return 0
			}
			return status
		})
		name := fmt.Sprintf("main/new%d", status)
		if err := os.WriteFile(m.path(name), content, 0o644); err != nil {
			t.Fatalf("with %d: %v", status, err)
		}
		got, err := os.ReadFile(m.path("main/there"))
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("with %d: read %d bytes, %v", status, len(got), err)
		}
		if p.hits.Load() == 0 {
			t.Fatalf("with %d: no request failed", status)
		}
		p.fail(nil)
		if !bytes.Equal(srv.Get(t, bucket, name), content) {
			t.Fatalf("with %d: the object differs", status)
		}
		// Another version, so that the next round has to read again.
		content = append(content, '!')
		srv.Put(t, bucket, "main/there", content)
	}
}

// TestForbiddenIsToldAtClose: when the bucket stops taking writes, close says
// so, reading goes on, and what was written is published once it can be.
func TestForbiddenIsToldAtClose(t *testing.T) {
	m, p, srv, bucket := faultyMount(t)
	write(t, m.path("main/old"), "old")
	p.fail(func(r *http.Request) int {
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			return 403
		}
		return 0
	})
	f, err := os.Create(m.path("main/new"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("kept"); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "close", f.Close(), syscall.EACCES, syscall.EROFS, syscall.EPERM)
	if got := read(t, m.path("main/old")); got != "old" {
		t.Fatalf("old: %q", got)
	}
	wantErrno(t, "mkdir", os.Mkdir(m.path("main/dir"), 0o755), syscall.EACCES, syscall.EROFS, syscall.EPERM)
	if out := m.h.run(keifs, "status", m.dir); !strings.Contains(out, "new") {
		t.Fatalf("status does not name the file that could not be published:\n%s", out)
	}
	p.fail(nil)
	m.umount()
	if got := string(srv.Get(t, bucket, "main/new")); got != "kept" {
		t.Fatalf("in the bucket: %q", got)
	}
}

// TestObjectChangedUnderneath: a reader whose object is replaced or deleted by
// another tool reads its version or is told ESTALE, never a mix.
func TestObjectChangedUnderneath(t *testing.T) {
	m, _, srv, bucket := faultyMount(t)
	old := bytes.Repeat([]byte("old."), 3<<18)
	for _, what := range []string{"replaced", "deleted"} {
		srv.Put(t, bucket, "main/"+what, old)
		f, err := os.Open(m.path("main", what))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		head := make([]byte, 4096)
		if _, err := io.ReadFull(f, head); err != nil {
			t.Fatal(err)
		}
		if what == "replaced" {
			srv.Put(t, bucket, "main/"+what, bytes.Repeat([]byte("new!"), 3<<18))
		} else {
			srv.Delete(t, bucket, "main/"+what)
		}
		rest, err := io.ReadAll(f)
		got := append(head, rest...)
		if !bytes.Equal(got, old[:len(got)]) {
			t.Fatalf("%s: the reader saw a mix of versions", what)
		}
		if err == nil && len(got) != len(old) {
			t.Fatalf("%s: %d bytes without an error, want %d", what, len(got), len(old))
		}
		if err != nil {
			wantErrno(t, what, err, syscall.ESTALE, syscall.EIO)
		}
	}
}

// TestNames: names at the limits, and names no object key can be.
func TestNames(t *testing.T) {
	h := newHost(t)
	store := t.TempDir()
	m := h.mount("file://" + store)
	m.sh(".", "mkdir main")
	names := []string{
		strings.Repeat("n", 255), "sp ace", "new\nline", "uml-äöü", "日本", "\xff\xfe-latin", "%41", "a+b&c=d?e#f", "-rf", "...", "~", "back\\slash", "\x01\x7f",
	}
	for _, name := range names {
		if err := os.WriteFile(m.path("main", name), []byte(name), 0o644); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	wantErrno(t, "256 bytes", os.WriteFile(m.path("main", strings.Repeat("n", 256)), nil, 0o644), syscall.ENAMETOOLONG)
	check := func() {
		t.Helper()
		entries, err := os.ReadDir(m.path("main"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
			if c := read(t, m.path("main", e.Name())); c != e.Name() {
				t.Fatalf("%q holds %q", e.Name(), c)
			}
		}
		want := append([]string(nil), names...)
		sort.Strings(got)
		sort.Strings(want)
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("listed %q, want %q", got, want)
		}
	}
	check()
	m.umount()
	m.start("file://" + store)
	check()
}

// TestManyEntries: a directory of 10,000 entries lists each once.
func TestManyEntries(t *testing.T) {
	store := t.TempDir()
	if err := os.MkdirAll(filepath.Join(store, "main/many"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(store, "main/many", fmt.Sprintf("f%05d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := newHost(t).mount("file://" + store)
	m.sh("main/many", `test "$(ls | wc -l)" = 10000; test "$(ls | sort -u | wc -l)" = 10000; test "$(ls -f | grep -c '^f')" = 10000`)
	m.sh("main", `rm -r many; test ! -e many`)
	m.umount() // by then the removals are in the store
	if entries, err := os.ReadDir(filepath.Join(store, "main")); err != nil || len(entries) != 0 {
		t.Fatalf("left in the store: %d entries, %v", len(entries), err)
	}
}

// TestSparse5GiB: a file of 5 GiB that is nearly all hole is written, kept
// and read back.
func TestSparse5GiB(t *testing.T) {
	store := t.TempDir()
	m := newHost(t).mount("file://" + store)
	m.sh(".", "mkdir main")
	f, err := os.Create(m.path("main/sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		f.Truncate(5 << 30),
		writeAt(f, "middle", 3_000_000_000),
		writeAt(f, "end", 5<<30),
		f.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m.umount()
	st, err := os.Stat(filepath.Join(store, "main/sparse"))
	if err != nil || st.Size() != 5368709123 {
		t.Fatalf("in the store: %v, %v", st, err)
	}
	m.start("file://" + store)
	m.sh("main", `
		test "$(dd if=sparse bs=1 skip=3000000000 count=6 status=none)" = middle
		test "$(dd if=sparse bs=1 skip=2999999990 count=10 status=none | tr -d '\0' | wc -c)" = 0
		test "$(tail -c 3 sparse)" = end; rm sparse`)
}

func writeAt(f *os.File, s string, off int64) error {
	_, err := f.WriteAt([]byte(s), off)
	return err
}

// TestFullCacheDisk: when the disk that stages writes is full, write or close
// says ENOSPC, what was published before stays, and the mount goes on.
func TestFullCacheDisk(t *testing.T) {
	cache := t.TempDir()
	if err := syscall.Mount("keifs-test", cache, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small tmpfs (root is needed): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(cache, syscall.MNT_DETACH) })
	store := t.TempDir()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	large := bytes.Repeat(block, 12)
	if err := os.Mkdir(filepath.Join(store, "main"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "main/large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	m := newHost(t).mount("file://"+store, "--cache-dir", cache)
	m.sh(".", "echo small > main/before")
	f, err := os.Create(m.path("main/big"))
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil { // the store takes it by parts of any size
		t.Fatalf("writing 16 MiB through an 8 MiB cache: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(store, "main/big")); err != nil || !bytes.Equal(got, bytes.Repeat(block, 16)) {
		t.Fatalf("big has %d bytes, or others: %v", len(got), err)
	}
	if err := os.Remove(m.path("main/big")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.path("main/before")); got != "small\n" {
		t.Fatalf("before: %q", got)
	}
	// A file larger than the whole cache disk can still be read.
	if got := read(t, m.path("main/large")); got != string(large) {
		t.Fatal("large differs")
	}
	write(t, m.path("main/after"), "works again")
	if got, err := os.ReadFile(filepath.Join(store, "main/after")); err != nil || string(got) != "works again" {
		t.Fatalf("after: %q, %v", got, err)
	}
}
