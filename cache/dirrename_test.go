package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// Whatever cuts off the rename of a directory, the next volume finishes it.
func TestARenameThatWasCutOffIsFinishedByTheNextVolume(t *testing.T) {
	for n := 1; ; n++ {
		b := newBucket(t)
		dir := t.TempDir()
		c, tree := b.open(Options{Dir: dir})
		for i := range 5 {
			b.put(fmt.Sprint("main/d/", i), fmt.Sprint("content ", i))
		}
		_, err := tree.Lookup(t.Context(), path(t, "d"))
		ok(t, err)
		_, err = tree.Mkdir(t.Context(), path(t, "probed"), store.Attr{Mode: store.ModeDir | 0o755})
		ok(t, err)
		b.faults.Add(fault.Rule{Op: "write", From: n, Times: fault.Always, Err: backend.ErrPermission})
		err = tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace)
		cut := b.faults.Fired() > 0
		if cut != (err != nil) {
			t.Errorf("write %d: %v", n, err)
		}
		pending := len(c.Pending())
		if err := c.Close(t.Context()); (err != nil) != (pending > 0) {
			t.Errorf("write %d: %d pending, then %v", n, pending, err)
		}
		b.faults.Clear()
		c, _ = b.open(Options{Dir: dir})
		ok(t, c.Sync(t.Context()))
		var old, now int
		for _, key := range b.keys() {
			if strings.HasPrefix(key, "main/d/") && key != "main/d/" {
				old++
			}
			if strings.HasPrefix(key, "main/e/") && key != "main/e/" {
				now++
			}
		}
		if old > 0 && now > 0 || old+now != 5 || len(c.Pending()) > 0 {
			t.Errorf("write %d failed: there is %q, pending %+v", n, b.keys(), c.Pending())
		}
		ok(t, c.Close(t.Context()))
		if !cut {
			if now != 5 {
				t.Errorf("there is %q", b.keys())
			}
			return
		}
	}
}

// What is renamed or removed while a rename is not finished would be brought
// back, or be left behind, by finishing it.
func TestNothingIsRenamedOrRemovedUnderARenameThatWasCutOff(t *testing.T) {
	b := newBucket(t)
	caps := b.raw.Caps()
	b.opts.Caps = &caps // a probe would meet the fault
	_, tree := b.open(Options{})
	for i := range 5 {
		b.put(fmt.Sprint("main/d/", i), fmt.Sprint("content ", i))
	}
	for _, op := range []string{"delete", "deletebatch"} {
		b.faults.Add(fault.Rule{Op: op, Times: fault.Always, Err: backend.ErrPermission})
	}
	if err := tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace); !errors.Is(err, backend.ErrPermission) {
		t.Fatal(err)
	}
	for _, name := range []string{"d/1", "e/1"} {
		if err := tree.Remove(t.Context(), path(t, name)); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if err := tree.Rename(t.Context(), path(t, "e"), path(t, "f"), store.Replace); !errors.Is(err, backend.ErrPermission) {
		t.Error(err)
	}
	b.faults.Clear()
	ok(t, tree.Remove(t.Context(), path(t, "e/1")))
	ok(t, tree.Rename(t.Context(), path(t, "e"), path(t, "f"), store.Replace))
	if got, want := b.keys(), []string{"main/", "main/f/0", "main/f/2", "main/f/3", "main/f/4"}; !slices.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
}

// refuseDeletions makes the next renames of directories stop before their
// first deletion, until the faults are cleared.
func (b *bucket) refuseDeletions() {
	for _, op := range []string{"delete", "deletebatch"} {
		b.faults.Add(fault.Rule{Op: op, Times: fault.Always, Err: backend.ErrPermission})
	}
}

// What is open, or here only, in a directory that was being renamed goes along
// when that is finished later.
func TestOpenFilesFollowARenameThatIsFinishedLater(t *testing.T) {
	b := newBucket(t)
	caps := b.raw.Caps()
	b.opts.Caps = &caps // a probe would meet the fault
	c, tree := b.open(Options{WriteBack: true})
	for i := range 3 {
		b.put(fmt.Sprint("main/d/", i), fmt.Sprint("content ", i))
	}
	f := open(t, tree, "d/1", store.OpenFlags{Write: true})
	b.refuseDeletions()
	if err := tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace); !errors.Is(err, backend.ErrPermission) {
		t.Fatal(err)
	}
	b.faults.Add(fault.Rule{Op: "put", Times: fault.Always, Err: backend.ErrPermission})
	made := create(t, tree, "d/new", false)
	write(t, made, 0, "new")
	closeFile(t, made)
	b.faults.Clear()
	ok(t, c.renames.wait(t.Context(), func(*dirRename) bool { return true }))
	write(t, f, 0, "changed 1")
	closeFile(t, f)
	ok(t, c.Sync(t.Context()))
	if got, want := b.keys(), []string{"main/", "main/e/0", "main/e/1", "main/e/2", "main/e/new"}; !slices.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
	if got := b.get("main/e/1"); got != "changed 1" {
		t.Errorf("what was written is lost: there is %q", got)
	}
}

