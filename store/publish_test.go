package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/retry"
)

func TestWhatPublishingCosts(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	e, err := b.publish("f", "one", PublishOptions{})
	ok(t, err)
	b.cost("PUT main/f if-absent")
	if found, err := b.Lookup(t.Context(), b.path("f")); err != nil || !alike(found, e) {
		t.Errorf("published as\n%+v, found as\n%+v, %v", e, found, err)
	}
	b.in.ResetRequests()
	e, err = b.publish("f", "two", PublishOptions{Base: e.Version, Attr: e.Attr})
	ok(t, err)
	b.cost("PUT main/f if-match")
	_, err = b.publish("f", "three", PublishOptions{Replace: true})
	ok(t, err)
	b.cost("PUT main/f")
	_, err = b.publish("g", "", PublishOptions{Exclusive: true})
	ok(t, err)
	b.cost("PUT main/g if-absent")
	if e.Size != 3 || b.body("main/f") != "three" || b.stat("main/g").Metadata[metaNonce] == "" {
		t.Errorf("%+v %v", e, b.stat("main/g").Metadata)
	}
}

func TestWhatAFileHasOfOtherToolsStays(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	_, err := b.raw.Put(t.Context(), "main/f", backend.Bytes([]byte("x")), backend.PutOptions{
		ContentType: "text/plain", Metadata: map[string]string{"owner": "me", "md5chksum": "of x", "mtime": "5"},
	})
	ok(t, err)
	e, err := b.SetAttr(t.Context(), b.path("f"), AttrChange{UID: new(uint32(7))})
	ok(t, err)
	info := b.stat("main/f")
	if info.ContentType != "text/plain" || info.Metadata["owner"] != "me" || info.Metadata["md5chksum"] != "of x" || info.Metadata["uid"] != "7" {
		t.Errorf("after a change of attributes: %+v", info)
	}
	ok(t, b.Rename(t.Context(), b.path("f"), b.path("g"), Replace))
	if info := b.stat("main/g"); info.ContentType != "text/plain" || info.Metadata["owner"] != "me" || info.Metadata["md5chksum"] != "of x" {
		t.Errorf("after a rename: %+v", info)
	}
	_, err = b.publish("g", "y", PublishOptions{Base: e.Version, Attr: e.Attr})
	ok(t, err)
	info = b.stat("main/g")
	if info.ContentType != "text/plain" || info.Metadata["owner"] != "me" || info.Metadata["md5chksum"] != "" || info.Metadata["uid"] != "7" {
		t.Errorf("after a change of content: %+v", info)
	}
}

func TestALostRaceIsSettledByThePolicy(t *testing.T) {
	long := strings.Repeat("ü", 127) + "x" // 255 bytes
	for _, name := range []string{"f", long, "\xff", "d/f", "%!%2E%2E"} {
		b := newBench(t, mem.Options{}, Options{Host: "a host.example/"})
		first := b.put(key(t, b, name), "base")
		theirs := b.put(key(t, b, name), "theirs")
		_, err := b.publish(name, "mine", PublishOptions{Base: first.ETag})
		var conflict *ConflictError
		if !errors.As(err, &conflict) || !errors.Is(err, ErrStale) || conflict.Path != b.path(name) || conflict.Kept.Dir() != conflict.Path.Dir() {
			t.Fatalf("%q: %v", name, err)
		}
		if len(conflict.Kept.Name()) > MaxName || !strings.Contains(conflict.Kept.Name(), ".conflict-a-host-example-2") {
			t.Errorf("%q is kept as %q", name, conflict.Kept)
		}
		if got := b.body(key(t, b, conflict.Kept.String())); got != "mine" {
			t.Errorf("%q: %q", conflict.Kept, got)
		}
		if b.stat(key(t, b, name)).ETag != theirs.ETag || b.Stats().Conflicts != 1 {
			t.Errorf("%q: theirs is gone, or %+v", name, b.Stats())
		}
		// A second one in the same second is beside it.
		if _, err := b.publish(name, "mine, too", PublishOptions{}); !errors.Is(err, ErrStale) {
			t.Error(err)
		}
		if keys := b.keys(); len(keys) != 3 {
			t.Errorf("%q", keys)
		}
	}

	b := newBench(t, mem.Options{}, Options{Policy: Fail})
	b.put("main/f", "theirs")
	_, err := b.publish("f", "mine", PublishOptions{})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || !conflict.Kept.IsRoot() || len(b.keys()) != 1 || b.body("main/f") != "theirs" {
		t.Errorf("%v %q", err, b.keys())
	}
	b = newBench(t, mem.Options{}, Options{Policy: Overwrite})
	b.put("main/f", "theirs")
	_, err = b.publish("f", "mine", PublishOptions{Base: "older"})
	if err != nil || b.body("main/f") != "mine" {
		t.Errorf("%v %q", err, b.body("main/f"))
	}
	_, err = b.publish("f", "mine", PublishOptions{Exclusive: true})
	is(t, err, ErrExist)
}

