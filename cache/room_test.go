package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// smallDisk gives what is staged so many bytes of the disk.
func smallDisk(c *Cache, bytes int64) {
	var mu sync.Mutex
	block := func(f *os.File, p []byte, off int64) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		all, err := os.ReadDir(c.stage.dir)
		used := int64(0)
		for _, file := range all {
			info, err := file.Info()
			if err == nil { // else it is gone
				used += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		if err != nil {
			return 0, err
		}
		if used >= bytes {
			return 0, unix.ENOSPC
		}
		return f.WriteAt(p, off)
	}
	c.stage.writeAt = func(f *os.File, p []byte, off int64) (done int, err error) {
		for done < len(p) && err == nil {
			var n int
			n, err = block(f, p[done:min(done+4*kib, len(p))], off+int64(done))
			done += n
		}
		return done, err
	}
	c.stage.relieve = nil
}

// writePieces writes the file from its begin, some bytes at a time.
func writePieces(t testing.TB, f store.File, text string, piece int) {
	t.Helper()
	for off := 0; off < len(text); off += piece {
		write(t, f, int64(off), text[off:off+piece])
	}
}

// wantObjects fails the test unless the objects 0, 1, … of n have the content.
func (b *bucket) wantObjects(n int, text string) {
	b.t.Helper()
	for i := range n {
		if got := b.get(fmt.Sprint("main/", i)); got != text {
			b.t.Errorf("%d: the object has %d bytes, want %d, or others", i, len(got), len(text))
		}
	}
}

// A disk that is smaller than the file gets room by what is in the bucket.
func TestAFileThatIsLargerThanTheDisk(t *testing.T) {
	b, opts := newStreams(t)
	c, tree := b.open(opts)
	smallDisk(c, 8*kib)
	text := letters(100 * kib)
	f := create(t, tree, "f", false)
	writePieces(t, f, text, kib/2)
	if got := content(t, f); got != text {
		t.Errorf("read are %d bytes, want %d, or others", len(got), len(text))
	}
	closeFile(t, f)
	if got := b.get("main/f"); got != text {
		t.Errorf("the object has %d bytes, want %d, or others", len(got), len(text))
	}
	b.ended(0)
	if n := b.faults.Count("complete"); n < 10 {
		t.Errorf("%d publications of a file that has no room", n)
	}
}

// Many writers who fill the disk together wait for each other, though none of
// them has come to its end.
func TestWritersShareADiskThatIsTooSmallForThem(t *testing.T) {
	for what, writeBack := range map[string]bool{"write-through": false, "write-back": true} {
		t.Run(what, func(t *testing.T) {
			b, opts := newStreams(t)
			opts.streamPart, opts.WriteBack = mib, writeBack
			c, tree := b.open(opts)
			smallDisk(c, 64*kib)
			const writers, piece = 8, 4 * kib
			text := letters(10 * piece)
			var group sync.WaitGroup
			for i := range writers {
				group.Go(func() {
					f := create(t, tree, fmt.Sprint(i), false)
					writePieces(t, f, text, piece)
					if got := content(t, f); got != text {
						t.Errorf("%d: read are %d bytes, want %d, or others", i, len(got), len(text))
					}
					closeFile(t, f)
				})
			}
			group.Wait()
			ok(t, c.Close(t.Context()))
			b.wantObjects(writers, text)
		})
	}
}

// A store that takes a minute for each request makes its writers wait, and
// nothing else: neither the disk nor what is on the wire grows.
func TestASlowStoreMakesItsWritersWait(t *testing.T) {
	for what, writeBack := range map[string]bool{"write-through": false, "write-back": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, opts := newStreams(t)
				opts.WriteBack = writeBack
				c, tree := b.open(opts)
				const disk, writers, piece = 64 * kib, 4, 4 * kib
				smallDisk(c, disk)
				var sending, most atomic.Int64
				b.faults.Add(fault.Rule{Op: "putpart", Times: fault.Always, Do: func(context.Context, *backend.Op) error {
					most.Store(max(most.Load(), sending.Add(1)))
					time.Sleep(time.Minute)
					sending.Add(-1)
					return nil
				}})
				text := letters(30 * piece)
				var group sync.WaitGroup
				for i := range writers {
					group.Go(func() {
						f := create(t, tree, fmt.Sprint(i), false)
						writePieces(t, f, text, piece)
						closeFile(t, f)
					})
				}
				group.Wait()
				ok(t, c.Close(t.Context()))
				b.wantObjects(writers, text)
				if n := most.Load(); n == 0 || n > writers*streamAtOnce {
					t.Errorf("%d parts on the wire at once", n)
				}
			})
		})
	}
}

