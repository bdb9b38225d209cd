package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
)

func TestWhatRenamingCosts(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	_, err := b.publish("a", "content", PublishOptions{})
	ok(t, err)
	b.in.ResetRequests()
	ok(t, b.Rename(ctx, b.path("a"), b.path("b"), Replace))
	b.cost("STAT main/a", "LIST main/a/", "STAT main/b", "LIST main/b/", "COPY main/b", "DELETE main/a if-match")

	b.put("main/d/x", "")
	ok(t, b.Rename(ctx, b.path("b"), b.path("d/b"), NoReplace))
	b.cost("STAT main/b", "LIST main/b/", "STAT main/d/b", "LIST main/d/b/", // what is there
		"LIST main/d/", "LIST main/", // the new parent, and what the old one has left
		"COPY main/d/b if-absent", "DELETE main/b if-match")

	ok(t, b.Rename(ctx, b.path("d"), b.path("e"), Replace))
	b.cost("STAT main/d", "LIST main/d/", "STAT main/e", "LIST main/e/",
		"LIST main/d/", "COPY main/e/b if-absent", "COPY main/e/x if-absent",
		"LIST main/d/", "DELETEBATCH")
	same(t, b.keys(), []string{"main/e/b", "main/e/x"})
}

func TestWhatRenamingCostsWhereTheNamesWereSeen(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	e, err := b.publish("a", "content", PublishOptions{})
	ok(t, err)
	b.in.ResetRequests()
	moved, err := b.RenameSeen(ctx, b.path("a"), b.path("b"), Replace, Seen{From: &e, Absent: true, Parent: true})
	ok(t, err)
	b.cost("COPY main/b", "DELETE main/a if-match")
	now, err := b.Lookup(ctx, b.path("b"))
	ok(t, err)
	if !alike(moved, now) {
		t.Errorf("%+v, but there is %+v", moved, now)
	}

	// What is not as it was seen is moved as it is.
	b.put("main/b", "somebody else's")
	b.in.ResetRequests()
	_, err = b.RenameSeen(ctx, b.path("b"), b.path("c"), NoReplace, Seen{From: &now, Absent: true})
	ok(t, err)
	if b.body("main/c") != "somebody else's" {
		t.Error("an older version was moved")
	}
	_, err = b.RenameSeen(ctx, b.path("b"), b.path("d"), Replace, Seen{From: &now, Absent: true})
	is(t, err, ErrNotExist)

	for i := range 1001 {
		b.put(fmt.Sprintf("main/d/%04d", i), "")
	}
	dir := Entry{Attr: Attr{Mode: ModeDir}}
	b.in.ResetRequests()
	_, err = b.RenameSeen(ctx, b.path("d"), b.path("e"), Replace, Seen{From: &dir, Absent: true, Parent: true})
	ok(t, err)
	if b.in.Count("copy") != 1001 || b.in.Count("list") != 4 || b.in.Count("deletebatch") != 2 || b.in.Count("") != 1007 {
		t.Errorf("%d requests, of which %d copies, %d listings", b.in.Count(""), b.in.Count("copy"), b.in.Count("list"))
	}
	_, err = b.RenameSeen(ctx, b.path("d"), b.path("f"), Replace, Seen{From: &dir, Absent: true, Parent: true})
	is(t, err, ErrNotExist)
}

func TestADirectoryIsDeletedInBatchesWhereThoseHaveNoConditions(t *testing.T) {
	b := newBench(t, mem.Options{Caps: func(c *backend.Caps) { c.CondBatch = false }}, Options{})
	for i := range fewDeletions + 1 {
		b.put(fmt.Sprint("main/d/", i), "")
	}
	ok(t, b.Rename(t.Context(), b.path("d"), b.path("e"), Replace))
	if got := b.in.Requests(); got[len(got)-1] != "DELETEBATCH" || b.in.Count("delete") != 0 {
		t.Errorf("requests: %s", got)
	}
}

func TestWhatIsWrittenAtTheEndOfADirectoryRenameIsMovedToo(t *testing.T) {
	for _, written := range []string{"main/d/x", "main/d/"} {
		t.Run(written, func(t *testing.T) {
			b := newBench(t, mem.Options{}, Options{})
			b.put("main/d/", "")
			b.put("main/d/x", "old")
			b.in.Add(fault.Rule{Op: "deletebatch", Do: func(context.Context, *backend.Op) error {
				_, err := b.raw.Put(t.Context(), written, backend.Bytes([]byte("new")), backend.PutOptions{})
				return err
			}})
			ok(t, b.Rename(t.Context(), b.path("d"), b.path("e"), Replace))
			if got := b.body(strings.Replace(written, "/d/", "/e/", 1)); got != "new" {
				t.Errorf("what was written is lost: there is %q", got)
			}
		})
	}
}

