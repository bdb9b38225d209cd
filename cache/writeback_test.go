package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// refuseWrites lets the bucket take nothing until the result is called.
func (b *bucket) refuseWrites() (allow func()) {
	b.faults.Add(fault.Rule{Op: "write", Err: backend.ErrTransient, Times: fault.Always})
	return b.faults.Clear
}

// dead is a copy of the folder of a cache, as the death of its process leaves it.
func dead(t *testing.T, c *Cache) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	ok(t, os.CopyFS(dir, os.DirFS(c.dir.root)))
	return dir
}

func putFile(t *testing.T, tree store.Tree, name, content string, exclusive bool) {
	t.Helper()
	f := create(t, tree, name, exclusive)
	write(t, f, 0, content)
	closeFile(t, f)
}

func TestWriteBackAcknowledgesWithoutTheBucketAndUploadsAfterwards(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	allow := b.refuseWrites()
	putFile(t, tree, "f", "content", true)
	if got := readFile(t, tree, "f"); got != "content" {
		t.Errorf("read %q", got)
	}
	e, err := tree.Lookup(t.Context(), path(t, "f"))
	if ok(t, err); e.State == "" || e.Size != 7 {
		t.Errorf("entry %+v", e)
	}
	if err := c.Sync(t.Context()); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("sync without the bucket: %v", err)
	}
	e, err = tree.Lookup(t.Context(), path(t, "f"))
	if ok(t, err); e.State != "failed" {
		t.Errorf("state %q", e.State)
	}
	allow()
	ok(t, tree.Sync(t.Context(), path(t, "f")))
	if got := b.get("main/f"); got != "content" {
		t.Errorf("object %q", got)
	}
	e, err = tree.Lookup(t.Context(), path(t, "f"))
	ok(t, err)
	_, err = c.append(kindEnd, nil) // which is written after what is done
	if ok(t, err); e.State != "" || c.promised.Load() != 0 || c.journal.Stats().Records != 1 {
		t.Errorf("after the upload: %+v, %d bytes promised, %+v", e, c.promised.Load(), c.journal.Stats())
	}
}

func TestNextMountUploadsWhatAKilledOneHadAcknowledged(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	putFile(t, tree, "old", "before", false)
	ok(t, c.Sync(t.Context()))

	allow := b.refuseWrites()
	putFile(t, tree, "old", "after", false)
	name := "no text \xff\xfe"
	putFile(t, tree, name, "new", true)
	mode, when := uint32(0o640), time.Unix(1e9, 7)
	_, err := tree.SetAttr(t.Context(), path(t, name), store.AttrChange{
		Mode: &mode, Mtime: &when, Xattr: &store.XattrChange{Name: "user.x", Value: []byte("\xfe\x00y")},
	})
	ok(t, err)
	putFile(t, tree, "tmp", "renamed", true)
	ok(t, tree.Rename(t.Context(), path(t, "tmp"), path(t, "final"), store.Replace))
	putFile(t, tree, "gone", "removed", true)
	ok(t, tree.Remove(t.Context(), path(t, "gone")))
	open := create(t, tree, "open", false)
	write(t, open, 0, "never closed")
	dir := dead(t, c)
	allow()

	c2, tree2 := b.open(Options{Dir: dir}) // without WriteBack all the same
	if got := readFile(t, tree2, "old"); got != "after" {
		t.Errorf("old reads %q before the upload", got)
	}
	ok(t, c2.Sync(t.Context()))
	for name, want := range map[string]string{"old": "after", name: "new", "final": "renamed"} {
		if got := readFile(t, tree2, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := b.get("main/final"); got != "renamed" {
		t.Errorf("object %q", got)
	}
	e, err := tree2.Lookup(t.Context(), path(t, name))
	if ok(t, err); e.Mode != store.ModeRegular|0o640 || !e.Mtime.Equal(when) || string(e.Xattrs["user.x"]) != "\xfe\x00y" {
		t.Errorf("entry %+v", e)
	}
	missing(t, tree2, "gone")
	missing(t, tree2, "open")
	missing(t, tree2, "tmp")
	if s := c2.Stats(); s.StagedFiles != 0 {
		t.Errorf("%d files are still staged", s.StagedFiles)
	}
	if left := files(t, c2.stage.dir); len(left) != 0 {
		t.Errorf("left in staging: %q", left)
	}
}

func TestKilledMountDoesNotConflictWithItsOwnUpload(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	allow := b.refuseWrites()
	putFile(t, tree, "f", "content", true)
	dir := dead(t, c)
	allow()
	ok(t, c.Sync(t.Context())) // it reached the bucket, and died before the journal knew
	c2, _ := b.open(Options{Dir: dir, WriteBack: true})
	ok(t, c2.Sync(t.Context()))
	if got := b.get("main/f"); got != "content" {
		t.Errorf("object %q", got)
	}
	for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/f.") {
		ok(t, err)
		t.Errorf("a conflict with itself: %s", info.Key)
	}
}

// What reached the bucket while its answer was lost is known to be one's own
// after a crash too, though more was written since.
func TestKilledMountDoesNotConflictWithAnUploadWhoseAnswerWasLost(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	f := create(t, tree, "f", false)
	write(t, f, 0, "content")
	b.faults.Add(fault.Rule{Op: "put", Key: "main/f", Err: backend.ErrTransient, After: true})
	if err := f.Sync(t.Context()); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("sync: %v", err)
	}
	allow := b.refuseWrites()
	write(t, f, -1, ", and more")
	ok(t, f.Flush(t.Context()))
	dir := dead(t, c)
	allow()
	c2, _ := b.open(Options{Dir: dir, WriteBack: true})
	ok(t, c2.Sync(t.Context()))
	if got := b.get("main/f"); got != "content, and more" {
		t.Errorf("object %q", got)
	}
	for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/f.") {
		ok(t, err)
		t.Errorf("a conflict with itself: %s", info.Key)
	}
}

