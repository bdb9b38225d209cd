package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/file"
)

func open(t *testing.T, root string) backend.Backend {
	t.Helper()
	b, err := file.Open(root, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func put(t *testing.T, b backend.Backend, key, data string) backend.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, backend.Bytes([]byte(data)), backend.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func keys(t *testing.T, b backend.Backend, prefix string) []string {
	t.Helper()
	keys := []string{}
	for info, err := range backend.ListRecursive(t.Context(), b, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func lists(t *testing.T, b backend.Backend, want ...string) {
	t.Helper()
	if got := keys(t, b, ""); !slices.Equal(got, want) {
		t.Errorf("listed: %q, want %q", got, want)
	}
}

// must takes the error of a system call that prepares a test.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %q", what, err, kind)
	}
}

func TestObjectsArePlainFiles(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	put(t, b, "dir/a file", "by keifs")
	if data, err := os.ReadFile(filepath.Join(root, "dir/a file")); err != nil || string(data) != "by keifs" {
		t.Errorf("%q, %v", data, err)
	}
	must(t, os.MkdirAll(filepath.Join(root, "other/sub"), 0o777))
	must(t, os.WriteFile(filepath.Join(root, "other/sub/f"), []byte("by a tool"), 0o666))
	data, info, err := backend.ReadAll(t.Context(), b, "other/sub/f", 100)
	if err != nil || string(data) != "by a tool" || info.ETag == "" || info.Metadata == nil {
		t.Errorf("%q, %+v, %v", data, info, err)
	}
	if _, err := b.Put(t.Context(), "other/sub/f", backend.Bytes(nil), backend.PutOptions{Cond: backend.Cond{IfMatch: info.ETag}}); err != nil {
		t.Error(err)
	}
	lists(t, b, "dir/a file", "other/sub/f")
}

func TestReplacedFileKeepsItsPermissions(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	put(t, b, "a", "one")
	must(t, os.Chmod(filepath.Join(root, "a"), 0o600))
	put(t, b, "a", "two")
	if st, err := os.Stat(filepath.Join(root, "a")); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestEveryWriteHasAnETagOfItsOwn(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	seen := map[string]bool{}
	fresh := func(how string) {
		t.Helper()
		info, err := b.Stat(t.Context(), "a")
		must(t, err)
		if seen[info.ETag] {
			t.Errorf("%s gives the old ETag %s", how, info.ETag)
		}
		seen[info.ETag] = true
	}
	path := filepath.Join(root, "a")
	for range 50 {
		put(t, b, "a", "same")
		fresh("a put of the same content")
		must(t, os.WriteFile(path, []byte("SAME"), 0o666))
		fresh("a write in place")
		must(t, os.WriteFile(path+".new", []byte("same"), 0o666))
		must(t, os.Rename(path+".new", path))
		fresh("a rename")
	}
}

func TestChangeInPlaceBreaksTheBody(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	old := bytes.Repeat([]byte("old "), 1<<18)
	put(t, b, "a", string(old))
	for _, change := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("NEW "), 1<<18), 0o666) },
		func(path string) error { return os.Truncate(path, 10) },
	} {
		err := b.Get(t.Context(), "a", backend.GetOptions{}, func(info backend.Info, body io.Reader) error {
			half := make([]byte, 1000)
			if _, err := io.ReadFull(body, half); err != nil {
				return err
			}
			must(t, change(filepath.Join(root, "a")))
			_, err := io.Copy(io.Discard, body)
			return err
		})
		is(t, "get", err, backend.ErrTransient)
	}
	// A replacement and a change of metadata leave a reader what it has.
	put(t, b, "a", string(old))
	err := b.Get(t.Context(), "a", backend.GetOptions{}, func(info backend.Info, body io.Reader) error {
		c, _ := backend.As[backend.Copier](b)
		if _, err := c.Copy(t.Context(), "a", "a", backend.CopyOptions{Metadata: map[string]string{"mode": "1"}}); err != nil {
			return err
		}
		put(t, b, "a", "new")
		data, err := io.ReadAll(body)
		if !bytes.Equal(data, old) {
			t.Errorf("read %d bytes of something else", len(data))
		}
		return err
	})
	must(t, err)
}