// copies is a bucket that notes what becomes of the metadata of copies.
type copies struct {
	backend.Backend
	replaced []bool
}

func (c *copies) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	c.replaced = append(c.replaced, opts.Metadata != nil)
	copier, _ := backend.As[backend.Copier](c.Backend)
	return copier.Copy(ctx, src, dst, opts)
}

func TestARenameReplacesMetadataOnlyWhereTimesAreMissing(t *testing.T) {
	bucket := &copies{Backend: mem.New(t.Name(), mem.Options{})}
	b := benchOver(t, bucket, Options{})
	_, err := b.publish("ours", "content", PublishOptions{Attr: Attr{Mode: 0o600}})
	ok(t, err)
	b.put("main/theirs", "content")
	for _, name := range []string{"ours", "theirs"} {
		before, err := b.Lookup(t.Context(), b.path(name))
		ok(t, err)
		ok(t, b.Rename(t.Context(), b.path(name), b.path("new"), Replace))
		after, err := b.Lookup(t.Context(), b.path("new"))
		ok(t, err)
		if after.Mode != before.Mode || !after.Mtime.Equal(before.Mtime) || !after.Ctime.Equal(before.Ctime) {
			t.Errorf("%s: %+v, before %+v", name, after, before)
		}
	}
	if !slices.Equal(bucket.replaced, []bool{false, true}) {
		t.Errorf("metadata replaced: %v", bucket.replaced)
	}
}

func TestAVersionWrittenDuringARenameIsMovedToo(t *testing.T) {
	for name, bucket := range lesserCopies() {
		for _, mode := range []RenameMode{Replace, NoReplace} {
			t.Run(fmt.Sprint(name, mode), func(t *testing.T) {
				b := newBench(t, bucket, Options{})
				b.put("main/a", "old")
				write := func(context.Context, *backend.Op) error { b.put("main/a", "new"); return nil }
				if b.raw.Caps().CondDelete {
					b.in.Add(fault.Rule{Op: "delete", Do: write}) // after the copy
				} else {
					b.in.Add(fault.Rule{Op: "stat", Key: "main/a", From: 2, Do: write})
				}
				ok(t, b.Rename(t.Context(), b.path("a"), b.path("b"), mode))
				if b.in.Fired() != 1 || b.body("main/b") != "new" {
					t.Errorf("%d, %q", b.in.Fired(), b.body("main/b"))
				}
				same(t, b.keys(), []string{"main/b"})

				b.in.Clear()
				b.put("main/d/a", "old")
				b.put("main/d/b", "removed meanwhile")
				b.in.Add(fault.Rule{Op: "list", Key: "main/d/", From: 3, Do: func(context.Context, *backend.Op) error {
					b.put("main/d/a", "new")
					b.put("main/d/c", "more")
					return b.raw.Delete(context.Background(), "main/d/b", backend.Cond{})
				}})
				ok(t, b.Rename(t.Context(), b.path("d"), b.path("e"), mode))
				same(t, b.keys(), []string{"main/b", "main/e/a", "main/e/c"})
				if b.in.Fired() != 1 || b.body("main/e/a") != "new" {
					t.Errorf("%d, %q", b.in.Fired(), b.body("main/e/a"))
				}
			})
		}
	}
}

func TestARenameThatMustNotReplaceDoesNot(t *testing.T) {
	for name, bucket := range lesserCopies() {
		b := newBench(t, bucket, Options{})
		b.put("main/a", "mine")
		// Somebody takes the name after the look.
		b.in.Add(fault.Rule{Op: "list", Key: "main/b/", After: true, Do: func(context.Context, *backend.Op) error { b.put("main/b", "theirs"); return nil }})
		is(t, b.Rename(t.Context(), b.path("a"), b.path("b"), NoReplace), ErrExist)
		if b.body("main/a") != "mine" || b.body("main/b") != "theirs" {
			t.Errorf("%s: %q", name, b.keys())
		}
	}
}