// A rename that is taken back takes back what was opened under the new name.
func TestOpenFilesFollowARenameThatIsTakenBackLater(t *testing.T) {
	b := newBucket(t)
	caps := b.raw.Caps()
	b.opts.Caps = &caps
	c, tree := b.open(Options{})
	for i := range 3 {
		b.put(fmt.Sprint("main/d/", i), fmt.Sprint("content ", i))
	}
	b.put("main/d/sub/", "") // which is copied last
	b.refuseDeletions()
	b.faults.Add(fault.Rule{Op: "copy", Key: "main/e/sub/", Times: fault.Always, Err: backend.ErrPermission})
	if err := tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace); !errors.Is(err, backend.ErrPermission) {
		t.Fatal(err)
	}
	f := open(t, tree, "e/1", store.OpenFlags{Write: true})
	b.faults.Clear()
	ok(t, c.renames.wait(t.Context(), func(*dirRename) bool { return true }))
	write(t, f, 0, "changed")
	closeFile(t, f)
	if got, want := b.keys(), []string{"main/", "main/d/0", "main/d/1", "main/d/2", "main/d/sub/"}; !slices.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
	if got := b.get("main/d/1"); !strings.HasPrefix(got, "changed") {
		t.Errorf("what was written is lost: there is %q", got)
	}
}

// What mv asks of a store whose copies and batches have no conditions, in a
// directory that was listed: the attributes of the source, one listing of the
// target, two of the source.
func TestWhatRenamingADirectoryCosts(t *testing.T) {
	b := newBucket(t)
	b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.CondCopy, c.CondBatch = false, false }})
	_, tree := b.open(Options{MetadataTTL: time.Hour})
	_, err := tree.Mkdir(t.Context(), path(t, "probed"), store.Attr{Mode: store.ModeDir | 0o755})
	ok(t, err)
	for i := range 1000 {
		b.put(fmt.Sprintf("main/from/%04d", i), "content")
	}
	list(t, tree, "")
	got := b.requests(func() {
		_, err := tree.Lookup(t.Context(), path(t, "from"))
		ok(t, err)
		missing(t, tree, "to")
		ok(t, tree.Rename(t.Context(), path(t, "from"), path(t, "to"), store.NoReplace))
	})
	if copies := b.faults.Count("copy"); copies != 1000 {
		t.Errorf("%d copies", copies)
	}
	got = slices.DeleteFunc(got, func(r string) bool { return strings.HasPrefix(r, "COPY main/to/") })
	if want := []string{"STAT main/from/", "LIST main/to/", "LIST main/from/", "LIST main/from/", "DELETEBATCH"}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What a directory has that was not uploaded yet is renamed by the journal
// alone.
func TestARenamedDirectoryTakesAlongWhatIsHereOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(t)
		c, tree := b.open(Options{WriteBack: true})
		for _, dir := range []string{"d", "d/sub"} {
			_, err := tree.Mkdir(t.Context(), path(t, dir), store.Attr{Mode: store.ModeDir | 0o755})
			ok(t, err)
		}
		var want, puts []string
		for i := range 20 {
			name := fmt.Sprintf("sub/%02d", i)
			f := create(t, tree, "d/"+name, true)
			write(t, f, 0, name)
			closeFile(t, f)
			want, puts = append(want, "main/e/"+name), append(puts, "PUT main/e/"+name+" if-absent")
		}
		half := create(t, tree, "d/half", false)
		write(t, half, 0, "begun, ")
		missing(t, tree, "e")
		b.golden("mv", func() { ok(t, tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.NoReplace)) },
			"LIST main/d/", "COPY main/e/", "COPY main/e/sub/ if-absent", "LIST main/d/", "DELETEBATCH")
		for _, name := range []string{"sub/00", "sub/19"} {
			missing(t, tree, "d/"+name)
			if got := readFile(t, tree, "e/"+name); got != name {
				t.Errorf("%s is %q", name, got)
			}
		}
		missing(t, tree, "d")
		write(t, half, 7, "and ended")
		closeFile(t, half)
		puts = append(puts, "PUT main/e/half if-absent")
		b.golden("upload", func() { ok(t, c.Sync(t.Context())) }, puts...)
		want = append([]string{"main/", "main/e/", "main/e/half", "main/e/sub/"}, want...)
		if got := b.keys(); !slices.Equal(got, want) {
			t.Errorf("there is %q", got)
		}
		if got := b.get("main/e/half"); got != "begun, and ended" {
			t.Errorf("the open file has %q", got)
		}
		ok(t, c.Close(t.Context()))
	})
}