func key(t *testing.T, b *bench, rel string) string {
	t.Helper()
	k, err := b.Key(rel)
	ok(t, err)
	return k
}

func TestAConflictCopyFitsIntoAKeyOfTheStore(t *testing.T) {
	b := newBench(t, mem.Options{Caps: func(c *backend.Caps) { c.MaxKey = 100 }}, Options{})
	name := strings.Repeat("n", 95)
	b.put("main/"+name, "theirs")
	_, err := b.publish(name, "mine", PublishOptions{})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || b.body("main/"+conflict.Kept.String()) != "mine" {
		t.Fatal(err)
	}
}

func TestAFileWhoseBaseIsGoneIsMadeAnew(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	_, err := b.publish("f", "mine", PublishOptions{Base: "gone"})
	if err != nil || b.body("main/f") != "mine" {
		t.Fatal(err)
	}
	b.cost("PUT main/f if-match", "STAT main/f", "PUT main/f if-absent")
	b = newBench(t, mem.Options{}, Options{Policy: Fail})
	_, err = b.publish("f", "mine", PublishOptions{Base: "gone"})
	is(t, err, ErrStale)
	same(t, b.keys(), []string{})
}

// unsure is a bucket behind retries that loses the answers to the first
// requests of an operation.
func unsure(t *testing.T, op string, before func(raw backend.Backend) error) *bench {
	raw := mem.New(t.Name(), mem.Options{})
	b := benchOver(t, raw, Options{})
	rule := fault.Rule{Op: op, Err: backend.ErrTransient, After: true}
	if before != nil {
		rule.After, rule.Do = false, nil
	}
	in := fault.New(rule)
	wrapped := in.Wrap(raw)
	if before != nil { // the attempt failed, and then somebody else was first
		wrapped = backend.Intercept(wrapped, afterFirst(op, raw, before))
	}
	caps := raw.Caps()
	s, err := Open(t.Context(), retry.Wrap(wrapped, retry.Options{BaseDelay: time.Microsecond}), Options{Host: "host", Caps: &caps})
	ok(t, err)
	b.Store = s
	return b
}

func TestALostAnswerIsNoConflict(t *testing.T) {
	b := unsure(t, "put", nil)
	e, err := b.publish("f", "mine", PublishOptions{})
	if err != nil || e.Version == "" {
		t.Fatal(err)
	}
	same(t, b.keys(), []string{"main/f"})

	b = unsure(t, "put", nil)
	first := b.put("main/f", "base")
	_, err = b.publish("f", "mine", PublishOptions{Base: first.ETag})
	ok(t, err)
	same(t, b.keys(), []string{"main/f"})

	b = unsure(t, "put", nil)
	_, err = b.publish("f", "", PublishOptions{Exclusive: true})
	ok(t, err)

	b = unsure(t, "put", nil)
	b.put("main/d/x", "")
	_, err = b.Mkdir(t.Context(), b.path("d/e"), Attr{})
	ok(t, err)

	b = unsure(t, "put", nil)
	b.put("main/x", "")
	_, err = b.Mknod(t.Context(), b.path("l"), Attr{Mode: ModeSymlink}, "target")
	ok(t, err)

	for _, op := range []string{"put", "copy", "complete"} {
		b = unsure(t, op, nil)
		first = b.put("main/f", "x")
		e, err = b.SetAttr(t.Context(), b.path("f"), AttrChange{UID: new(uint32(7)), Base: first.ETag})
		if err != nil || e.UID != 7 || e.Version != b.stat("main/f").ETag {
			t.Errorf("%s: %+v %v", op, e, err)
		}
		ok(t, b.Rename(t.Context(), b.path("f"), b.path("g"), NoReplace))
		same(t, b.keys(), []string{"main/g"})
	}
	b = unsure(t, "delete", nil)
	b.put("main/f", "x")
	ok(t, b.Rename(t.Context(), b.path("f"), b.path("g"), NoReplace))
	same(t, b.keys(), []string{"main/g"})

	// The name that was renamed away belongs to somebody else by now.
	b = unsure(t, "delete", func(raw backend.Backend) error {
		ok(t, raw.Delete(t.Context(), "main/f", backend.Cond{}))
		return second(raw.Put(t.Context(), "main/f", backend.Bytes([]byte("theirs")), backend.PutOptions{}))
	})
	b.put("main/f", "mine")
	ok(t, b.Rename(t.Context(), b.path("f"), b.path("g"), Replace))
	if b.body("main/f") != "theirs" || b.body("main/g") != "mine" {
		t.Errorf("%q %q", b.body("main/f"), b.body("main/g"))
	}
}