func TestALargeFileIsRenamedByParts(t *testing.T) {
	b := newBench(t, mem.Options{Caps: func(c *backend.Caps) { c.MaxCopy, c.MaxPart = 1000, 4<<20 }}, Options{})
	content := strings.Repeat("0123456789", smallCopy/10+1)
	b.put("main/a", content, "mtime", "5", "ctime", "5")
	ok(t, b.Rename(t.Context(), b.path("a"), b.path("b"), Replace))
	if b.body("main/b") != content || b.in.Count("copypart") != 3 || b.in.Count("get") != 0 {
		t.Errorf("%q", b.in.Requests())
	}
}

func TestWhatIsInTheWayOfARename(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	for _, key := range []string{"main/f", "main/g", "main/d/x", "main/e/", "main/full/x"} {
		b.put(key, "")
	}
	for _, c := range []struct {
		from, to string
		mode     RenameMode
		want     error
	}{
		{"none", "x", Replace, ErrNotExist}, {"f", "none/x", Replace, ErrNotExist}, {"f", "g/x", Replace, ErrNotDir},
		{"f", "d", Replace, ErrIsDir}, {"d", "f", Replace, ErrNotDir}, {"d", "full", Replace, ErrNotEmpty},
		{"d", "d/x/y", Replace, ErrNotDir}, {"d", "d/y", Replace, ErrInvalid}, {"f", "g", NoReplace, ErrExist}, {"d", "e", NoReplace, ErrExist},
		{"f", "%!x", Replace, ErrBadName}, {"", "x", Replace, ErrInvalid}, {"f", "", Replace, ErrInvalid},
		{"f", "none", Exchange, ErrNotExist}, {"f", "d", Exchange, ErrUnsupported}, {"f", "f", NoReplace, ErrExist},
		{"d/x", "d", Replace, ErrIsDir},
	} {
		if err := b.Rename(t.Context(), b.path(c.from), b.path(c.to), c.mode); !errors.Is(err, c.want) {
			t.Errorf("%q to %q, %d: %v, want %v", c.from, c.to, c.mode, err, c.want)
		}
	}
	ok(t, b.Rename(t.Context(), b.path("f"), b.path("f"), Replace))
	same(t, b.keys(), []string{"main/d/x", "main/e/", "main/f", "main/full/x", "main/g"})

	// An empty directory is replaced, with its attributes.
	b.put("main/e/", "", "mode", "16832")
	ok(t, b.Rename(t.Context(), b.path("d"), b.path("e"), Replace))
	same(t, b.keys(), []string{"main/e/x", "main/f", "main/full/x", "main/g"})
	b.put("main/m/", "", "mode", "16877")
	b.put("main/n/", "", "mode", "16832")
	ok(t, b.Rename(t.Context(), b.path("m"), b.path("n"), Replace))
	if b.stat("main/n/").Metadata["mode"] != "16877" {
		t.Error("the directory has the attributes of the one it replaced")
	}
}

func TestADirectoryKeepsEverythingWhenItIsRenamed(t *testing.T) {
	b := newBench(t, mem.Options{PageSize: 2}, Options{})
	keys := []string{"", "a", "a/b", "%!%FF", "//x", "..", "sub/", "sub/f", strings.Repeat("x", 300)}
	for _, k := range keys {
		b.put("main/d/"+k, "body of "+k, "owner", "me")
	}
	b.put("main/d/", "", "mode", "16832")
	b.put("main/d/a", "body of a", "owner", "me", "mtime", "5.000000007", "ctime", "6")
	b.put("main/d!", "beside")
	ok(t, b.Rename(t.Context(), b.path("d"), b.path("sub-dir"), Replace))
	var want []string
	for _, k := range keys {
		want = append(want, "main/sub-dir/"+k)
	}
	want = append(want, "main/d!")
	slices.Sort(want)
	same(t, b.keys(), want)
	e, err := b.Lookup(t.Context(), b.path("sub-dir/%!a"))
	if err != nil || !e.Mtime.Equal(time.Unix(5, 7)) || !e.Ctime.Equal(time.Unix(6, 0)) || e.Foreign["owner"] != "me" || b.body("main/sub-dir/a/b") != "body of a/b" {
		t.Errorf("%+v %v", e, err)
	}
}

func TestADirectoryCannotBeMovedToKeysThatAreTooLong(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	b.put("main/d/a", "")
	b.put("main/d/"+strings.Repeat("deep/", 195), "")
	is(t, b.Rename(t.Context(), b.path("d"), b.path(strings.Repeat("n", 100)), Replace), ErrNameTooLong)
	if len(b.keys()) != 2 {
		t.Errorf("%q", b.keys())
	}
}