// A directory that only this mount knows of, since what it had in the bucket
// was removed by somebody else, is renamed by way of the bucket.
func TestADirectoryOfWhichTheBucketKnowsNothingIsRenamed(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{WriteBack: true})
	_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755})
	ok(t, err)
	closeFile(t, create(t, tree, "d/f", false))
	ok(t, b.raw.Delete(t.Context(), "main/d/", backend.Cond{}))
	ok(t, tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.NoReplace))
	ok(t, c.Sync(t.Context()))
	if got := b.keys(); !slices.Equal(got, []string{"main/", "main/e/f"}) {
		t.Errorf("there is %q", got)
	}
}

// A crash while the journal takes the new names, one after the other, leaves
// nothing under the old one.
func TestARenamedDirectoryIsNotTornByACrashWhileTheJournalFollows(t *testing.T) {
	b := newBucket(t)
	caps := b.raw.Caps()
	b.opts.Caps = &caps
	c, tree := b.open(Options{WriteBack: true})
	b.put("main/d/there", "content")
	_, err := tree.Lookup(t.Context(), path(t, "d"))
	ok(t, err)
	b.faults.Add(fault.Rule{Op: "put", Times: fault.Always, Err: backend.ErrTransient})
	const n = 5
	for i := range n {
		putFile(t, tree, fmt.Sprint("d/", i), "new", true)
	}
	var from int64 // how long the journal is when the bucket is done
	size := func() int64 {
		info, err := os.Stat(filepath.Join(c.dir.root, "journal"))
		ok(t, err)
		return info.Size()
	}
	for _, op := range []string{"delete", "deletebatch"} {
		b.faults.Add(fault.Rule{Op: op, After: true, Times: fault.Always, Do: func(context.Context, *backend.Op) error { from = size(); return nil }})
	}
	ok(t, tree.Rename(t.Context(), path(t, "d"), path(t, "e"), store.Replace))
	to := size()
	for i := range int64(8) {
		dir := dead(t, c)
		ok(t, os.Truncate(filepath.Join(dir, "journal"), from+(to-from)*i/8))
		c2, tree2 := b.open(Options{Dir: dir, WriteBack: true})
		for i := range n {
			missing(t, tree2, fmt.Sprint("d/", i))
			if got := readFile(t, tree2, fmt.Sprint("e/", i)); got != "new" {
				t.Errorf("e/%d is %q", i, got)
			}
		}
		_ = c2.Close(t.Context()) // the bucket takes nothing
	}
}

// What was acknowledged while a rename was under way comes, after a crash,
// under the new name.
func TestWhatIsAcknowledgedDuringARenameIsUnderTheNewNameAfterACrash(t *testing.T) {
	for _, mv := range []struct{ from, to, file, now string }{{"a", "b", "a", "b"}, {"d", "e", "d/a", "e/a"}} {
		t.Run(mv.file, func(t *testing.T) {
			b := newBucket(t)
			caps := b.raw.Caps()
			b.opts.Caps = &caps
			c, tree := b.open(Options{WriteBack: true})
			b.put("main/"+mv.file, "before")
			f := open(t, tree, mv.file, store.OpenFlags{Write: true})
			b.faults.Add(fault.Rule{Op: "put", Times: fault.Always, Err: backend.ErrTransient})
			b.faults.Add(fault.Rule{Op: "copy", Do: func(context.Context, *backend.Op) error {
				write(t, f, 0, "behind")
				return f.Flush(t.Context())
			}})
			ok(t, tree.Rename(t.Context(), path(t, mv.from), path(t, mv.to), store.Replace))
			dir := dead(t, c)
			b.faults.Clear()
			c2, _ := b.open(Options{Dir: dir, WriteBack: true})
			ok(t, c2.Sync(t.Context()))
			if got, want := b.keys(), []string{"main/", "main/" + mv.now}; !slices.Equal(got, want) {
				t.Errorf("there is %q", got)
			}
			if got := b.get("main/" + mv.now); got != "behind" {
				t.Errorf("%s is %q", mv.now, got)
			}
		})
	}
}
