package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

func newChunks(t *testing.T, dir string, size, memory int64) *fetcher {
	t.Helper()
	c, err := openChunks(dir, "mem:test", size)
	if err != nil {
		t.Fatal(err)
	}
	c.space = func() (int64, int64) { return 1 << 40, 1 << 40 } // whatever this machine has
	f := newFetcher(c, 2*memory)
	t.Cleanup(f.close)
	return f
}

// objectOf has that content, from a bucket that calls before for each request.
func objectOf(key, content string, before func(ctx context.Context, off, n int64) error) *object {
	return &object{key: key, version: "v1", size: int64(len(content)),
		read: func(ctx context.Context, off, n int64, fn func(io.Reader) error) error {
			if err := before(ctx, off, n); err != nil {
				return err
			}
			return fn(strings.NewReader(content[off : off+n]))
		}}
}

// want reads an object of that content, and says whether it had to be fetched.
func want(t *testing.T, f *fetcher, key, content string) (fetched bool) {
	t.Helper()
	o := objectOf(key, content, func(context.Context, int64, int64) error {
		fetched = true
		return nil
	})
	data := make([]byte, len(content))
	_, err := f.readAt(t.Context(), o, data, 0, false)
	if err != nil || string(data) != content {
		t.Fatalf("object %s: %.20q, %v", key, data, err)
	}
	f.work.Wait() // until it is on disk
	return fetched
}

func TestAChunkIsFetchedOnceAndSurvivesARemount(t *testing.T) {
	dir := t.TempDir()
	f := newChunks(t, dir, 1<<20, -1)
	if !want(t, f, "k", "content") || want(t, f, "k", "content") {
		t.Error("fetched twice or never")
	}
	f = newChunks(t, dir, 1<<20, -1)
	if want(t, f, "k", "content") {
		t.Error("fetched again after a remount")
	}
	if f.hits.Load() != 1 || f.misses.Load() != 0 {
		t.Errorf("%d hits, %d misses", f.hits.Load(), f.misses.Load())
	}
	if !want(t, f, "other", "content") {
		t.Error("another key has the same chunk")
	}
}

func TestSomeBlocksOfAChunkSurviveARemount(t *testing.T) {
	dir := t.TempDir()
	content := strings.Repeat("0123456789abcdef", chunkSize/16+500)
	var asked []extent
	o := objectOf("k", content, func(_ context.Context, off, n int64) error {
		asked = append(asked, extent{off, off + n})
		return nil
	})
	read := func(f *fetcher, off, n int64) {
		t.Helper()
		p := make([]byte, n)
		_, err := f.readAt(t.Context(), o, p, off, false)
		if err != nil || string(p) != content[off:off+n] {
			t.Fatalf("at %d: %v", off, err)
		}
		f.work.Wait()
	}
	f := newChunks(t, dir, 1<<30, -1)
	read(f, 3*blockSize-1, 2)
	read(f, o.size-5, 5)
	asked = nil
	f = newChunks(t, dir, 1<<30, -1)
	read(f, 2*blockSize, 2*blockSize)
	read(f, o.size-1, 1)
	if len(asked) != 0 {
		t.Errorf("asked for %v", asked)
	}
	read(f, 1, o.size-1)
	if got, all := len(asked), int64(0); got != 2 {
		t.Errorf("asked for %v, %d", asked, all)
	}
	asked = nil
	f = newChunks(t, dir, 1<<30, -1)
	read(f, 0, o.size)
	if len(asked) != 0 || f.disk.corrupt.Load()+f.disk.failed.Load() != 0 {
		t.Errorf("asked for %v, %d corrupt, %d failed", asked, f.disk.corrupt.Load(), f.disk.failed.Load())
	}
}

func TestChunksAreKeyedByAllThatSaysWhatTheyAre(t *testing.T) {
	c, d := newChunks(t, t.TempDir(), 1, 1).disk, newChunks(t, t.TempDir(), 1, 1).disk
	d.bucket = "mem:other"
	ids := map[chunkID]bool{}
	for _, id := range []chunkID{
		c.id("k", "v", 0), c.id("k", "v", 1), c.id("k", "w", 0), c.id("l", "v", 0), c.id("kv", "", 0), c.id("", "kv", 0), d.id("k", "v", 0),
	} {
		ids[id] = true
	}
	if len(ids) != 7 {
		t.Errorf("%d different of 7", len(ids))
	}
}