func TestWhatTheDiskMayNotHaveIsKeptAsideAfterTheMachineWentDown(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true, JournalEvery: time.Hour})
	defer b.refuseWrites()()
	putFile(t, tree, "synced", "on the disk", true)
	ok(t, c.journal.Sync(t.Context()))
	putFile(t, tree, "unsynced", "who knows", true)
	dir := dead(t, c)
	name := filepath.Join(dir, "journal")
	j, err := journal.Open(name, journal.Options{Store: c.store.BackendName(), Boot: "another"})
	ok(t, err)
	ok(t, j.Close())
	b.faults.Clear()
	c2, tree2 := b.open(Options{Dir: dir})
	ok(t, c2.Sync(t.Context()))
	if got := b.get("main/synced"); got != "on the disk" {
		t.Errorf("object %q", got)
	}
	missing(t, tree2, "unsynced")
	kept, err := filepath.Glob(filepath.Join(dir, "failed", "main", "unsynced-*"))
	if ok(t, err); len(kept) != 1 {
		t.Fatalf("kept: %q", kept)
	}
	if data, _ := os.ReadFile(kept[0]); string(data) != "who knows" {
		t.Errorf("kept is %q", data)
	}
}

func TestJournalOfAnotherBucketIsLeftToIt(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	allow := b.refuseWrites()
	putFile(t, tree, "f", "content", true)
	dir := dead(t, c)
	allow()
	t.Run("other", func(t *testing.T) {
		other := newBucket(t)
		c, tree := other.open(Options{Dir: dir})
		missing(t, tree, "f")
		if c.dir.root == dir {
			t.Errorf("the folder of another bucket is used")
		}
		ok(t, c.Close(t.Context()))
	})
	c2, _ := b.open(Options{Dir: dir})
	ok(t, c2.Sync(t.Context()))
	if got := b.get("main/f"); got != "content" {
		t.Errorf("object %q", got)
	}
}

