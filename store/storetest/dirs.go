package storetest

import (
	"io"

	"github.com/keifs/keifs/store"
)

// directories are the promises about mkdir and rmdir.
func directories() []test {
	dirAttr := store.Attr{Mode: store.ModeDir | 0o755}
	return []test{
		{name: "an empty directory is there after a remount", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.mkdir(e.tree, "d/e")
			e.remount()
			equal(e, "names", e.names(e.tree, "d"), "e/")
			equal(e, "names", e.names(e.tree, "d/e"), "")
			equal(e, "dir", e.lookup(e.tree, "d/e").IsDir(), true)
		}},
		{name: "mkdir fails where the name is taken or the parent is missing", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.put(e.tree, "file", "")
			e.putObject("main/implicit/x", "")
			unpublished := e.create(e.tree, "unpublished")
			for name, want := range map[string]error{
				"d": store.ErrExist, "file": store.ErrExist, "implicit": store.ErrExist, "unpublished": store.ErrExist, "": store.ErrExist,
				"nothing/d": store.ErrNotExist, "file/d": store.ErrNotDir, "unpublished/d": store.ErrNotDir,
			} {
				_, err := e.tree.Mkdir(e.ctx, e.path(name), dirAttr)
				e.want(err, want)
			}
			e.close(unpublished)
		}},
		{name: "rmdir removes only what is an empty directory", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.mkdir(e.tree, "d/e")
			e.put(e.tree, "file", "")
			e.put(e.tree, "full", "") // a file made a directory's only entry below
			e.mkdir(e.tree, "pending")
			f := e.create(e.tree, "pending/f")
			e.mkdir(e.tree, "with")
			e.put(e.tree, "with/f", "")
			for name, want := range map[string]error{
				"d": store.ErrNotEmpty, "file": store.ErrNotDir, "nothing": store.ErrNotExist, "pending": store.ErrNotEmpty,
				"with": store.ErrNotEmpty,
			} {
				e.want(e.tree.Rmdir(e.ctx, e.path(name)), want)
			}
			e.close(f)
			e.ok(e.tree.Rmdir(e.ctx, e.path("d/e")))
			e.missing(e.tree, "d/e")
			e.ok(e.tree.Rmdir(e.ctx, e.path("d")))
			e.missing(e.tree, "d")
			equal(e, "names", e.names(e.tree, ""), "file full pending/ with/")
			e.want(e.tree.Rmdir(e.ctx, e.path("d")), store.ErrNotExist)
			e.mkdir(e.tree, "d")
			equal(e, "names", e.names(e.tree, "d"), "")
		}},
		{name: "a directory without a marker outlives its last file", run: func(e *env) {
			e.putObject("main/implicit/deep/only", "x")
			e.remove(e.tree, "implicit/deep/only")
			equal(e, "names", e.names(e.tree, "implicit"), "deep/")
			equal(e, "names", e.names(e.tree, "implicit/deep"), "")
			e.put(e.tree, "implicit/deep/again", "y")
			e.ok(e.rename(e.tree, "implicit/deep/again", "moved", store.Replace))
			equal(e, "dir", e.lookup(e.tree, "implicit/deep").IsDir(), true)
			e.ok(e.tree.Rmdir(e.ctx, e.path("implicit/deep")))
			equal(e, "names", e.names(e.tree, "implicit"), "")
			e.ok(e.tree.Rmdir(e.ctx, e.path("implicit")))
			e.missing(e.tree, "implicit")
			equal(e, "names", e.names(e.tree, ""), "moved")
		}},
		{name: "a directory without a marker outlives the move of its last entry", run: func(e *env) {
			e.putObject("main/a/only", "x")
			e.putObject("main/b/sub/x", "y")
			e.ok(e.rename(e.tree, "a/only", "only", store.Replace))
			e.ok(e.rename(e.tree, "b/sub", "sub", store.Replace))
			equal(e, "names", e.names(e.tree, ""), "a/ b/ only sub/")
			equal(e, "names", e.names(e.tree, "a"), "")
			equal(e, "names", e.names(e.tree, "b"), "")
			equal(e, "content", e.get(e.tree, "sub/x"), "y")
		}},
	}
}