// files returns the chunk files below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestABrokenChunkFileIsFetchedAgain(t *testing.T) {
	breaks := map[string]func(name string) error{
		"a flipped bit": func(name string) error {
			data, err := os.ReadFile(name)
			if err == nil {
				data[3] ^= 4
				err = os.WriteFile(name, data, 0o600)
			}
			return err
		},
		"a torn end":     func(name string) error { return os.Truncate(name, 5) },
		"an empty file":  func(name string) error { return os.Truncate(name, 0) },
		"a missing file": os.Remove,
		"a folder": func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.Mkdir(name, 0o700)
		},
	}
	for what, damage := range breaks {
		for _, remount := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				f := newChunks(t, t.TempDir(), 1<<20, -1)
				want(t, f, "k", "content")
				if remount {
					f = newChunks(t, f.disk.dir, 1<<20, -1)
				}
				if err := damage(files(t, f.disk.dir)[0]); err != nil {
					t.Fatal(err)
				}
				if !want(t, f, "k", "content") {
					t.Error("the broken chunk was used")
				}
				if f.disk.corrupt.Load()+f.disk.failed.Load() != 1 {
					t.Errorf("%d corrupt, %d disk errors", f.disk.corrupt.Load(), f.disk.failed.Load())
				}
				if want(t, f, "k", "content") {
					t.Error("it was not kept again")
				}
			})
		}
	}
}

func TestAChunkUnderAnotherNameIsNotTakenForIt(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<20, -1)
	c := f.disk
	want(t, f, "a", "content of a")
	want(t, f, "b", "content of b")
	if err := os.Rename(c.file(c.id("a", "v1", 0)), c.file(c.id("b", "v1", 0))); err != nil {
		t.Fatal(err)
	}
	if !want(t, f, "b", "content of b") {
		t.Error("the chunk of a was read as that of b")
	}
}

func TestDiskAndMemoryStayWithinTheirBounds(t *testing.T) {
	const n = 10
	content := strings.Repeat("x", 3*diskBlock)
	one := diskCost(int64(len(content)) + sumSize)
	f := newChunks(t, t.TempDir(), n*one, 3*int64(len(content)))
	for i := range 5 * n {
		want(t, f, string(rune('A'+i)), content)
		want(t, f, "A", content) // always in use
	}
	c := f.disk
	if got := len(files(t, c.dir)); got != n {
		t.Errorf("%d files, want %d", got, n)
	}
	if c.disk.total() > n*one || f.memory.total > 3*int64(len(content)) {
		t.Errorf("%d bytes on disk, %d in memory", c.disk.total(), f.memory.total)
	}
	if want(t, f, "A", content) {
		t.Error("the chunk in use was evicted")
	}
	if !want(t, f, "B", content) {
		t.Error("an old chunk is still there")
	}
	small := newChunks(t, c.dir, 2*one, -1).disk
	if got := len(files(t, small.dir)); got != 2 || small.disk.total() != 2*one {
		t.Errorf("opened with less room: %d files, %d bytes", got, small.disk.total())
	}
}

func TestAScanDoesNotEvictWhatIsReadAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		content := strings.Repeat("x", 3*diskBlock)
		one := diskCost(int64(len(content)) + sumSize)
		f := newChunks(t, t.TempDir(), n*one, -1)
		const dear = 5
		for i := range dear {
			want(t, f, fmt.Sprint("dear", i), content)
		}
		time.Sleep(wantedAgain)
		for i := range dear {
			want(t, f, fmt.Sprint("dear", i), content)
		}
		for i := range 10 * n { // each read twice, as a reader in small steps does
			want(t, f, fmt.Sprint("scan", i), content)
			want(t, f, fmt.Sprint("scan", i), content)
		}
		for i := range dear {
			if want(t, f, fmt.Sprint("dear", i), content) {
				t.Errorf("dear%d was evicted by a scan", i)
			}
		}
		if total := f.disk.disk.total(); total > n*one || len(files(t, f.disk.dir)) > n {
			t.Errorf("%d bytes on disk", total)
		}
		// Nor is the room for what is new taken away.
		for i := range 2 * n {
			want(t, f, fmt.Sprint("new", i), content)
		}
		time.Sleep(wantedAgain)
		for i := range 2 * n {
			want(t, f, fmt.Sprint("new", i), content)
		}
		if want(t, f, fmt.Sprint("new", 2*n-1), content) {
			t.Error("the last one read is not there")
		}
	})
}

