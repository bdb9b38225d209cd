package store

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
)

func TestWhatLookingCosts(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	b.put("main/f", "content")
	b.put("main/implicit/f", "")
	b.put("main/marked/", "", "mode", "16832")

	e, err := b.Lookup(ctx, b.path("f"))
	ok(t, err)
	if !e.IsRegular() || e.Size != 7 || e.Version == "" || e.Name != "f" || e.Partial {
		t.Errorf("%+v", e)
	}
	b.cost("STAT main/f", "LIST main/f/")

	e, err = b.Lookup(ctx, b.path("implicit"))
	ok(t, err)
	if !e.IsDir() || e.Marker || e.Mode != 0o40755 || e.Version != "" || !e.Mtime.Equal(time.Unix(0, 0)) {
		t.Errorf("%+v", e)
	}
	b.cost("STAT main/implicit", "LIST main/implicit/")

	e, err = b.Lookup(ctx, b.path("marked"))
	ok(t, err)
	if !e.IsDir() || !e.Marker || e.Mode != 0o40700 {
		t.Errorf("%+v", e)
	}
	b.cost("STAT main/marked", "LIST main/marked/", "STAT main/marked/")

	_, err = b.Lookup(ctx, b.path("none"))
	is(t, err, ErrNotExist)
	b.cost("STAT main/none", "LIST main/none/")

	_, err = b.Head(ctx, b.path("f"))
	ok(t, err)
	_, err = b.Head(ctx, b.path("marked"))
	is(t, err, ErrNotExist)
	e, err = b.HeadDir(ctx, b.path("marked"))
	if err != nil || !e.Marker || e.Mode != 0o40700 {
		t.Errorf("%+v %v", e, err)
	}
	e, err = b.HeadDir(ctx, b.path("implicit"))
	if err != nil || e.Marker {
		t.Errorf("%+v %v", e, err)
	}
	b.cost("STAT main/f", "STAT main/marked", "STAT main/marked/", "STAT main/implicit/")

	same(t, b.names(""), []string{"f", "implicit/", "marked/"})
	b.cost("LIST main/")
	same(t, b.names("marked"), []string{})
	b.cost("LIST main/marked/")
	for _, err := range b.List(ctx, b.path("none")) {
		is(t, err, ErrNotExist)
	}
	for _, err := range b.List(ctx, b.path("f")) {
		is(t, err, ErrNotDir)
	}
	b.cost("LIST main/none/", "STAT main/none", "LIST main/f/", "STAT main/f")

	root := b.RootView()
	if e, err := root.Lookup(ctx, Path{}); err != nil || !e.IsDir() {
		t.Errorf("%+v %v", e, err)
	}
	b.cost()
	_, err = root.Lookup(ctx, b.path(".kei"))
	is(t, err, ErrNotExist)
	b.cost()
	_, err = root.Lookup(ctx, b.path("none"))
	is(t, err, ErrNotExist)
	b.cost("STAT none", "LIST none/", "STAT .kei/branches/none.json")
}

func TestEveryKeyIsShownOnceAndReachable(t *testing.T) {
	for _, page := range []int{0, 1, 2, 3} {
		b := newBench(t, mem.Options{PageSize: page}, Options{})
		ctx := t.Context()
		keys := map[string]string{ // the path at which each is shown
			"main/a": "%!a", "main/a!b": "a!b", "main/a.txt": "a.txt", "main/a/b": "a/b",
			"main/d/": "%!", "main/d//": "", "main/e//x": "e/%!/x", "main/./x": "%!%2E/x", "main/../x": "%!%2E%2E/x",
			"main/%!%FF": "\xff", "main/%!x": "%!%25!x", "main/nul\x00": "%!nul%00", "main/ü": "ü",
		}
		for key := range keys {
			b.put(key, "body of "+key)
		}
		b.put("main/d//", "") // the marker of a directory without a name
		delete(keys, "main/d//")
		keys["main/d/"] = "d/%!"
		// One that is object and prefix, and shown under no name.
		b.put("main/d/", "lost")
		delete(keys, "main/d/")

		found := map[string]bool{}
		var walk func(dir Path)
		walk = func(dir Path) {
			var last Entry
			for e, err := range b.List(ctx, dir) {
				ok(t, err)
				if last.Name != "" && Order(e, last) <= 0 {
					t.Errorf("%q after %q", e.Name, last.Name)
				}
				last = e
				p, err := dir.Join(e.Name)
				ok(t, err)
				full, err := b.Lookup(ctx, p)
				ok(t, err)
				if full.Name != e.Name || full.IsDir() != e.IsDir() || full.Size != e.Size || full.Version != e.Version || !e.Partial || full.Partial {
					t.Errorf("listed as %+v, looked up as %+v", e, full)
				}
				if e.IsDir() {
					walk(p)
					continue
				}
				found[p.String()] = true
				key, err := b.Key(p.String())
				ok(t, err)
				if got, err := b.read(p, e.Version, 0, 0); err != nil || got != "body of "+key {
					t.Errorf("%q reads %q, %v", p, got, err)
				}
			}
		}
		walk(Path{})
		for key, rel := range keys {
			if !found[rel] {
				t.Errorf("pages of %d: %q is not shown at %q", page, key, rel)
			}
			delete(found, rel)
		}
		if len(found) > 0 {
			t.Errorf("shown, too: %v", found)
		}
		if st := b.Stats(); st.Unnameable != 1 || st.Examples[0] != "main/d/" {
			t.Errorf("%+v", st)
		}
	}
}