// removals are the promises about unlink.
func removals() []test {
	return []test{
		{name: "a removed file is gone from the bucket", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.put(e.tree, "g", "stays")
			e.remove(e.tree, "f")
			e.missing(e.tree, "f")
			e.noObject("main/f")
			equal(e, "names", e.names(e.tree, ""), "g")
			e.want(e.tree.Remove(e.ctx, e.path("f")), store.ErrNotExist)
			_, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{})
			e.want(err, store.ErrNotExist)
		}},
		{name: "removing a directory or nothing is an error", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.putObject("main/implicit/x", "")
			e.put(e.tree, "file", "")
			for name, want := range map[string]error{
				"d": store.ErrIsDir, "implicit": store.ErrIsDir, "nothing": store.ErrNotExist, "": store.ErrIsDir,
			} {
				e.want(e.tree.Remove(e.ctx, e.path(name)), want)
			}
			e.wantAbsent(e.tree.Remove(e.ctx, e.path("file/below")))
			e.wantAbsent(e.tree.Rmdir(e.ctx, e.path("file/below")))
		}},
		{name: "a file removed while open is read, written and looked at as before", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			reader, writer := e.openRead(e.tree, "f"), e.openFile(e.tree, "f")
			e.remove(e.tree, "f")
			e.missing(e.tree, "f")
			equal(e, "names", e.names(e.tree, ""), "")
			equal(e, "content", e.content(reader), "0123456789")
			equal(e, "size", e.stat(reader).Size, 10)
			e.write(writer, 8, "####")
			equal(e, "content", e.content(reader), "01234567####")
			equal(e, "size", e.stat(reader).Size, 12)
			entry, err := writer.SetAttr(e.ctx, store.AttrChange{Mode: new(uint32(0o600)), Size: new(int64(4))})
			e.ok(err)
			equal(e, "mode", entry.Mode, uint32(store.ModeRegular|0o600))
			equal(e, "content", e.content(reader), "0123")
			equal(e, "pending", len(e.pending()), 0)
			e.ok(e.vol.Sync(e.ctx))
			e.ok(writer.Sync(e.ctx))
			e.close(writer)
			e.close(reader)
			e.missing(e.tree, "f")
			e.noObject("main/f")
		}},
		{name: "an unpublished file that is removed never was in the bucket", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			e.remove(e.tree, "f")
			e.missing(e.tree, "f")
			equal(e, "content", e.content(f), "content")
			e.close(f)
			e.missing(e.tree, "f")
			e.noObject("main/f")
			e.want(e.tree.Remove(e.ctx, e.path("f")), store.ErrNotExist)
		}},
		{name: "the name of an open removed file belongs to the next one", run: func(e *env) {
			e.put(e.tree, "f", "first")
			first := e.openFile(e.tree, "f")
			e.remove(e.tree, "f")
			e.put(e.tree, "f", "second")
			second := e.openFile(e.tree, "f")
			e.write(first, 0, "F")
			e.write(second, 0, "S")
			equal(e, "content", e.content(first), "First")
			equal(e, "content", e.content(second), "Second")
			e.close(first)
			equal(e, "content", e.get(e.tree, "f"), "Second")
			e.close(second)
			data, _ := e.object("main/f")
			equal(e, "object", data, "Second")
		}},
		{name: "an empty file removed while open reads as empty", run: func(e *env) {
			e.put(e.tree, "f", "")
			f := e.openRead(e.tree, "f")
			e.remove(e.tree, "f")
			n, err := f.ReadAt(e.ctx, make([]byte, 10), 0)
			equal(e, "bytes", n, 0)
			e.want(err, io.EOF)
			e.close(f)
		}},
	}
}
