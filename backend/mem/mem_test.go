package mem_test

import (
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/mem"
)

func TestConformance(t *testing.T) {
	for name, opts := range map[string]mem.Options{
		"AllPowers":   {},
		"Versions":    {Versions: true, PageSize: 3},
		"Plain":       {Plain: true, Seconds: true},
		"NoConds":     {Caps: noConds},
		"IgnoreConds": {IgnoreConds: true, Caps: noConds},
		"Lesser": {PageSize: 7, Caps: func(c *backend.Caps) {
			c.Metadata, c.Copy, c.ObjectPrefix = false, false, false
			c.MinPart = 200_000
		}},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(*testing.T) backend.Backend { return mem.New("test", opts) })
		})
	}
}

func noConds(c *backend.Caps) {
	c.CondCreate, c.CondOverwrite, c.CondDelete, c.CondBatch, c.CondCopy, c.CondAssemble = false, false, false, false, false, false
}

func TestACloneGoesItsOwnWay(t *testing.T) {
	for name, opts := range map[string]mem.Options{"AllPowers": {}, "Versions": {Versions: true}, "Plain": {Plain: true}} {
		one := mem.New(name, opts)
		put := func(b backend.Backend, key string) {
			t.Helper()
			if _, err := b.Put(t.Context(), key, backend.Bytes([]byte(key)), backend.PutOptions{}); err != nil {
				t.Fatal(name, err)
			}
		}
		put(one, "both")
		two := mem.Clone(one)
		put(one, "one")
		put(two, "two")
		if err := two.Delete(t.Context(), "both", backend.Cond{}); err != nil {
			t.Fatal(name, err)
		}
		for b, want := range map[backend.Backend]string{one: "both one", two: "two"} {
			var keys []string
			for info, err := range backend.ListRecursive(t.Context(), b, "") {
				if err != nil {
					t.Fatal(name, err)
				}
				keys = append(keys, info.Key)
			}
			if got := strings.Join(keys, " "); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}