func TestAFileInTheShadowOfADirectoryIsAFile(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx := t.Context()
	b.put("main/a", "object")
	_, err := b.Lookup(ctx, b.path("%!a"))
	is(t, err, ErrNotExist) // there is no directory yet
	b.put("main/a/b", "below")
	shadow := b.path("%!a")

	e, err := b.Lookup(ctx, b.path("a"))
	if err != nil || !e.IsDir() {
		t.Fatalf("%+v %v", e, err)
	}
	e, err = b.Lookup(ctx, shadow)
	ok(t, err)
	e, err = b.Publish(ctx, shadow, backend.Bytes([]byte("changed")), PublishOptions{Base: e.Version, Attr: e.Attr})
	ok(t, err)
	_, err = b.SetAttr(ctx, shadow, AttrChange{Mode: new(uint32(0o600)), Base: e.Version})
	ok(t, err)
	if b.body("main/a") != "changed" || b.stat("main/a").Metadata["mode"] != "33152" {
		t.Errorf("%q", b.body("main/a"))
	}
	for _, err := range b.List(ctx, shadow) {
		is(t, err, ErrNotDir)
	}
	ok(t, b.Rename(ctx, shadow, b.path("c"), Replace))
	same(t, b.keys(), []string{"main/a/b", "main/c"})
	is(t, b.Rename(ctx, b.path("c"), shadow, Replace), ErrBadName)
	_, err = b.publish("%!a", "", PublishOptions{})
	is(t, err, ErrBadName)
	b.put("main/a", "again")
	ok(t, b.Remove(ctx, shadow))
	same(t, b.keys(), []string{"main/a/b", "main/c"})
}

