package file

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

func TestErrorsHaveTheirKind(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.ENOENT: backend.ErrNotExist, unix.ENOTDIR: backend.ErrBadKey, unix.ENAMETOOLONG: backend.ErrBadKey,
		unix.EACCES: backend.ErrPermission, unix.EPERM: backend.ErrPermission, unix.EROFS: backend.ErrPermission,
		unix.ENOSPC: backend.ErrNoSpace, unix.EDQUOT: backend.ErrNoSpace, unix.EFBIG: backend.ErrTooLarge,
		unix.EMFILE: backend.ErrTransient, unix.EIO: backend.ErrIO, unix.EINVAL: backend.ErrIO,
	} {
		if got := kind(&os.PathError{Op: "open", Path: "x", Err: errno}); got != want {
			t.Errorf("%v is %q, want %q", errno, got, want)
		}
	}
	if got := kind(errors.New("else")); got != backend.ErrIO {
		t.Errorf("%q", got)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []record{
		{known: true, nonce: "0", metadata: map[string]string{}},
		{known: true, nonce: newNonce(), marker: true, fresh: true, metadata: map[string]string{}},
		{
			known: true, nonce: newNonce(), replaced: time.Unix(-5, 123456789), contentType: "text/plain; charset=utf-8",
			metadata: map[string]string{"a": "b=c", "d-e_f": "", "long": strings.Repeat("x", 2000)},
		},
	} {
		got := parseRecord(r.encode())
		if got.nonce != r.nonce || got.marker != r.marker || got.fresh != r.fresh || !got.replaced.Equal(r.replaced) ||
			got.contentType != r.contentType || !maps.Equal(got.metadata, r.metadata) {
			t.Errorf("%+v became %+v", r, got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("nonce=00\nmeta.a=b\nreplaced=x\n=\n\nmeta.=\nfresh=1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := parseRecord(data)
		again := parseRecord(r.encode())
		if again.nonce != r.nonce || !maps.Equal(again.metadata, r.metadata) {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}

func testBucket(t *testing.T) *bucket {
	t.Helper()
	b, err := open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func mustPut(t *testing.T, b *bucket, key, data string, opts backend.PutOptions) backend.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, backend.Bytes([]byte(data)), opts)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return info
}

func listed(t *testing.T, b *bucket, opts backend.ListOptions) []string {
	t.Helper()
	page, err := b.ListPage(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	keys := page.Prefixes
	for _, o := range page.Objects {
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	return keys
}

func TestWithoutAttributes(t *testing.T) {
	b := testBucket(t)
	b.xattrs = false
	if b.Caps().Metadata {
		t.Error("Caps tells of metadata")
	}
	absent := backend.Cond{IfAbsent: true}
	one := mustPut(t, b, "dir/sub/a", "one", backend.PutOptions{Cond: absent, Metadata: map[string]string{"a": "b"}})
	if len(one.Metadata) > 0 {
		t.Errorf("%+v", one)
	}
	if _, err := b.Put(t.Context(), "dir/sub/a", backend.Bytes(nil), backend.PutOptions{Cond: absent}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("a second creation: %v", err)
	}
	seen := map[string]bool{one.ETag: true}
	for range 50 {
		info := mustPut(t, b, "dir/sub/a", "two", backend.PutOptions{Cond: backend.Cond{IfMatch: one.ETag}})
		if seen[info.ETag] {
			t.Fatalf("ETag %s comes again", info.ETag)
		}
		seen[info.ETag] = true
		one = info
	}
	mustPut(t, b, "marker/", "", backend.PutOptions{Cond: absent})
	if _, err := b.Put(t.Context(), "marker/", backend.Bytes(nil), backend.PutOptions{Cond: absent}); !errors.Is(err, backend.ErrPrecondition) {
		t.Errorf("a second marker: %v", err)
	}
	if got := listed(t, b, backend.ListOptions{}); !slices.Equal(got, []string{"dir/sub/a", "marker/"}) {
		t.Errorf("listed: %q", got)
	}
	for _, key := range []string{"dir/sub/a", "marker/"} {
		if err := b.Delete(t.Context(), key, backend.Cond{}); err != nil {
			t.Error(err)
		}
	}
	if got := listed(t, b, backend.ListOptions{}); len(got) > 0 {
		t.Errorf("listed: %q", got)
	}
}

// TestFoldersWithoutObjectsAreNotSeen has what a crash leaves between making
// the directories of an object and the object.
func TestFoldersWithoutObjectsAreNotSeen(t *testing.T) {
	b := testBucket(t)
	for _, folder := range []string{"a/b/c/", "a/b/d/"} {
		dir, err := b.makeFolder(t.Context(), folder)
		if err != nil {
			t.Fatal(err)
		}
		dir.Close()
	}
	for _, opts := range []backend.ListOptions{{}, {Delimited: true}, {Prefix: "a/"}, {Prefix: "a/", Delimited: true}} {
		if got := listed(t, b, opts); len(got) > 0 {
			t.Errorf("%+v: %q", opts, got)
		}
	}
	if _, err := b.Stat(t.Context(), "a/b/"); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	mustPut(t, b, "a/b", "a file takes the place of such a folder", backend.PutOptions{})
	if got := listed(t, b, backend.ListOptions{}); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("%q", got)
	}
}

// TestFoldersAreDurableBeforeTheirObjects has one client find a directory that
// another has made and not synced yet.
func TestFoldersAreDurableBeforeTheirObjects(t *testing.T) {
	b := testBucket(t)
	root, err := openDir(b.root, ".")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := b.addFolder(root, "dir", record{nonce: newNonce(), fresh: true}); err != nil {
		t.Fatal(err)
	}
	fresh := func() bool {
		dir, err := b.openFolder("dir/")
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		return readRecord(dir).fresh
	}
	if !fresh() {
		t.Fatal("a new directory counts as synced")
	}
	mustPut(t, b, "dir/a", "", backend.PutOptions{})
	if fresh() {
		t.Error("an object was acknowledged in a directory that may not be on the disk")
	}
}

func TestReplacedMetadataTouchesNoContent(t *testing.T) {
	b := testBucket(t)
	before := mustPut(t, b, "a", "content", backend.PutOptions{Metadata: map[string]string{"mode": "1"}})
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(b.dir, "a"), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	ino := inode()
	info, err := b.Copy(t.Context(), "a", "a", backend.CopyOptions{Metadata: map[string]string{"mode": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := b.Stat(t.Context(), "a")
	if err != nil || stat.ETag != before.ETag || stat.ETag != info.ETag || stat.Metadata["mode"] != "2" || inode() != ino {
		t.Errorf("was %+v, is %+v, %v", before, stat, err)
	}
	if !stat.ModTime.After(before.ModTime) || !stat.ModTime.Equal(info.ModTime) {
		t.Errorf("the time does not tell the change: %v, %v", before.ModTime, stat.ModTime)
	}
}

func TestPageEndsWithTheDirectory(t *testing.T) {
	b := testBucket(t)
	for i := range 3 {
		mustPut(t, b, fmt.Sprintf("dir/%d", i), "", backend.PutOptions{})
	}
	page, err := b.ListPage(t.Context(), backend.ListOptions{Limit: 3})
	if err != nil || len(page.Objects) != 3 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
}