func TestReadOnlyMountLeavesWhatIsAcknowledgedToAnother(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	allow := b.refuseWrites()
	putFile(t, tree, "f", "content", true)
	dir := dead(t, c)
	allow()
	b.opts.ReadOnly = true
	c2, _ := b.open(Options{Dir: dir})
	ok(t, c2.Close(t.Context()))
	b.opts.ReadOnly = false
	c3, _ := b.open(Options{Dir: dir})
	ok(t, c3.Sync(t.Context()))
	if got := b.get("main/f"); got != "content" {
		t.Errorf("object %q", got)
	}
}

// What reaches the bucket is what is left of what was done, each file by one
// request.
func TestRequestsOfWriteBack(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true, MetadataTTL: time.Hour})
	list := func(dir string) {
		for _, err := range tree.List(t.Context(), path(t, dir)) {
			ok(t, err)
		}
	}
	list("")
	_, err := tree.Lookup(t.Context(), store.Path{})
	ok(t, err)
	sync := func() { ok(t, c.Sync(t.Context())) }
	b.golden("create exclusively, write, close, chmod, utimens, rename", func() {
		putFile(t, tree, ".f.tmp", "content", true)
		mode, when := uint32(0o600), time.Unix(1e9, 0)
		_, err := tree.SetAttr(t.Context(), path(t, ".f.tmp"), store.AttrChange{Mode: &mode})
		ok(t, err)
		_, err = tree.SetAttr(t.Context(), path(t, ".f.tmp"), store.AttrChange{Mtime: &when})
		ok(t, err)
		ok(t, tree.Rename(t.Context(), path(t, ".f.tmp"), path(t, "f"), store.Replace))
		sync()
	}, "PUT main/f if-absent")
	b.golden("replace by rename", func() {
		putFile(t, tree, ".f.tmp", "better", true)
		ok(t, tree.Rename(t.Context(), path(t, ".f.tmp"), path(t, "f"), store.Replace))
		if got := readFile(t, tree, "f"); got != "better" {
			t.Errorf("read %q", got)
		}
		sync()
	}, "PUT main/f if-match")
	b.golden("a file deleted before its upload", func() {
		putFile(t, tree, "gone", "content", true)
		ok(t, tree.Remove(t.Context(), path(t, "gone")))
		sync()
	})
	b.golden("a file written again and again", func() {
		for range 5 {
			putFile(t, tree, "again", strings.Repeat("x", 100), false)
		}
		sync()
	}, "PUT main/again if-absent")
}

func TestFullBudgetMakesTheWriterWaitForTheBucket(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true, Pending: 100})
	allow := b.refuseWrites()
	putFile(t, tree, "a", strings.Repeat("a", 80), true)
	f := create(t, tree, "b", true)
	write(t, f, 0, strings.Repeat("b", 80))
	if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrTransient) {
		t.Errorf("more than the budget is acknowledged: %v", err)
	}
	allow()
	closeFile(t, f)
	if got := b.get("main/b"); len(got) != 80 {
		t.Errorf("object of %d bytes", len(got))
	}
	ok(t, c.Sync(t.Context()))
	if n := c.promised.Load(); n != 0 {
		t.Errorf("%d bytes are promised", n)
	}
}

// The record of a close that comes together with a removal does not outlive it.
func TestARecordThatIsBeingWrittenDoesNotBringBackWhatIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tr := b.open(Options{WriteBack: true})
		f := create(t, tr, "f", false)
		write(t, f, 0, "content")
		in := f.(*handle).in
		writing, write := make(chan struct{}), make(chan struct{})
		done := make(chan error, 2)
		go func() {
			in.mu.Lock()
			defer in.mu.Unlock()
			done <- in.promiseLocked(func() store.Path {
				close(writing)
				<-write
				return path(t, "f")
			}, 0)
		}()
		<-writing
		go func() { done <- in.t.unlink(in) }()
		synctest.Wait()
		close(write)
		ok(t, <-done)
		ok(t, <-done)
		ok(t, c.noted())
		if n := c.journal.Stats().Records; in.recorded() || n != 0 || c.promised.Load() != 0 {
			t.Errorf("%d records, %d bytes promised", n, c.promised.Load())
		}
		closeFile(t, f)
		ok(t, c.Close(t.Context()))
	})
}