func TestARenameThatFailsLosesNothing(t *testing.T) {
	contents := map[string]string{"main/d/1": "one", "main/d/2": "two", "main/d/s/3": "three", "main/d/": "", "main/d/s/": ""}
	rename := map[string]func(*bench) error{
		"directory": func(b *bench) error { return b.Rename(b.t.Context(), b.path("d"), b.path("e"), Replace) },
		"file":      func(b *bench) error { return b.Rename(b.t.Context(), b.path("d/1"), b.path("d/2"), Replace) },
		"exchange":  func(b *bench) error { return b.Rename(b.t.Context(), b.path("d/1"), b.path("d/s/3"), Exchange) },
	}
	for what, do := range rename {
		for name, bucket := range lesserCopies() {
			for _, after := range []bool{false, true} {
				for n := 1; ; n++ {
					b := newBench(t, bucket, Options{})
					for key, body := range contents {
						b.put(key, body)
					}
					// From then on nothing gets through: a crash.
					b.in.Add(fault.Rule{From: n, Err: backend.ErrTransient, After: after}, fault.Rule{From: n + 1, Times: fault.Always, Err: backend.ErrTransient})
					err := do(b)
					if b.in.Fired() == 0 {
						ok(t, err)
						break
					}
					found := map[string]int{}
					for _, key := range b.keys() {
						found[b.body(key)]++
					}
					for _, body := range contents {
						if found[body] == 0 && !(what == "file" && body == "two") {
							t.Errorf("%s, %s, cut off at request %d: %q is lost, there is %q", what, name, n, body, b.keys())
						}
					}
				}
			}
		}
	}
}

func TestADirectoryThatCannotBeCopiedStaysAsItIs(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("main/d/%02d", i))
		b.put(keys[i], "x")
	}
	b.in.Add(fault.Rule{Op: "copy", From: 30, Err: backend.ErrPermission})
	is(t, b.Rename(t.Context(), b.path("d"), b.path("e"), Replace), backend.ErrPermission)
	same(t, b.keys(), keys)
	ok(t, b.Rename(t.Context(), b.path("d"), b.path("e"), Replace))

	// Somebody makes one of the names meanwhile: theirs stays.
	b.in.Add(fault.Rule{Op: "copy", From: 1, Do: func(context.Context, *backend.Op) error { b.put("main/g/39", "theirs"); return nil }})
	is(t, b.Rename(t.Context(), b.path("e"), b.path("g"), Replace), ErrNotEmpty)
	if len(b.keys()) != 41 || b.body("main/g/39") != "theirs" {
		t.Errorf("%q", b.keys())
	}
}

func TestTwoFilesAreExchanged(t *testing.T) {
	for name, bucket := range lesserCopies() {
		b := newBench(t, bucket, Options{})
		b.put("main/a", "of a", "mode", "33152")
		b.put("main/b", "of b", "mode", "33261")
		ok(t, b.Rename(t.Context(), b.path("a"), b.path("b"), Exchange))
		same(t, b.keys(), []string{"main/a", "main/b"})
		if b.body("main/a") != "of b" || b.body("main/b") != "of a" || b.stat("main/a").Metadata["mode"] != "33261" || b.stat("main/b").Metadata["mode"] != "33152" {
			t.Errorf("%s: %q %q", name, b.body("main/a"), b.body("main/b"))
		}

		// Somebody writes to one of the two meanwhile.
		b.in.Add(fault.Rule{Op: "write", Key: "main/a", Do: func(context.Context, *backend.Op) error { b.put("main/b", "new"); return nil }})
		err := b.Rename(t.Context(), b.path("a"), b.path("b"), Exchange)
		is(t, err, ErrStale)
		if b.body("main/a") != "of b" || b.body("main/b") != "new" || len(b.keys()) != 2 {
			t.Errorf("%s: %v, %q %q %q", name, err, b.body("main/a"), b.body("main/b"), b.keys())
		}
	}
}