func TestNothingLeavesTheDirectory(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o666))
	must(t, os.Symlink(outside, filepath.Join(root, "dir")))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o666))
	b := open(t, root)
	put(t, b, "real", "real")
	lists(t, b, "real")
	var level []string
	for e, err := range backend.List(t.Context(), b, "") {
		must(t, err)
		level = append(level, e.Key)
	}
	if !slices.Equal(level, []string{"real"}) {
		t.Errorf("listed: %q", level)
	}
	if got := keys(t, b, "dir/"); len(got) > 0 {
		t.Errorf("listed through a link: %q", got)
	}
	for _, key := range []string{"dir/secret", "link", "dangling", "fifo", "dir/"} {
		_, err := b.Stat(t.Context(), key)
		is(t, "stat "+key, err, backend.ErrNotExist)
		is(t, "get "+key, b.Get(t.Context(), key, backend.GetOptions{}, nil), backend.ErrNotExist)
		_, err = b.Put(t.Context(), key, backend.Bytes(nil), backend.PutOptions{})
		is(t, "put "+key, err, backend.ErrBadKey)
		must(t, b.Delete(t.Context(), key, backend.Cond{}))
		r, _ := backend.As[backend.Renamer](b)
		if key != "dir/" {
			_, err = r.Rename(t.Context(), key, "moved", backend.Cond{})
			is(t, "rename "+key, err, backend.ErrNotExist)
		}
	}
	for _, name := range []string{"dir", "link", "dangling", "fifo"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			t.Errorf("what is not an object was deleted: %v", err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(data) != "secret" {
		t.Errorf("outside: %q, %v", data, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

func TestReservedFolderIsNoKey(t *testing.T) {
	b := open(t, t.TempDir())
	put(t, b, "a", "")
	put(t, b, "dir/.keifs-store/a", "only the top level is reserved")
	for _, key := range []string{".keifs-store", ".keifs-store/", ".keifs-store/lock", ".keifs-store/tmp/x/1"} {
		_, err := b.Stat(t.Context(), key)
		is(t, "stat "+key, err, backend.ErrBadKey)
		_, err = b.Put(t.Context(), key, backend.Bytes(nil), backend.PutOptions{})
		is(t, "put "+key, err, backend.ErrBadKey)
		is(t, "delete "+key, b.Delete(t.Context(), key, backend.Cond{}), backend.ErrBadKey)
		if got := keys(t, b, key); len(got) > 0 {
			t.Errorf("%s is listed: %q", key, got)
		}
	}
	lists(t, b, "a", "dir/.keifs-store/a")
}

func TestEmptyDirectoryOfAnotherToolIsAMarker(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o777))
	must(t, os.MkdirAll(filepath.Join(root, "full/sub"), 0o777))
	must(t, os.WriteFile(filepath.Join(root, "full/a"), nil, 0o666))
	lists(t, b, "empty/", "full/a", "full/sub/")
	before, err := b.Stat(t.Context(), "empty/")
	must(t, err)

	// What happens to other keys does not make it come or go.
	put(t, b, "empty/child", "")
	lists(t, b, "empty/", "empty/child", "full/a", "full/sub/")
	must(t, b.Delete(t.Context(), "empty/child", backend.Cond{}))
	must(t, b.Delete(t.Context(), "empty/child", backend.Cond{}))
	must(t, b.Delete(t.Context(), "full/a", backend.Cond{}))
	lists(t, b, "empty/", "full/sub/")
	if after, err := b.Stat(t.Context(), "empty/"); err != nil || after.ETag != before.ETag {
		t.Errorf("the marker was %+v, is %+v, %v", before, after, err)
	}
	must(t, b.Delete(t.Context(), "full/sub/", backend.Cond{}))
	must(t, b.Delete(t.Context(), "empty/", backend.Cond{IfMatch: before.ETag}))
	lists(t, b)
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestDirectoriesComeAndGo has each key's directory removed by one while
// another puts an object there.
func TestDirectoriesComeAndGo(t *testing.T) {
	root := t.TempDir()
	clients := []backend.Backend{open(t, root), open(t, root)}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			b := clients[w%2]
			key := fmt.Sprintf("a/b/c/%d", w)
			for i := range 40 {
				put(t, b, key, fmt.Sprint(i))
				data, _, err := backend.ReadAll(context.Background(), b, key, 100)
				if err != nil || string(data) != fmt.Sprint(i) {
					t.Errorf("%q, %v, want %d", data, err, i)
				}
				if err := b.Delete(context.Background(), key, backend.Cond{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	lists(t, clients[0])
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestListingShowsWhatIsBeingReplaced(t *testing.T) {
	b := open(t, t.TempDir())
	want := []string{"a", "b", "dir/c", "dir/d"}
	for _, key := range want {
		put(t, b, key, "")
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, key := range want {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					put(t, b, key, fmt.Sprint(i))
				}
			}
		})
	}
	for range 100 {
		lists(t, b, want...)
	}
	close(done)
	wg.Wait()
}

// zeros is a source of n zero bytes but for one in the middle.
type zeros int64

func (n zeros) Size() int64 { return int64(n) }

func (n zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if i := int64(n)/2 - off; i >= 0 && i < int64(len(p)) {
		p[i] = 1
	}
	return len(p), nil
}

func TestHolesTakeNoSpace(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	const size = 1<<30 + 12345
	sparse := func(key string) {
		t.Helper()
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(root, key), &st))
		if st.Size < size || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in %d blocks", key, st.Size, st.Blocks)
		}
		err := b.Get(t.Context(), key, backend.GetOptions{Offset: size/2 - 1, Length: 3}, func(_ backend.Info, body io.Reader) error {
			data, err := io.ReadAll(body)
			if string(data) != "\x00\x01\x00" {
				t.Errorf("%s holds %q", key, data)
			}
			return err
		})
		must(t, err)
	}
	_, err := b.Put(t.Context(), "a", zeros(size), backend.PutOptions{})
	must(t, err)
	sparse("a")
	c, _ := backend.As[backend.Copier](b)
	_, err = c.Copy(t.Context(), "a", "copy", backend.CopyOptions{})
	must(t, err)
	sparse("copy")
	a, _ := backend.As[backend.Assembler](b)
	asm, err := a.Assemble(t.Context(), "assembled", backend.PutOptions{})
	must(t, err)
	must(t, asm.CopyPart(t.Context(), 1, "a", "", 0, size))
	must(t, asm.PutPart(t.Context(), 2, backend.Bytes([]byte("tail"))))
	_, err = asm.Complete(t.Context())
	must(t, err)
	sparse("assembled")
}

func TestMissingRootIsNoBucket(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	_, err := file.Open(root, file.Options{})
	is(t, "open", err, backend.ErrNoBucket)
	b, err := file.Open(root, file.Options{Create: true})
	must(t, err)
	put(t, b, "a", "")
	must(t, os.RemoveAll(root))
	_, err = b.Stat(t.Context(), "a")
	is(t, "stat", err, backend.ErrNoBucket)
	_, err = b.Put(t.Context(), "a", backend.Bytes(nil), backend.PutOptions{})
	is(t, "put", err, backend.ErrNoBucket)
	_, err = b.Put(t.Context(), "dir/a", backend.Bytes(nil), backend.PutOptions{})
	is(t, "put", err, backend.ErrNoBucket)
	is(t, "delete", b.Delete(t.Context(), "dir/a", backend.Cond{}), backend.ErrNoBucket)
	for _, prefix := range []string{"", "dir/"} {
		_, err = b.ListPage(t.Context(), backend.ListOptions{Prefix: prefix})
		is(t, "list", err, backend.ErrNoBucket)
	}
	must(t, b.Close())
	must(t, os.WriteFile(root, nil, 0o666))
	_, err = file.Open(root, file.Options{})
	is(t, "opening a file", err, backend.ErrNoBucket)
}

func TestReadingWritesNothing(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte("a"), 0o666))
	b := open(t, root)
	if _, _, err := backend.ReadAll(t.Context(), b, "a", 10); err != nil {
		t.Error(err)
	}
	lists(t, b, "a")
	if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
		t.Errorf("there is %v, %v", left, err)
	}
}