func TestOfUnsureCreatorsOnlyOneWins(t *testing.T) {
	somebody := func(key string) func(backend.Backend) error {
		return func(raw backend.Backend) error {
			_, err := raw.Put(t.Context(), key, backend.Bytes(nil), backend.PutOptions{Metadata: map[string]string{metaNonce: "another"}})
			return err
		}
	}
	b := unsure(t, "put", somebody("main/f"))
	_, err := b.publish("f", "", PublishOptions{Exclusive: true})
	is(t, err, ErrExist)

	b = unsure(t, "put", somebody("main/d/e/"))
	b.put("main/d/x", "")
	_, err = b.Mkdir(t.Context(), b.path("d/e"), Attr{})
	is(t, err, ErrExist)
}

func TestOfManyCreatorsOneWinsAndNothingIsLost(t *testing.T) {
	raw := mem.New("", mem.Options{})
	var mu sync.Mutex
	var wg sync.WaitGroup
	wins := 0
	for i := range 20 {
		caps := raw.Caps()
		s, err := Open(t.Context(), raw, Options{Host: fmt.Sprint("h", i), Caps: &caps})
		ok(t, err)
		wg.Go(func() {
			exclusive, _ := ParsePath("exclusive")
			shared, _ := ParsePath("shared")
			_, err := s.Publish(t.Context(), exclusive, backend.Bytes(nil), PublishOptions{Exclusive: true})
			if err == nil {
				mu.Lock()
				wins++
				mu.Unlock()
			} else if !errors.Is(err, ErrExist) {
				t.Error(err)
			}
			_, err = s.Publish(t.Context(), shared, backend.Bytes([]byte(fmt.Sprint("content of ", i))), PublishOptions{})
			if err != nil && !errors.Is(err, ErrStale) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b := &bench{t: t, raw: raw}
	bodies := map[string]bool{}
	for _, k := range b.keys() {
		bodies[b.body(k)] = true
	}
	if wins != 1 || len(bodies) != 21 {
		t.Errorf("%d winners, %d contents", wins, len(bodies))
	}
}

func TestAStoreWithoutConditionsIsAskedBefore(t *testing.T) {
	b := newBench(t, mem.Options{IgnoreConds: true, Caps: func(c *backend.Caps) { c.CondCreate, c.CondOverwrite, c.CondDelete = false, false, false }}, Options{})
	e, err := b.publish("f", "one", PublishOptions{})
	ok(t, err)
	b.cost("STAT main/f", "PUT main/f")
	_, err = b.publish("f", "two", PublishOptions{Base: e.Version})
	ok(t, err)
	_, err = b.publish("f", "three", PublishOptions{Base: e.Version})
	is(t, err, ErrStale)
	_, err = b.publish("f", "", PublishOptions{Exclusive: true})
	is(t, err, ErrExist)
	if len(b.keys()) != 2 || strings.Count(b.log.String(), "WARN") != 1 || !strings.Contains(b.log.String(), "mem:") {
		t.Errorf("%q\n%s", b.keys(), b.log)
	}
}

func TestALargeFileGoesInParts(t *testing.T) {
	parts := func(c *backend.Caps) { c.MaxPut, c.MaxPart, c.MinPart = 1000, 1000, 1 }
	content := strings.Repeat("0123456789", 450)
	b := newBench(t, mem.Options{Caps: parts}, Options{})
	e, err := b.publish("f", content, PublishOptions{})
	ok(t, err)
	b.cost("ASSEMBLE main/f", "PUTPART main/f", "PUTPART main/f", "PUTPART main/f", "PUTPART main/f", "PUTPART main/f", "COMPLETE main/f if-absent")
	if b.body("main/f") != content || e.Size != 4500 || e.Version != b.stat("main/f").ETag {
		t.Errorf("%+v", e)
	}
	_, err = b.publish("f", content+"!", PublishOptions{Base: e.Version})
	ok(t, err)
	_, err = b.publish("f", content+"?", PublishOptions{Base: e.Version})
	is(t, err, ErrStale)
	if len(b.keys()) != 2 || b.body("main/f") != content+"!" {
		t.Errorf("%q", b.keys())
	}
	b.in.Add(fault.Rule{Op: "putpart", From: 3, Err: backend.ErrNoSpace})
	b.in.ResetRequests()
	_, err = b.publish("g", content, PublishOptions{})
	is(t, err, backend.ErrNoSpace)
	if b.in.Count("abort") != 1 || b.in.Count("complete") != 0 {
		t.Errorf("%q", b.in.Requests())
	}

	// More than all parts together can hold.
	b = newBench(t, mem.Options{Caps: func(c *backend.Caps) { parts(c); c.MaxParts = 4 }}, Options{})
	_, err = b.publish("f", content, PublishOptions{})
	is(t, err, ErrTooBig)
	b = newBench(t, mem.Options{Plain: true, Caps: func(c *backend.Caps) { c.MaxPut = 1000 }}, Options{})
	_, err = b.publish("f", content, PublishOptions{})
	is(t, err, ErrTooBig)
}

func TestPartsGrowWithTheFile(t *testing.T) {
	caps := backend.Caps{MaxParts: 10000, MinPart: 5 << 20, MaxPart: 5 << 30}
	for size, want := range map[int64]int64{1: 16 << 20, 100 << 30: 16 << 20, 1 << 40: 105 << 20, 48 << 40: 5034 << 20} {
		if got, err := partSize(caps, "", size, minPart); err != nil || got != want || (size+got-1)/got > 10000 {
			t.Errorf("%d bytes in parts of %d MiB, %v; want %d", size, got>>20, err, want>>20)
		}
	}
	if _, err := partSize(caps, "", 50<<40, minPart); !errors.Is(err, backend.ErrTooLarge) {
		t.Error(err)
	}
}

func TestWhatCannotBeStoredIsRefused(t *testing.T) {
	b := newBench(t, mem.Options{Caps: func(c *backend.Caps) { c.ObjectPrefix = false }}, Options{})
	b.put("main/f", "x")
	b.put("main/d/f", "x")
	for rel, want := range map[string]error{"f/x": ErrNotDir, "f/x/y": ErrNotDir, "d": ErrIsDir, "": ErrIsDir, strings.Repeat("d/", 600) + "f": ErrNameTooLong} {
		if _, err := b.publish(rel, "y", PublishOptions{}); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", rel, err, want)
		}
	}
	_, err := b.publish("d", "", PublishOptions{Exclusive: true})
	is(t, err, ErrExist)
	// Some stores call that a lost condition, though there is no object.
	b.in.Add(fault.Rule{Op: "put", Err: backend.ErrPrecondition})
	_, err = b.publish("d", "y", PublishOptions{})
	is(t, err, ErrIsDir)
	big := Attr{Xattrs: map[string][]byte{"user.big": make([]byte, 4000)}}
	_, err = b.publish("g", "", PublishOptions{Attr: big})
	is(t, err, ErrTooBig)
	is(t, b.CheckAttr(big), ErrTooBig)
	ok(t, b.CheckAttr(Attr{}))
	_, err = b.SetAttr(t.Context(), b.path("f"), AttrChange{Xattr: &XattrChange{Name: "user.big", Value: make([]byte, 4000)}})
	is(t, err, ErrTooBig)
	same(t, b.keys(), []string{"main/d/f", "main/f"})
}

func TestACopyIsPublishedAsAFileIs(t *testing.T) {
	for name, bucket := range map[string]mem.Options{
		"all powers": {}, "no powers": {Plain: true},
		"no condition on copies": {Caps: func(c *backend.Caps) { c.CondCopy = false }},
		"copies by parts":        {Caps: func(c *backend.Caps) { c.MaxCopy = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, bucket, Options{})
			dev, err := b.Branch("dev")
			ok(t, err)
			for _, content := range []string{"", "content", strings.Repeat("x", smallCopy+1)} {
				src := b.put("dev/src", content, "mode", "33188")
				e, err := b.PublishCopy(t.Context(), dev, b.path("src"), src.ETag, src.Size, b.path("f"), PublishOptions{Attr: Attr{UID: 7}, Replace: true})
				ok(t, err)
				if b.body("main/f") != content || e.UID != 7 || e.Mode != 0o100000 || e.Size != src.Size || e.Version != b.stat("main/f").ETag {
					t.Errorf("%+v", e)
				}
				_, err = b.PublishCopy(t.Context(), dev, b.path("src"), "another", src.Size, b.path("f"), PublishOptions{Replace: true})
				if len(content) > 0 {
					is(t, err, ErrStale)
				}
			}
			src := b.put("dev/src", "new")
			_, err = b.PublishCopy(t.Context(), dev, b.path("src"), src.ETag, 3, b.path("f"), PublishOptions{})
			var conflict *ConflictError
			if !errors.As(err, &conflict) || b.body("main/"+conflict.Kept.String()) != "new" {
				t.Error(err)
			}
			_, err = b.PublishCopy(t.Context(), dev, b.path("none"), "v", 3, b.path("g"), PublishOptions{})
			is(t, err, ErrStale)
		})
	}
}