func TestARenameThatWasCutOffIsFinished(t *testing.T) {
	contents := map[string]string{"1": "one", "2": "two", "s/3": "three", "4": "", "": "", "s/": ""}
	for name, bucket := range lesserCopies() {
		for _, back := range []bool{false, true} {
			for n := 1; ; n++ {
				b := newBench(t, bucket, Options{})
				for key, body := range contents {
					b.put("main/d/"+key, body)
				}
				b.in.Add(fault.Rule{From: n, Times: fault.Always, Err: backend.ErrTransient})
				err := b.Rename(t.Context(), b.path("d"), b.path("e"), Replace)
				if b.in.Fired() == 0 {
					ok(t, err)
					break
				}
				b.in.Clear()
				var unfinished *UnfinishedError
				if back && !(errors.As(err, &unfinished) && unfinished.Back) {
					continue // it would not be taken back
				}
				ok(t, b.FinishRename(t.Context(), b.path("d"), b.path("e"), back, func() error { return nil }))
				var old, now []string
				for _, key := range b.keys() {
					if rest, ok := strings.CutPrefix(key, "main/d/"); ok && key != "main/d/" {
						old = append(old, rest)
					} else if rest, ok := strings.CutPrefix(key, "main/e/"); ok && key != "main/e/" {
						now = append(now, rest)
					}
				}
				if len(old) > 0 && len(now) > 0 || len(old)+len(now) != len(contents)-1 || back && len(now) > 0 {
					t.Errorf("%s, cut off at request %d, back %v: there is %q", name, n, back, b.keys())
				}
			}
		}
	}
}

func TestFinishingARenameTouchesNothingThatIsNotItsOwn(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	b.put("main/d/", "")
	b.put("main/e/", "")
	b.put("main/d/a", "another directory by now")
	b.put("main/e/b", "as this one is")
	before := b.keys()
	ok(t, b.FinishRename(t.Context(), b.path("d"), b.path("e"), false, func() error { return nil }))
	same(t, b.keys(), before)

	b.put("main/e/a", "changed since")
	b.put("main/e/later", "content")
	b.put("main/d/later", "content") // by somebody else, who wants it there
	b.put("main/d/copied", "content")
	b.put("main/e/copied", "content")
	ok(t, b.FinishRename(t.Context(), b.path("d"), b.path("e"), false, func() error { return nil }))
	same(t, b.keys(), []string{"main/d/a", "main/d/later", "main/e/", "main/e/a", "main/e/b", "main/e/copied", "main/e/later"})
	if b.body("main/d/a") != "another directory by now" || b.body("main/e/a") != "changed since" {
		t.Error("a content is lost")
	}
}

// movingBucket renames, gives what it moved a new version, and may lose the answer.
type movingBucket struct {
	backend.Backend
	lost, moved bool
	target      string // of the rename
}

func (m *movingBucket) Stat(ctx context.Context, key string) (backend.Info, error) {
	info, err := m.Backend.Stat(ctx, key)
	if key == m.target {
		info.ETag += "-moved"
	}
	return info, err
}

func (m *movingBucket) Rename(ctx context.Context, src, dst string, cond backend.Cond) (backend.Info, error) {
	if m.lost && !m.moved {
		return backend.Info{}, fmt.Errorf("%w (%w)", backend.Fail("rename", dst, backend.ErrNotExist, nil), backend.ErrAmbiguous)
	}
	data, info, err := backend.ReadAll(ctx, m.Backend, src, 1<<20)
	if err == nil {
		info, err = m.Put(ctx, dst, backend.Bytes(data), backend.PutOptions{Cond: cond, Metadata: info.Metadata, ContentType: info.ContentType})
	}
	if err == nil {
		m.target = dst
		err = m.Delete(ctx, src, backend.Cond{})
	}
	if err == nil && m.lost {
		err = fmt.Errorf("%w (%w)", backend.Fail("rename", dst, backend.ErrNotExist, nil), backend.ErrAmbiguous)
	}
	return info, err
}

func TestARenameByTheStoreWhoseAnswerIsLostIsLookedAt(t *testing.T) {
	for _, c := range []struct{ lost, moved bool }{{false, true}, {true, true}, {true, false}} {
		raw := mem.New(t.Name(), mem.Options{})
		b := benchOver(t, &movingBucket{Backend: raw, lost: c.lost, moved: c.moved}, Options{})
		_, err := b.publish("a", "content", PublishOptions{})
		ok(t, err)
		_, err = b.publish("b", "another", PublishOptions{}) // as long
		ok(t, err)
		b.in.ResetRequests()
		err = b.Rename(t.Context(), b.path("a"), b.path("b"), Replace)
		if (err == nil) != c.moved {
			t.Errorf("%+v: %v", c, err)
		}
		if c.moved {
			same(t, b.keys(), []string{"main/b"})
		} else {
			same(t, b.keys(), []string{"main/a", "main/b"})
		}
		if want := map[bool]string{true: "content", false: "another"}[c.moved]; b.body("main/b") != want {
			t.Errorf("%+v: %q", c, b.body("main/b"))
		}
	}
}
