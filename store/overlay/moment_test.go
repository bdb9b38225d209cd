package overlay_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

// now is a moment as a revision, with everything before it in the past.
func now() string {
	t := time.Now()
	for !time.Now().After(t) {
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func TestAVersionedBucketShowsAMomentOfWhatWasNeverCommitted(t *testing.T) {
	b := newBench(t, mem.Options{Versions: true, PageSize: 3})
	before := now()
	b.put("main/a", "first")
	b.put("main/d/x", "x")
	b.put("main/d/y", "y")
	b.put("main/d-z", "z")
	one := now()
	b.put("main/a", "second")
	b.put("main/a", "third")
	b.ok(b.raw.Delete(background, "main/d/x", backend.Cond{}))
	b.put("main/new", "new")
	two := now()
	b.ok(b.raw.Delete(background, "main/a", backend.Cond{}))
	b.put("main/d/x", "again")

	c := b.client()
	same(t, "before", keys(t, c, "main@"+before+"/"), "")
	same(t, "one", keys(t, c, "main@"+one+"/"), "a d-z d/x d/y")
	same(t, "two", keys(t, c, "main@"+two+"/"), "a d-z d/y new")
	same(t, "in a directory", keys(t, c, "main@"+one+"/d/"), "x y")
	same(t, "a", read(c, "main@"+one+"/a")+", "+read(c, "main@"+two+"/a"), "first, third")
	same(t, "x", read(c, "main@"+one+"/d/x"), "x")
	if got := read(c, "main@"+two+"/d/x"); !strings.Contains(got, "does not exist") {
		t.Error(got)
	}
	var level []string
	for entry, err := range backend.List(background, c, "main@"+one+"/") {
		b.ok(err)
		level = append(level, entry.Key)
	}
	same(t, "one level", fmt.Sprint(level), "[main@"+one+"/a main@"+one+"/d-z main@"+one+"/d/]")
	name, err := c.Canonical(background, "main@"+one)
	b.ok(err)
	if name != "main@"+one || !c.Frozen(name) {
		t.Errorf("%q is %q", one, name)
	}
	if err := b.write(c, "main@"+one+"/a", "changed", backend.Cond{}); err == nil {
		t.Error("the past was changed")
	}
	copier, _ := backend.As[backend.Copier](c)
	b.in.ResetRequests()
	_, err = copier.Copy(background, "main@"+one+"/a", "main/a", backend.CopyOptions{})
	b.ok(err)
	same(t, "restored", read(b.raw, "main/a"), "first")
	for _, request := range b.in.Requests() {
		if strings.HasPrefix(request, "GET main") {
			t.Error("the content went through this machine:", request)
		}
	}
}

func TestAMomentOfABranchWithABaseHasWhatTheBranchShowedThen(t *testing.T) {
	b := fork(t, mem.Options{Versions: true}, "a", "b", "c/x", "c/y")
	b.ref("dev", map[string]any{"head": id("c"), "base": id("c")})
	dev := b.client()
	b.put(".kei/reflog/dev/00000000000000000001.json", `{"format":1,"branch":"dev","generation":1,"nonce":"n","head":"`+id("c")+`","base":"`+id("c")+`","time":"2020-01-01T00:00:00Z","host":"h"}`)
	one := now()
	b.ok(dev.Delete(background, "dev/a", backend.Cond{}))
	b.ok(b.write(dev, "dev/c/x", "dev's", backend.Cond{}))
	two := now()
	b.ok(b.write(dev, "dev/a", "back", backend.Cond{}))
	b.ok(dev.Delete(background, "dev/c/x", backend.Cond{}))
	three := now()
	c := b.client()
	same(t, "one", keys(t, c, "dev@"+one+"/"), "a b c/x c/y")
	same(t, "two", keys(t, c, "dev@"+two+"/"), "b c/x c/y")
	same(t, "three", keys(t, c, "dev@"+three+"/"), "a b c/y")
	same(t, "x", read(c, "dev@"+one+"/c/x")+", "+read(c, "dev@"+two+"/c/x"), "main's c/x, dev's")
	same(t, "a", read(c, "dev@"+one+"/a")+", "+read(c, "dev@"+three+"/a"), "main's a, back")
}

// The marker of the branch comes before all else, and is no end.
func TestAMomentOfABranchWithAMarkerHasEachFileOnce(t *testing.T) {
	b := newBench(t, mem.Options{Versions: true})
	for _, key := range []string{"main/", "main/a", "main/b"} {
		b.put(key, "")
	}
	b.commit("main", id("c"))
	b.put(".kei/reflog/main/00000000000000000001.json", `{"format":1,"branch":"main","generation":1,"nonce":"n","head":"`+id("c")+`","time":"2020-01-01T00:00:00Z","host":"h"}`)
	b.ref("main", map[string]any{"head": id("c")})
	b.shelf.commits[id("c")] = b.shelf.commits[id("c")][1:] // a commit has no marker of the branch
	b.ok(b.raw.Delete(background, "main/b", backend.Cond{}))
	same(t, "names", strings.TrimSpace(keys(t, b.client(), "main@"+now()+"/")), "a")
}

// A branch that was made independent shows only what is its own, whatever its
// last commit before had from the base.
func TestAMomentOfAnIndependentBranchShowsNothingThatWasHidden(t *testing.T) {
	b := fork(t, mem.Options{Versions: true}, "a", "b")
	b.put("dev/a", "main's a")
	b.put(".kei/reflog/dev/00000000000000000001.json", `{"format":1,"branch":"dev","generation":1,"nonce":"n","head":"`+id("c")+`","time":"2020-01-01T00:00:00Z","host":"h"}`)
	b.ref("dev", map[string]any{"head": id("c")})
	same(t, "names", keys(t, b.client(), "dev@"+now()+"/"), "a")
}

func TestAFileThatIsTheBeginningOfOthersIsFoundByOneQuestion(t *testing.T) {
	b := newBench(t, mem.Options{Versions: true})
	when := now()
	for i := range 200 {
		b.put(fmt.Sprintf("main/a%03d", i), "later")
	}
	c := b.client()
	if _, err := c.Canonical(background, "main@"+when); err != nil {
		t.Fatal(err)
	}
	b.in.ResetRequests()
	if _, err := c.Stat(background, "main@"+when+"/a"); !errors.Is(err, backend.ErrNotExist) {
		t.Error(err)
	}
	if requests := b.in.Requests(); len(requests) > 1 {
		t.Errorf("%d: %q", len(requests), requests)
	}
}

func TestAnAgeOfAVersionedBucketIsNotMoreExactThanItWasTold(t *testing.T) {
	b := newBench(t, mem.Options{Versions: true})
	b.put("main/a", "a")
	for revision, layout := range map[string]string{"30s": "2006-01-02T15:04:05Z", "2h": "2006-01-02T15:04:00Z", "yesterday": "2006-01-02T15:04:00Z"} {
		name, err := b.Canonical(background, "main@"+revision)
		b.ok(err)
		when, err := time.Parse(layout, strings.TrimPrefix(name, "main@"))
		if err != nil || when.IsZero() {
			t.Errorf("%s is %s: %v", revision, name, err)
		}
	}
	if name, err := b.Canonical(background, "main@2999-01-01"); err != nil || b.Frozen(name) {
		t.Errorf("the future is %s: %v", name, err)
	}
	unversioned := newBench(t, mem.Options{})
	unversioned.put("main/a", "a")
	if name, err := unversioned.Canonical(background, "main@2h"); err != nil || unversioned.Frozen(name) {
		t.Errorf("a bucket without versions has %s: %v", name, err)
	}
}

func TestVersionsAreCopiedAndDescribedAsTheyWere(t *testing.T) {
	for _, opts := range []mem.Options{{Versions: true}, {Versions: true, Caps: func(c *backend.Caps) { c.CondCopy = false }}} {
		b := newBench(t, opts)
		_, err := b.raw.Put(background, "main/a", backend.Bytes([]byte("first")), backend.PutOptions{Metadata: map[string]string{"mode": "1"}})
		b.ok(err)
		b.commit("main", id("c"))
		b.shelf.commits[id("c")][0].VersionID = version(t, b.raw, "main/a")
		b.ref("main", map[string]any{"head": id("c")})
		c := b.client()
		b.ok(b.write(c, "main/a", "second", backend.Cond{}))
		b.ok(c.Delete(background, "main/a", backend.Cond{}))
		b.ref("main", map[string]any{"head": id("c"), "committing": "x/y"})
		b.ok(b.write(b.client(), "main/a", "third", backend.Cond{}))
		b.ok(b.write(b.client(), "main/a", "fourth", backend.Cond{}))
		same(t, "pins", keys(t, b.raw, overlay.PinDir), "")
		at := "main@" + id("c") + "/a"
		info, err := c.Stat(background, at)
		b.ok(err)
		same(t, "attributes", fmt.Sprint(info.Metadata), "map[mode:1]")
		same(t, "content", read(c, at), "first")
		copier, _ := backend.As[backend.Copier](c)
		_, err = copier.Copy(background, at, "main/b", backend.CopyOptions{SourceETag: info.ETag})
		b.ok(err)
		same(t, "a copy", read(b.raw, "main/b"), "first")
		assembler, _ := backend.As[backend.Assembler](c)
		a, err := assembler.Assemble(background, "main/c", backend.PutOptions{})
		b.ok(err)
		b.ok(a.CopyPart(background, 1, at, info.ETag, 1, 3))
		_, err = a.Complete(background)
		b.ok(err)
		same(t, "a part", read(b.raw, "main/c"), "irs")
	}
}

// A commit may know the object by a version that this bucket does not have: it
// is a copy of another one, or the object is from before it kept versions.
func TestAnObjectIsPinnedWhereItsCommitNamesAnotherVersion(t *testing.T) {
	for _, opts := range []mem.Options{{Versions: true}, {}} {
		for _, named := range []string{"foreign", "null"} {
			b := newBench(t, opts)
			b.put("main/a", "first")
			b.put("main/b", "first")
			b.put("main/c", "first")
			b.commit("main", id("c"))
			for i := range b.shelf.commits[id("c")] {
				b.shelf.commits[id("c")][i].VersionID = named
			}
			b.ref("main", map[string]any{"head": id("c")})
			c := b.client()
			b.ok(b.write(c, "main/a", "second", backend.Cond{}))
			b.ok(c.Delete(background, "main/b", backend.Cond{}))
			batch, _ := backend.As[backend.BatchDeleter](c)
			_, err := batch.DeleteBatch(background, []backend.Deletion{{Key: "main/c"}})
			b.ok(err)
			for _, name := range []string{"a", "b", "c"} {
				same(t, named+" "+name, read(c, "main@"+id("c")+"/"+name), "first")
			}
		}
	}
}

func version(t *testing.T, b backend.Backend, key string) string {
	t.Helper()
	info, err := b.Stat(background, key)
	if err != nil || info.VersionID == "" {
		t.Fatal(info, err)
	}
	return info.VersionID
}
