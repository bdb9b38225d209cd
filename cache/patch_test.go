package cache

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// What a change in a large file costs. The numbers are those of S3, by 1,000.
func TestRequestsOfAChangeInALargeFile(t *testing.T) {
	b := newBucket(t)
	b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.MinPart = 5 << 10 }})
	_, tree := b.open(Options{patchFrom: 8 << 10, MetadataTTL: time.Hour})
	_, err := tree.Lookup(t.Context(), store.Path{})
	ok(t, err)
	const size = 256 << 10
	text := strings.Repeat("0123456789abcdef", size/16)
	b.put("main/f", text)
	change := func(what string, fn func(f store.File), want ...string) {
		t.Helper()
		b.golden(what, func() {
			f := open(t, tree, "f", store.OpenFlags{Write: true})
			fn(f)
			closeFile(t, f)
		}, want...)
		if got := b.get("main/f"); got != text {
			t.Errorf("%s: the object has %d bytes, want %d, or others", what, len(got), len(text))
		}
	}
	change("append a byte", func(f store.File) {
		write(t, f, -1, "!")
		text += "!"
	}, "STAT main/f", "ASSEMBLE main/f", "COPYPART main/f", "PUTPART main/f", "COMPLETE main/f if-match")
	change("change 4 KiB in the middle", func(f store.File) {
		p := strings.Repeat("x", 4<<10)
		write(t, f, 100_000, p)
		text = text[:100_000] + p + text[100_000+len(p):]
	}, "STAT main/f", "GET main/f if-match", "ASSEMBLE main/f", "COPYPART main/f", "PUTPART main/f", "COPYPART main/f", "COMPLETE main/f if-match")
	change("truncate", func(f store.File) {
		size := int64(200_000)
		_, err := f.SetAttr(t.Context(), store.AttrChange{Size: &size})
		ok(t, err)
		text = text[:size]
	}, "STAT main/f", "ASSEMBLE main/f", "COPYPART main/f", "COMPLETE main/f if-match")
	change("extend by a hole", func(f store.File) {
		size := int64(200_100)
		_, err := f.SetAttr(t.Context(), store.AttrChange{Size: &size})
		ok(t, err)
		text += strings.Repeat("\x00", 100)
	}, "STAT main/f", "ASSEMBLE main/f", "COPYPART main/f", "PUTPART main/f", "COMPLETE main/f if-match")
}

// What has changed in a file whose rest somebody else has replaced is kept on
// this machine, as the whole cannot be put together any more.
func TestChangesOfALargeFileThatSomebodyReplacedAreKept(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{patchFrom: 1})
	b.put("main/f", strings.Repeat("old", 1000))
	f := open(t, tree, "f", store.OpenFlags{Write: true})
	write(t, f, -1, "appended here")
	b.put("main/f", "theirs")
	if err := f.Flush(t.Context()); !errors.Is(err, store.ErrStale) {
		t.Errorf("flush: %v", err)
	}
	ok(t, f.Close(t.Context()))
	if got := b.get("main/f"); got != "theirs" {
		t.Errorf("object %q", got)
	}
	kept, err := filepath.Glob(filepath.Join(c.dir.path("failed"), "main", "f-*"))
	if ok(t, err); len(kept) != 1 {
		t.Fatalf("kept: %q", kept)
	}
	if data, _ := os.ReadFile(kept[0]); !strings.HasSuffix(string(data), "appended here") {
		t.Errorf("kept are %d bytes without the change", len(data))
	}
}

func TestExtentsAreASetOfBytes(t *testing.T) {
	const n = 200
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var e extents
		var model [n]bool
		for range 30 {
			off := random.Int64N(n)
			if random.IntN(8) == 0 {
				e.cut(off)
				clear(model[off:])
			} else {
				length := random.Int64N(min(30, n-off) + 1)
				e.add(store.Range{Off: off, Len: length})
				for i := off; i < off+length; i++ {
					model[i] = true
				}
			}
			var got [n]bool
			for i := range got {
				got[i] = true
			}
			for _, m := range e.missing(store.Range{Len: n}) {
				for i := m.Off; i < m.End(); i++ {
					got[i] = false
				}
			}
			if got != model {
				t.Fatalf("%+v is not %v", e, model)
			}
			for i := 1; i < len(e.list); i++ {
				if e.list[i-1].End() >= e.list[i].Off {
					t.Fatalf("%+v is not in order, or touches", e)
				}
			}
		}
	}
}