// Where the bucket takes nothing, a full disk is full.
func TestAFullDiskIsFullWhereTheBucketTakesNothing(t *testing.T) {
	b, opts := newStreams(t)
	opts.streamPart = mib
	c, tree := b.open(opts)
	defer c.Close(context.Background())
	smallDisk(c, 8*kib)
	b.faults.Add(fault.Rule{Op: "put", Key: "main/f", Times: fault.Always, Err: backend.ErrPermission})
	f := create(t, tree, "f", false)
	write(t, f, 0, letters(8*kib))
	if _, err := f.WriteAt(t.Context(), []byte("more"), 8*kib); !errors.Is(err, store.ErrCacheFull) {
		t.Errorf("write: %v", err)
	}
	b.faults.Clear()
	write(t, f, 8*kib, "more")
	closeFile(t, f)
	if got := b.get("main/f"); got != letters(8*kib)+"more" {
		t.Errorf("the object has %d bytes", len(got))
	}
}

// A file that is open and larger than the disk can be removed and replaced; its
// handles lose it, and nothing of it stays on the disk.
func TestAFileThatIsLargerThanTheDiskCanBeRemovedAndReplaced(t *testing.T) {
	for what, remove := range map[string]func(tree store.Tree) error{
		"removed": func(tree store.Tree) error { return tree.Remove(t.Context(), path(t, "f")) },
		"replaced": func(tree store.Tree) error {
			return tree.Rename(t.Context(), path(t, "g"), path(t, "f"), store.Replace)
		},
	} {
		t.Run(what, func(t *testing.T) {
			b, opts := newStreams(t)
			c, tree := b.open(opts)
			defer c.Close(context.Background())
			putFile(t, tree, "g", "small", false)
			smallDisk(c, 16*kib)
			text := letters(100 * kib)
			f := create(t, tree, "f", false)
			for off := 0; off < len(text); off += kib / 2 {
				write(t, f, int64(off), text[off:off+kib/2])
			}
			ok(t, f.Sync(t.Context()))
			ok(t, remove(tree))
			got := make([]byte, 1)
			if _, err := f.ReadAt(t.Context(), got, 0); err == nil && string(got) != text[:1] || err != nil && !errors.Is(err, store.ErrStale) {
				t.Errorf("read of what is gone, or about to go: %q, %v", got, err)
			}
			putFile(t, tree, "h", "there is room", false)
			closeFile(t, f)
		})
	}
}

// What has to be staged to be cut waits for room as a write does.
func TestACutOfAFileMakesRoom(t *testing.T) {
	b, opts := newStreams(t)
	b.put("main/small", letters(kib/2))
	c, tree := b.open(opts)
	smallDisk(c, 8*kib)
	f := create(t, tree, "f", false)
	write(t, f, 0, letters(8*kib))
	g := open(t, tree, "small", store.OpenFlags{Write: true})
	size := int64(100)
	_, err := g.SetAttr(t.Context(), store.AttrChange{Size: &size})
	ok(t, err)
	closeFile(t, g)
	closeFile(t, f)
	ok(t, c.Close(t.Context()))
	if got := b.get("main/small"); got != letters(100) {
		t.Errorf("the object has %d bytes", len(got))
	}
}
