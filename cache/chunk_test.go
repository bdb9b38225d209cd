package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func newChunks(t *testing.T, dir string, size, memory int64) *chunks {
	t.Helper()
	c, err := openChunks(dir, "mem:test", size, memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// want gets a chunk of that content, and says whether it had to be fetched.
func want(t *testing.T, c *chunks, key, content string) (fetched bool) {
	t.Helper()
	data, err := c.get(t.Context(), c.id(key, "v1", 0), len(content), func(_ context.Context, into []byte) error {
		fetched = true
		copy(into, content)
		return nil
	})
	if err != nil || string(data) != content {
		t.Fatalf("chunk %s: %.20q, %v", key, data, err)
	}
	return fetched
}

func TestAChunkIsFetchedOnceAndSurvivesARemount(t *testing.T) {
	dir := t.TempDir()
	c := newChunks(t, dir, 1<<20, -1)
	if !want(t, c, "k", "content") || want(t, c, "k", "content") {
		t.Error("fetched twice or never")
	}
	c = newChunks(t, dir, 1<<20, -1)
	if want(t, c, "k", "content") {
		t.Error("fetched again after a remount")
	}
	if c.hits.Load() != 1 || c.misses.Load() != 0 {
		t.Errorf("%d hits, %d misses", c.hits.Load(), c.misses.Load())
	}
	if !want(t, c, "other", "content") {
		t.Error("another key has the same chunk")
	}
}

func TestChunksAreKeyedByAllThatSaysWhatTheyAre(t *testing.T) {
	c, d := newChunks(t, t.TempDir(), 1, 1), newChunks(t, t.TempDir(), 1, 1)
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
		t.Run(what, func(t *testing.T) {
			c := newChunks(t, t.TempDir(), 1<<20, -1)
			want(t, c, "k", "content")
			if err := damage(files(t, c.dir)[0]); err != nil {
				t.Fatal(err)
			}
			if !want(t, c, "k", "content") {
				t.Error("the broken chunk was used")
			}
			if c.corrupt.Load()+c.diskErrors.Load() != 1 {
				t.Errorf("%d corrupt, %d disk errors", c.corrupt.Load(), c.diskErrors.Load())
			}
			if want(t, c, "k", "content") {
				t.Error("it was not kept again")
			}
		})
	}
}

func TestAChunkUnderAnotherNameIsNotTakenForIt(t *testing.T) {
	c := newChunks(t, t.TempDir(), 1<<20, -1)
	want(t, c, "a", "content of a")
	want(t, c, "b", "content of b")
	if err := os.Rename(c.file(c.id("a", "v1", 0)), c.file(c.id("b", "v1", 0))); err != nil {
		t.Fatal(err)
	}
	if !want(t, c, "b", "content of b") {
		t.Error("the chunk of a was read as that of b")
	}
}

func TestDiskAndMemoryStayWithinTheirBounds(t *testing.T) {
	const n = 10
	content := strings.Repeat("x", 3*diskBlock)
	one := diskCost(int64(len(content)) + chunkFooter)
	c := newChunks(t, t.TempDir(), n*one, 3*int64(len(content)))
	for i := range 5 * n {
		want(t, c, string(rune('A'+i)), content)
		want(t, c, "A", content) // always in use
	}
	if got := len(files(t, c.dir)); got != n {
		t.Errorf("%d files, want %d", got, n)
	}
	if c.disk.total > n*one || c.memory.total > 3*int64(len(content)) {
		t.Errorf("%d bytes on disk, %d in memory", c.disk.total, c.memory.total)
	}
	if want(t, c, "A", content) {
		t.Error("the chunk in use was evicted")
	}
	if !want(t, c, "B", content) {
		t.Error("an old chunk is still there")
	}
	small := newChunks(t, c.dir, 2*one, -1)
	if got := len(files(t, small.dir)); got != 2 || small.disk.total != 2*one {
		t.Errorf("opened with less room: %d files, %d bytes", got, small.disk.total)
	}
}

func TestAChunkThatDoesNotFitIsReadAllTheSame(t *testing.T) {
	for _, size := range []int64{-1, 100} {
		c := newChunks(t, t.TempDir(), size, -1)
		if !want(t, c, "k", strings.Repeat("x", 5000)) || len(files(t, c.dir)) != 0 {
			t.Errorf("size %d: kept", size)
		}
	}
}

func TestAFullDiskFailsNoRead(t *testing.T) {
	c := newChunks(t, t.TempDir(), 1<<30, -1)
	want(t, c, "before", "content")
	c.write = func(name string, parts ...[]byte) error {
		if err := writeFile(name, parts[0][:1]); err != nil { // as far as it goes
			return err
		}
		return unix.ENOSPC
	}
	for range 2 {
		if !want(t, c, "k", "content") {
			t.Error("a torn chunk was used")
		}
	}
	if want(t, c, "before", "content") {
		t.Error("what was there before is gone")
	}
	if c.diskErrors.Load() != 2 {
		t.Errorf("%d disk errors", c.diskErrors.Load())
	}
	if got := len(files(t, c.dir)); got != 1 {
		t.Errorf("%d files", got)
	}
}

func TestConcurrentReadersOfAChunkFetchItOnce(t *testing.T) {
	c := newChunks(t, t.TempDir(), 1<<20, 1<<20)
	var fetches atomic.Int64
	content := bytes.Repeat([]byte("x"), 100_000)
	entered, release := make(chan struct{}), make(chan struct{})
	get := func() {
		data, err := c.get(t.Context(), c.id("k", "v1", 0), len(content), func(_ context.Context, into []byte) error {
			fetches.Add(1)
			close(entered)
			<-release
			copy(into, content)
			return nil
		})
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
	c := newChunks(t, t.TempDir(), 1<<20, 1<<20)
	broken := errors.New("broken")
	_, err := c.get(t.Context(), c.id("k", "v1", 0), 7, func(_ context.Context, into []byte) error {
		copy(into, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if !want(t, c, "k", "content") {
		t.Error("the failed fetch was kept")
	}
}

func TestTemporaryFilesOfADeadOwnerGo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newChunks(t, dir, 1<<20, -1)
	if len(files(t, dir)) != 0 {
		t.Error("still there")
	}
	want(t, c, "k", "content")
}