func TestSomeOfTheDiskIsLeftFree(t *testing.T) {
	f := newChunks(t, t.TempDir(), 100*chunkSize, -1)
	free := int64(leastFree + 2*chunkSize)
	f.disk.space = func() (int64, int64) { return free, 1 << 40 }
	want(t, f, "a", "content")
	want(t, f, "b", "content")
	free = leastFree / 2 // somebody else wrote
	want(t, f, "c", "content")
	if got := len(files(t, f.disk.dir)); got != 1 {
		t.Errorf("%d files with the disk nearly full, not only the latest", got)
	}
	f.disk.forget(f.id(objectOf("c", "content", nil), 0).chunk)
	if !want(t, f, "d", "content") || len(files(t, f.disk.dir)) != 0 {
		t.Error("written though there is no room, and nothing to evict")
	}
}

func TestAChunkThatDoesNotFitIsReadAllTheSame(t *testing.T) {
	for _, size := range []int64{-1, 100} {
		f := newChunks(t, t.TempDir(), size, -1)
		if !want(t, f, "k", strings.Repeat("x", 5000)) || len(files(t, f.disk.dir)) != 0 {
			t.Errorf("size %d: kept", size)
		}
	}
}

func TestAFullDiskFailsNoRead(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<30, -1)
	want(t, f, "before", "content")
	f.disk.write = func(file *os.File, parts [][]byte, off int64) error {
		_, err := file.WriteAt(parts[0][:1], off) // as far as it goes
		return errors.Join(err, unix.ENOSPC)
	}
	for range 2 {
		if !want(t, f, "k", "content") {
			t.Error("a torn chunk was used")
		}
	}
	if want(t, f, "before", "content") {
		t.Error("what was there before is gone")
	}
	if f.disk.failed.Load() != 2 {
		t.Errorf("%d disk errors", f.disk.failed.Load())
	}
	if got := len(files(t, f.disk.dir)); got != 1 {
		t.Errorf("%d files", got)
	}
}

func TestConcurrentReadersOfAChunkFetchItOnce(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<20, 1<<20)
	var fetches atomic.Int64
	content := bytes.Repeat([]byte("x"), 100_000)
	entered, release := make(chan struct{}), make(chan struct{})
	o := objectOf("k", string(content), func(context.Context, int64, int64) error {
		fetches.Add(1)
		close(entered)
		<-release
		return nil
	})
	get := func() {
		data := make([]byte, len(content))
		_, err := f.readAt(t.Context(), o, data, 0, false)
		if err != nil || !bytes.Equal(data, content) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}
	var readers sync.WaitGroup
	readers.Go(get)
	<-entered
	for range 20 {
		readers.Go(get)
	}
	close(release)
	readers.Wait()
	if fetches.Load() != 1 {
		t.Errorf("%d fetches", fetches.Load())
	}
}

func TestAFetchThatFailsLeavesNothing(t *testing.T) {
	f := newChunks(t, t.TempDir(), 1<<20, 1<<20)
	broken := errors.New("broken")
	o := objectOf("k", "content", nil)
	o.read = func(_ context.Context, _, _ int64, fn func(io.Reader) error) error {
		return fn(io.MultiReader(strings.NewReader("half"), errReader{broken}))
	}
	if _, err := f.readAt(t.Context(), o, make([]byte, 7), 0, false); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if !want(t, f, "k", "content") {
		t.Error("the failed fetch was kept")
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestRequestsOfReadingAgainAfterARemount(t *testing.T) {
	b := newBucket(t)
	big := strings.Repeat("0123456789abcdef", 3*blockSize/16+1)
	b.put("main/big", big)
	dir := t.TempDir()
	c, tree := b.open(Options{Dir: dir})
	read := func() {
		if content(t, open(t, tree, "big", store.OpenFlags{})) != big {
			t.Error("other content")
		}
	}
	read()
	ok(t, c.Close(t.Context()))
	_, tree = b.open(Options{Dir: dir})
	b.golden("after a remount", read, "STAT main/big")
}
