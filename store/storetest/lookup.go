package storetest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/keifs/keifs/store"
)

func lookups() []test {
	return []test{
		{name: "a lookup tells files and directories apart", run: func(e *env) {
			e.put(e.tree, "file", "content")
			e.mkdir(e.tree, "dir")
			e.put(e.tree, "dir/inner", "x")
			f := e.lookup(e.tree, "file")
			equal(e, "name", f.Name, "file")
			equal(e, "regular", f.IsRegular(), true)
			equal(e, "size", f.Size, 7)
			equal(e, "partial", f.Partial, false)
			equal(e, "has a version", f.Version != "", true)
			d := e.lookup(e.tree, "dir")
			equal(e, "name", d.Name, "dir")
			equal(e, "dir", d.IsDir(), true)
			equal(e, "partial", d.Partial, false)
			equal(e, "version of a directory", d.Version, "")
			equal(e, "inner", e.lookup(e.tree, "dir/inner").Name, "inner")
			equal(e, "root", e.lookup(e.tree, "").IsDir(), true)
			equal(e, "name of the root", e.lookup(e.tree, "").Name, "")
			e.missing(e.tree, "nothing")
			e.missing(e.tree, "dir/nothing")
			e.missing(e.tree, "nothing/below")
			_, err := e.tree.Lookup(e.ctx, e.path("file/below"))
			e.wantAbsent(err)
		}},
		{name: "a listing is sorted by key, each name once", run: func(e *env) {
			// As keys, "a!" and "a-b" sort before "a/".
			for _, name := range []string{"a-b", "a!", "b", "a0", "A", "z.txt", "é", "~"} {
				e.put(e.tree, name, "")
			}
			e.mkdir(e.tree, "a")
			e.put(e.tree, "a/1", "")
			e.put(e.tree, "a/2", "")
			e.mkdir(e.tree, "b-dir")
			e.mkdir(e.tree, "c")
			equal(e, "names", e.names(e.tree, ""), "A a! a-b a/ a0 b b-dir/ c/ z.txt ~ é")
			equal(e, "names", e.names(e.tree, "a"), "1 2")
			equal(e, "names", e.names(e.tree, "c"), "")
		}},
		{name: "a listing and a lookup show what is not published yet", run: func(e *env) {
			e.mkdir(e.tree, "d")
			for _, name := range []string{"b", "d", "f"} {
				e.put(e.tree, "d/"+name, "published")
			}
			files := map[string]store.File{}
			for _, name := range []string{"a", "c", "e", "g"} {
				files[name] = e.create(e.tree, "d/"+name)
				e.write(files[name], 0, "not yet")
			}
			f := e.openFile(e.tree, "d/d")
			e.write(f, 0, "changed, and longer")
			equal(e, "names", e.names(e.tree, "d"), "a b c d e f g")
			for _, entry := range e.list(e.tree, "d") {
				want := map[string]int64{"b": 9, "d": 19, "f": 9}[entry.Name]
				equal(e, "size of "+entry.Name, entry.Size, cmp.Or(want, 7))
				equal(e, "looked up size of "+entry.Name, e.lookup(e.tree, "d/"+entry.Name).Size, cmp.Or(want, 7))
			}
			_, err := e.tree.Lookup(e.ctx, e.path("d/a/below"))
			e.wantAbsent(err)
			e.want(e.listErr(e.tree, "d/a"), store.ErrNotDir)
			e.close(f)
			for _, f := range files {
				e.close(f)
			}
			equal(e, "names", e.names(e.tree, "d"), "a b c d e f g")
		}},
		{name: "listing what is not a directory says so", run: func(e *env) {
			e.put(e.tree, "file", "")
			e.want(e.listErr(e.tree, "file"), store.ErrNotDir)
			e.want(e.listErr(e.tree, "nothing"), store.ErrNotExist)
			e.want(e.listErr(e.tree, "nothing/below"), store.ErrNotExist)
			e.ok(e.listErr(e.tree, ""))
		}},
		{name: "a listing can be left early", run: func(e *env) {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				e.put(e.tree, name, "")
			}
			defer e.close(e.create(e.tree, "aa"))
			n := 0
			for range e.tree.List(e.ctx, store.Path{}) {
				if n++; n == 2 {
					break
				}
			}
			equal(e, "entries seen", n, 2)
		}},
		{name: "a bucket that keifs never touched is shown as it is", run: func(e *env) {
			e.putObject("main/docs/deep/er/a.txt", "a")
			e.putObject("main/b.txt", "b")
			e.putObject("outside.txt", "plain")
			e.remount()
			equal(e, "names", e.names(e.tree, ""), "b.txt docs/")
			equal(e, "names", e.names(e.tree, "docs/deep"), "er/")
			equal(e, "content", e.get(e.tree, "docs/deep/er/a.txt"), "a")
			equal(e, "dir", e.lookup(e.tree, "docs/deep").IsDir(), true)
			equal(e, "mode", e.lookup(e.tree, "b.txt").Mode, uint32(store.ModeRegular|0o644))
			equal(e, "mode", e.lookup(e.tree, "docs").Mode, uint32(store.ModeDir|0o755))
		}},
		{name: "the root shows branches and the files outside them", run: func(e *env) {
			e.putObject("readme.txt", "plain")
			e.putObject("dev/file", "in dev")
			e.putObject(".kei/branches/dev.json", `{"format":1,"branch":"dev","generation":1,"nonce":"n","head":"","base":"","time":"2026-11-20T10:00:00Z","host":"h"}`)
			e.remount()
			root := e.vol.Root()
			equal(e, "name", root.Name(), "")
			equal(e, "names", e.names(root, ""), "dev/ main/ readme.txt")
			equal(e, "content", e.get(root, "readme.txt"), "plain")
			equal(e, "dir", e.lookup(root, "dev").IsDir(), true)
			e.missing(root, ".kei")
			_, err := root.Open(e.ctx, e.path("readme.txt"), store.OpenFlags{Write: true})
			e.want(err, store.ErrOutsideBranch)
			_, err = root.Create(e.ctx, e.path("new.txt"), fileAttr, false)
			e.want(err, store.ErrOutsideBranch)
			e.want(root.Remove(e.ctx, e.path("readme.txt")), store.ErrOutsideBranch)
			e.want(e.rename(root, "readme.txt", "other.txt", store.Replace), store.ErrOutsideBranch)
		}},
		{name: "a branch is made and removed as a directory", run: func(e *env) {
			_, err := e.vol.Branch(e.ctx, "dev")
			e.want(err, store.ErrNotExist)
			e.mkdir(e.vol.Root(), "dev")
			_, err = e.vol.Root().Mkdir(e.ctx, e.path("dev"), store.Attr{Mode: store.ModeDir | 0o755})
			e.want(err, store.ErrExist)
			dev, err := e.vol.Branch(e.ctx, "dev")
			e.ok(err)
			equal(e, "name", dev.Name(), "dev")
			e.put(dev, "file", "content")
			e.want(e.vol.Root().Rmdir(e.ctx, e.path("dev")), store.ErrNotEmpty)
			e.missing(e.tree, "file")
			e.remove(dev, "file")
			f := e.create(dev, "unpublished")
			e.want(e.vol.Root().Rmdir(e.ctx, e.path("dev")), store.ErrNotEmpty)
			e.remove(dev, "unpublished")
			e.close(f)
			e.ok(e.vol.Root().Rmdir(e.ctx, e.path("dev")))
			_, err = e.vol.Branch(e.ctx, "dev")
			e.want(err, store.ErrNotExist)
			equal(e, "names", e.names(e.vol.Root(), ""), "main/")
		}},
		{name: "an unchanged branch stays when its last file goes", run: func(e *env) {
			e.putObject("dev/only", "x")
			dev := e.branch(e.vol, "dev")
			e.remove(dev, "only")
			equal(e, "names", e.names(e.vol.Root(), ""), "dev/ main/")
		}},
		{name: "a directory of 10,000 entries is listed whole and in order", once: true, run: func(e *env) {
			var want []string
			for i := range 10_000 {
				name := "f" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + itoa(i)
				e.putObject("main/big/"+name, "")
				want = append(want, name)
			}
			slices.Sort(want)
			equal(e, "names", e.names(e.tree, "big"), strings.Join(want, " "))
			equal(e, "size", e.lookup(e.tree, "big/"+want[5000]).IsRegular(), true)
		}},
	}
}