func TestReservedFolderMayBeRemoved(t *testing.T) {
	root := t.TempDir()
	b := open(t, root)
	for i := range 3 {
		put(t, b, fmt.Sprintf("dir%d/a", i), "a")
		must(t, os.RemoveAll(filepath.Join(root, ".keifs-store")))
	}
	lists(t, b, "dir0/a", "dir1/a", "dir2/a")
}

func TestStaleFilesOfTheDeadAreRemoved(t *testing.T) {
	root := t.TempDir()
	alive := open(t, root)
	a, _ := backend.As[backend.Assembler](alive)
	asm, err := a.Assemble(t.Context(), "assembled", backend.PutOptions{})
	must(t, err)
	must(t, asm.PutPart(t.Context(), 1, backend.Bytes([]byte("part"))))

	tmp := filepath.Join(root, ".keifs-store", "tmp")
	must(t, os.MkdirAll(filepath.Join(tmp, "DEAD", "3"), 0o777))
	for _, name := range []string{"lock", "1", "2"} {
		must(t, os.WriteFile(filepath.Join(tmp, "DEAD", name), []byte("left"), 0o666))
	}
	must(t, os.Mkdir(filepath.Join(tmp, "KILLED-AT-ONCE"), 0o777))
	open(t, root)
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	_, err = asm.Complete(t.Context())
	must(t, err)
	lists(t, alive, "assembled")
	must(t, alive.Close())
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left after Close: %v, %v", left, err)
	}
}