func TestLinksOfOtherToolsHaveATarget(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	b.put("main/s3fs", "../target", "mode", "41471")
	b.put("main/gcsfuse", "", "gcsfuse_symlink_target", "../target")
	b.put("main/geesefs", "", "--symlink-target", "..%2Ftarget")
	b.put("main/gcloud", "../target", "goog-reserved-file-is-symlink", "true")
	b.put("main/long", strings.Repeat("x", maxTarget+1), "mode", "41471")
	b.put("main/file", "x")
	for _, name := range []string{"s3fs", "gcsfuse", "geesefs", "gcloud"} {
		e, err := b.Lookup(t.Context(), b.path(name))
		if err != nil || !e.IsSymlink() || e.Size != 9 {
			t.Errorf("%s: %+v %v", name, e, err)
		}
		if target, err := b.Readlink(t.Context(), b.path(name)); err != nil || target != "../target" {
			t.Errorf("%s: %q %v", name, target, err)
		}
		ok(t, b.Rename(t.Context(), b.path(name), b.path("moved"), Replace))
		if target, err := b.Readlink(t.Context(), b.path("moved")); err != nil || target != "../target" {
			t.Errorf("%s moved: %q %v", name, target, err)
		}
	}
	for name, want := range map[string]error{"long": ErrNameTooLong, "file": ErrInvalid, "none": ErrNotExist} {
		if _, err := b.Readlink(t.Context(), b.path(name)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestAReaderSeesOneVersion(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	p := b.path("f")
	first := b.put("main/f", "first")
	if got, err := b.read(p, first.ETag, 1, 3); err != nil || got != "irs" {
		t.Fatalf("%q %v", got, err)
	}
	b.cost("GET main/f if-match")
	b.put("main/f", "second")
	_, err := b.read(p, first.ETag, 0, 0)
	is(t, err, ErrStale)
	if got, err := b.read(p, "", 3, 0); err != nil || got != "ond" {
		t.Errorf("%q %v", got, err)
	}
	ok(t, b.Remove(t.Context(), p))
	_, err = b.read(p, first.ETag, 0, 0)
	is(t, err, ErrStale)
	_, err = b.read(p, "", 0, 0)
	is(t, err, ErrNotExist)

	// The reader's own error is not translated.
	b.put("main/f", "third")
	err = b.Read(t.Context(), p, "", 0, 0, func(io.Reader) error { return backend.ErrNotExist })
	if !errors.Is(err, backend.ErrNotExist) || errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

func TestTheRootShowsBranchesAndPlainFiles(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	ctx, root := t.Context(), b.RootView()
	same(t, names(t, root.List(ctx, Path{})), []string{})
	for _, err := range b.List(ctx, Path{}) {
		is(t, err, ErrNotExist) // no branch main
	}
	_, err := b.Mkdir(ctx, b.path("d"), Attr{})
	is(t, err, ErrNotExist)

	_, err = root.Mkdir(ctx, b.path("main"), Attr{Mode: 0o700})
	ok(t, err)
	_, err = root.Mkdir(ctx, b.path("main"), Attr{})
	is(t, err, ErrExist)
	b.put("user@example/x", "")
	b.put("readme.txt", "plain")
	b.put(".kei/format.json", `{"format":1,"branch":"history","generation":1,"nonce":"n","head":"","base":"","time":"2026-11-20T10:00:00Z","host":"h"}`)
	b.put(".kei/branches/history.json", `{"format":1,"branch":"history","generation":1,"nonce":"n","head":"","base":"","time":"2026-11-20T10:00:00Z","host":"h"}`)
	b.put(".kei/branches/not@one.json", `{"format":1,"branch":"history","generation":1,"nonce":"n","head":"","base":"","time":"2026-11-20T10:00:00Z","host":"h"}`)
	_, err = root.Mkdir(ctx, b.path("history"), Attr{})
	is(t, err, ErrExist)
	_, err = root.Mkdir(ctx, b.path("readme.txt"), Attr{})
	is(t, err, ErrExist)
	_, err = root.Mkdir(ctx, b.path("a:b"), Attr{})
	is(t, err, ErrBadName)

	same(t, names(t, root.List(ctx, Path{})), []string{"history/", "main/", "readme.txt", "user@example/"})
	var branches []string
	for name, err := range b.Branches(ctx) {
		ok(t, err)
		branches = append(branches, name)
		found, err := b.BranchExists(ctx, name)
		if err != nil || !found {
			t.Errorf("%s: %v %v", name, found, err)
		}
	}
	same(t, branches, []string{"history", "main", "user@example"})
	if found, err := b.BranchExists(ctx, "readme.txt"); err != nil || found {
		t.Errorf("a file as a branch: %v %v", found, err)
	}
	e, err := root.Lookup(ctx, b.path("main"))
	if err != nil || e.Mode != 0o40700 || !e.Marker {
		t.Errorf("%+v %v", e, err)
	}
	history, err := b.Branch("history")
	ok(t, err)
	if e, err := history.Lookup(ctx, Path{}); err != nil || !e.IsDir() || len(names(t, history.List(ctx, Path{}))) != 0 {
		t.Errorf("%+v %v", e, err)
	}

	is(t, root.Rmdir(ctx, b.path("history")), ErrNotEmpty)
	is(t, root.Rmdir(ctx, b.path("user@example")), ErrNotEmpty)
	is(t, root.Rmdir(ctx, b.path("readme.txt")), ErrNotDir)
	is(t, root.Rmdir(ctx, b.path("none")), ErrNotExist)
	is(t, root.Rmdir(ctx, b.path(".kei")), ErrBadName)
	ok(t, root.Rmdir(ctx, b.path("main")))
	if found, err := b.BranchExists(ctx, "main"); err != nil || found {
		t.Errorf("%v %v", found, err)
	}
}

func TestAFailedLookIsNotAnAbsentFile(t *testing.T) {
	for _, op := range []string{"stat", "list"} {
		b := newBench(t, mem.Options{}, Options{})
		b.put("main/f", "")
		b.in.Add(fault.Rule{Op: op, Err: backend.ErrPermission, Times: fault.Always})
		_, err := b.Lookup(t.Context(), b.path("f"))
		if !errors.Is(err, backend.ErrPermission) || errors.Is(err, ErrNotExist) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// late is a store whose answers are dated by another clock than its objects.
type late struct{ backend.Backend }

func (l late) Stat(ctx context.Context, key string) (backend.Info, error) {
	info, err := l.Backend.Stat(ctx, key)
	info.Date = info.Date.Add(time.Minute)
	return info, err
}

func (l late) Put(ctx context.Context, key string, src backend.Source, opts backend.PutOptions) (backend.Info, error) {
	info, err := l.Backend.Put(ctx, key, src, opts)
	info.Date = info.Date.Add(time.Minute)
	return info, err
}

// How old an object is, an answer that a proxy dated does not tell.
func TestAttributesOfAStoreWithTwoClocksHoldForNothing(t *testing.T) {
	s, err := Open(t.Context(), late{mem.New(t.Name(), mem.Options{Seconds: true})}, Options{})
	ok(t, err)
	s, err = s.Branch("main")
	ok(t, err)
	p, err := ParsePath("f")
	ok(t, err)
	_, err = s.Publish(t.Context(), p, backend.Bytes([]byte("x")), PublishOptions{})
	ok(t, err)
	if e, err := s.Head(t.Context(), p); err != nil || e.Holds != (Times{}) {
		t.Errorf("%+v, %v", e, err)
	}
}
