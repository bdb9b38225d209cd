package storetest

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

func itoa(i int) string { return strconv.Itoa(i) }

// walk reads every file below dir.
func (e *env) walk(tree store.Tree, dir string, into map[string]string) {
	e.t.Helper()
	for _, entry := range e.list(tree, dir) {
		name := strings.TrimPrefix(dir+"/"+entry.Name, "/")
		if entry.IsDir() {
			e.walk(tree, name, into)
		} else {
			into[name] = e.get(tree, name)
		}
	}
}

func names() []test {
	return []test{
		{name: "a name of 255 bytes works and one of 256 does not", run: func(e *env) {
			long := strings.Repeat("n", 255)
			e.put(e.tree, long, "long")
			equal(e, "content", e.get(e.tree, long), "long")
			equal(e, "names", e.names(e.tree, ""), long)
			e.ok(e.rename(e.tree, long, "short", store.Replace))
			e.ok(e.rename(e.tree, "short", long, store.Replace))
			e.remount()
			equal(e, "content", e.get(e.tree, long), "long")
			e.mkdir(e.tree, "dir")
			e.mkdir(e.tree, "dir/"+long)
			e.remove(e.tree, long)
			_, err := store.ParsePath(long + "n")
			e.want(err, store.ErrNameTooLong)
			_, err = e.path("dir").Join(long + "n")
			e.want(err, store.ErrNameTooLong)
		}},
		{name: "a path the bucket cannot hold is refused at once", run: func(e *env) {
			// Every component is short enough; only the whole key is not.
			dir := ""
			var err error
			for range 5 {
				dir = strings.TrimPrefix(dir+"/"+strings.Repeat("d", 250), "/")
				if _, err = e.tree.Mkdir(e.ctx, e.path(dir), store.Attr{Mode: store.ModeDir | 0o755}); err != nil {
					break
				}
			}
			if e.raw.Caps().MaxKey == 1024 {
				e.want(err, store.ErrNameTooLong)
				_, err = e.tree.Create(e.ctx, e.path(strings.TrimSuffix(dir, strings.Repeat("d", 250))+strings.Repeat("f", 250)), fileAttr, false)
				e.want(err, store.ErrNameTooLong)
			}
			e.ok(e.vol.Sync(e.ctx))
		}},
		{name: "names of any bytes come back as they were, or are refused", run: func(e *env) {
			kept := map[string]string{}
			for _, name := range []string{
				"caf\xe9", "\xff\xfe", "new\nline", "tab\t", "\x01", "\x7f", " ", " lead", "trail ", "a%2Fb", "%", "%00", "back\\slash",
				"quote\"'", "*?[x]", "#x", "a+b", "a&b=c", "-rf", "~", "...", ".hidden", "日本語", "e\u0301", "é", "<xml>", "a:b", "@", "x@y",
			} {
				f, err := e.tree.Create(e.ctx, e.path(name), fileAttr, true)
				if errors.Is(err, store.ErrBadName) || errors.Is(err, backend.ErrBadKey) {
					continue
				}
				e.ok(err)
				e.write(f, 0, "of "+name)
				e.close(f)
				kept[name] = "of " + name
			}
			for _, name := range []string{" ", "a%2Fb", "back\\slash", "*?[x]", "a+b", "日本語", "...", "-rf", "#x"} {
				if kept[name] != "" {
					continue
				}
				// It is for the bucket to refuse, and for nobody else.
				if _, err := e.raw.Put(e.ctx, "main/"+name, backend.Bytes(nil), backend.PutOptions{}); !errors.Is(err, backend.ErrBadKey) {
					e.t.Errorf("%q was refused", name)
				}
			}
			for range 2 {
				found := map[string]string{}
				e.walk(e.tree, "", found)
				equal(e, "names", join(found), join(kept))
				equal(e, "same", maps.Equal(found, kept), true)
				e.remount()
			}
			for name := range kept {
				e.remove(e.tree, name)
			}
			equal(e, "names", e.names(e.tree, ""), "")
		}},
		{name: "names that can never be are refused", run: func(e *env) {
			for _, name := range []string{"/abs", "a/../b", "..", "a//b", "a\x00b", "a/"} {
				if _, err := store.ParsePath(name); !errors.Is(err, store.ErrBadName) {
					e.t.Errorf("%q: %v", name, err)
				}
			}
			for _, name := range []string{"", ".", "..", "a/b", "\x00"} {
				if _, err := e.path("dir").Join(name); !errors.Is(err, store.ErrBadName) {
					e.t.Errorf("join %q: %v", name, err)
				}
			}
		}},
		{name: "keys that POSIX cannot name are reachable and stay so", run: func(e *env) {
			want := map[string]int{}
			n := 0
			for _, key := range []string{"a//b", "a/./b", "a/../b", "./c", "../d", "/lead", "a//", "dir//x", "ok"} {
				_, err := e.raw.Put(e.ctx, "main/"+key, backend.Bytes([]byte("at "+key)), backend.PutOptions{})
				if errors.Is(err, backend.ErrBadKey) {
					continue
				}
				e.ok(err)
				want["at "+key]++
				n++
			}
			found := map[string]string{}
			e.walk(e.tree, "", found)
			contents := map[string]int{}
			for _, content := range found {
				contents[content]++
			}
			equal(e, "contents", strings.Join(slices.Sorted(maps.Keys(contents)), "\n"), strings.Join(slices.Sorted(maps.Keys(want)), "\n"))
			// The names shown are good for every operation; only a key that
			// ends in a slash cannot be written, since empty it is a marker.
			for name, content := range found {
				if !strings.HasSuffix(content, "/") {
					e.put(e.tree, name, "new "+content)
					equal(e, "content of "+name, e.get(e.tree, name), "new "+content)
				}
				e.remove(e.tree, name)
			}
			for _, key := range e.keys("main/") {
				if data, _ := e.object(key); data != "" {
					e.t.Errorf("%q is still there", key)
				}
			}
		}},
		{name: "a key too long for a name is counted, and hides nothing else", run: func(e *env) {
			_, err := e.raw.Put(e.ctx, "main/"+strings.Repeat("k", 300), backend.Bytes(nil), backend.PutOptions{})
			if errors.Is(err, backend.ErrBadKey) {
				return
			}
			e.ok(err)
			e.put(e.tree, "ok", "x")
			equal(e, "names", e.names(e.tree, ""), "ok")
			equal(e, "counted", e.store.Stats().Unnameable, 1)
		}},
		{name: "a key that is object and prefix at once shows both", needs: nesting, run: func(e *env) {
			e.putObject("main/a", "the object")
			e.putObject("main/a/b", "below")
			equal(e, "dir", e.lookup(e.tree, "a").IsDir(), true)
			equal(e, "content", e.get(e.tree, "a/b"), "below")
			found := map[string]string{}
			e.walk(e.tree, "", found)
			equal(e, "files", len(found), 2)
			for name, content := range found {
				if name == "a/b" {
					continue
				}
				equal(e, "content", content, "the object")
				e.put(e.tree, name, "changed")
				data, _ := e.object("main/a")
				equal(e, "object", data, "changed")
				e.remove(e.tree, name)
				e.noObject("main/a")
			}
			equal(e, "content", e.get(e.tree, "a/b"), "below")
		}},
	}
}

func join(m map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), "\n")
}
