package storetest

import (
	"strings"

	"github.com/keifs/keifs/store"
)

// renames are the promises about rename.
func renames() []test {
	return []test{
		{name: "a file is renamed with its content and attributes", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.mkdir(e.tree, "d")
			if metadata(e.raw.Caps()) {
				e.setAttr(e.tree, "f", store.AttrChange{Mode: new(uint32(0o600)), UID: new(uint32(9)), Mtime: &when})
				e.setAttr(e.tree, "f", xattr("user.a", "1"))
			}
			before := e.lookup(e.tree, "f")
			e.ok(e.rename(e.tree, "f", "d/g", store.Replace))
			e.missing(e.tree, "f")
			e.noObject("main/f")
			data, _ := e.object("main/d/g")
			equal(e, "object", data, "content")
			equal(e, "name", e.lookup(e.tree, "d/g").Name, "g")
			if metadata(e.raw.Caps()) {
				e.hasAttr("renamed", e.lookup(e.tree, "d/g"), before.Attr)
				e.remount()
				e.hasAttr("remounted", e.lookup(e.tree, "d/g"), before.Attr)
			}
		}},
		{name: "a file that another tool wrote keeps its time when it is renamed", needs: metadata, run: func(e *env) {
			e.putObject("main/f", "content")
			before := e.lookup(e.tree, "f")
			e.ok(e.rename(e.tree, "f", "g", store.Replace))
			e.remount()
			e.hasAttr("renamed", e.lookup(e.tree, "g"), before.Attr)
		}},
		{name: "a rename replaces a file and never a directory with entries", run: func(e *env) {
			e.put(e.tree, "f", "new")
			e.put(e.tree, "g", "old")
			e.ok(e.rename(e.tree, "f", "g", store.Replace))
			equal(e, "content", e.get(e.tree, "g"), "new")
			equal(e, "names", e.names(e.tree, ""), "g")

			e.mkdir(e.tree, "full")
			e.put(e.tree, "full/x", "x")
			e.mkdir(e.tree, "empty")
			e.mkdir(e.tree, "from")
			e.put(e.tree, "from/y", "y")
			e.want(e.rename(e.tree, "from", "full", store.Replace), store.ErrNotEmpty)
			e.want(e.rename(e.tree, "g", "full", store.Replace), store.ErrIsDir)
			e.want(e.rename(e.tree, "g", "empty", store.Replace), store.ErrIsDir)
			e.want(e.rename(e.tree, "from", "g", store.Replace), store.ErrNotDir)
			equal(e, "names", e.names(e.tree, ""), "empty/ from/ full/ g")
			e.ok(e.rename(e.tree, "from", "empty", store.Replace))
			equal(e, "names", e.names(e.tree, ""), "empty/ full/ g")
			equal(e, "content", e.get(e.tree, "empty/y"), "y")
			equal(e, "content", e.get(e.tree, "full/x"), "x")
		}},
		{name: "a rename from or to nowhere is an error", run: func(e *env) {
			e.put(e.tree, "f", "x")
			e.mkdir(e.tree, "d")
			e.put(e.tree, "d/x", "x")
			for _, mode := range []store.RenameMode{store.Replace, store.NoReplace, store.Exchange} {
				e.want(e.rename(e.tree, "nothing", "g", mode), store.ErrNotExist)
				e.want(e.rename(e.tree, "f", "nowhere/g", mode), store.ErrNotExist)
				e.want(e.rename(e.tree, "nothing", "nothing", mode), store.ErrNotExist)
			}
			e.want(e.rename(e.tree, "d", "nowhere/g", store.Replace), store.ErrNotExist)
			e.want(e.rename(e.tree, "d", "f/g", store.Replace), store.ErrNotDir)
			e.want(e.rename(e.tree, "d/x", "f/g", store.Replace), store.ErrNotDir)
			equal(e, "content", e.get(e.tree, "f"), "x")
		}},
		{name: "a name renamed to itself stays", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.mkdir(e.tree, "d")
			e.ok(e.rename(e.tree, "f", "f", store.Replace))
			e.ok(e.rename(e.tree, "d", "d", store.Replace))
			e.want(e.rename(e.tree, "f", "f", store.NoReplace), store.ErrExist)
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "a directory cannot be moved into itself", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.put(e.tree, "d/f", "content")
			e.mkdir(e.tree, "d/e")
			e.want(e.rename(e.tree, "d", "d/e", store.Replace), store.ErrInvalid)
			e.want(e.rename(e.tree, "d", "d/e/g", store.Replace), store.ErrInvalid)
			e.want(e.rename(e.tree, "d", "d/new", store.NoReplace), store.ErrInvalid)
			e.want(e.rename(e.tree, "d/e", "d", store.Replace), store.ErrNotEmpty)
			equal(e, "content", e.get(e.tree, "d/f"), "content")
		}},
		{name: "a rename that must not replace does not", run: func(e *env) {
			e.put(e.tree, "f", "f")
			e.put(e.tree, "g", "g")
			e.mkdir(e.tree, "d")
			e.putObject("main/implicit/x", "")
			unpublished := e.create(e.tree, "unpublished")
			for _, to := range []string{"g", "d", "implicit", "unpublished"} {
				e.want(e.rename(e.tree, "f", to, store.NoReplace), store.ErrExist)
			}
			e.want(e.rename(e.tree, "d", "implicit", store.NoReplace), store.ErrExist)
			e.ok(e.rename(e.tree, "f", "h", store.NoReplace))
			e.ok(e.rename(e.tree, "d", "dd", store.NoReplace))
			e.close(unpublished)
			equal(e, "names", e.names(e.tree, ""), "dd/ g h implicit/ unpublished")
			equal(e, "content", e.get(e.tree, "h"), "f")
			equal(e, "content", e.get(e.tree, "g"), "g")
		}},
		{name: "two files are exchanged, or it is said that they cannot be", run: func(e *env) {
			e.put(e.tree, "f", "of f")
			e.put(e.tree, "g", "of g")
			err := e.rename(e.tree, "f", "g", store.Exchange)
			if err != nil {
				e.want(err, store.ErrUnsupported)
				equal(e, "content", e.get(e.tree, "f"), "of f")
				equal(e, "content", e.get(e.tree, "g"), "of g")
				return
			}
			equal(e, "content", e.get(e.tree, "f"), "of g")
			equal(e, "content", e.get(e.tree, "g"), "of f")
			equal(e, "names", e.names(e.tree, ""), "f g")
			e.want(e.rename(e.tree, "f", "nothing", store.Exchange), store.ErrNotExist)
		}},
		{name: "a directory is renamed with all that is below it", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.mkdir(e.tree, "d/empty")
			e.putObject("main/d/implicit/deep/er", "deep")
			for i := range 20 {
				e.put(e.tree, "d/f"+itoa(i), "of "+itoa(i))
			}
			e.putObject("main/d-sibling", "sibling")
			e.putObject("main/d.txt", "sibling")
			e.mkdir(e.tree, "to")
			e.ok(e.rename(e.tree, "d", "to/d2", store.Replace))
			e.missing(e.tree, "d")
			equal(e, "names", e.names(e.tree, ""), "d-sibling d.txt to/")
			for range 2 {
				for i := range 20 {
					equal(e, "content", e.get(e.tree, "to/d2/f"+itoa(i)), "of "+itoa(i))
				}
				equal(e, "content", e.get(e.tree, "to/d2/implicit/deep/er"), "deep")
				equal(e, "empty", e.names(e.tree, "to/d2/empty"), "")
				equal(e, "kept", e.get(e.tree, "d-sibling"), "sibling")
				for _, key := range e.keys("main/d/") {
					e.t.Errorf("%s is still there", key)
				}
				e.remount()
			}
		}},
		{name: "a rename of a directory moves what its markers say", needs: metadata, run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.mkdir(e.tree, "d/sub")
			e.setAttr(e.tree, "d", store.AttrChange{Mode: new(uint32(0o700))})
			e.setAttr(e.tree, "d/sub", store.AttrChange{Mode: new(uint32(0o711))})
			e.ok(e.rename(e.tree, "d", "e", store.Replace))
			e.remount()
			equal(e, "mode", e.lookup(e.tree, "e").Mode, uint32(store.ModeDir|0o700))
			equal(e, "mode", e.lookup(e.tree, "e/sub").Mode, uint32(store.ModeDir|0o711))
		}},
	}
}

// renamesOpen are the promises about rename and open files.
func renamesOpen() []test {
	return []test{
		{name: "an open file follows its rename", run: func(e *env) {
			e.put(e.tree, "f", "content")
			reader, writer := e.openRead(e.tree, "f"), e.openFile(e.tree, "f")
			e.ok(e.rename(e.tree, "f", "g", store.Replace))
			equal(e, "name", e.stat(reader).Name, "g")
			equal(e, "content", e.content(reader), "content")
			e.write(writer, 0, "C")
			equal(e, "looked up size", e.lookup(e.tree, "g").Size, 7)
			equal(e, "content", e.get(e.tree, "g"), "Content")
			e.close(writer)
			e.close(reader)
			data, _ := e.object("main/g")
			equal(e, "object", data, "Content")
			e.noObject("main/f")
			e.missing(e.tree, "f")
		}},
		{name: "a file being written follows its rename with all its bytes", run: func(e *env) {
			for _, published := range []bool{false, true} {
				if published {
					e.put(e.tree, "f", "old")
				}
				f := e.create(e.tree, "f")
				e.write(f, 0, "before ")
				e.ok(e.rename(e.tree, "f", "g", store.Replace))
				e.missing(e.tree, "f")
				equal(e, "content", e.content(f), "before ")
				e.write(f, -1, "after")
				equal(e, "content", e.get(e.tree, "g"), "before after")
				e.close(f)
				data, _ := e.object("main/g")
				equal(e, "object", data, "before after")
				e.noObject("main/f")
				equal(e, "names", e.names(e.tree, ""), "g")
				equal(e, "pending", len(e.pending()), 0)
			}
		}},
		{name: "open files below a renamed directory follow", run: func(e *env) {
			e.mkdir(e.tree, "d")
			e.mkdir(e.tree, "d/sub")
			e.put(e.tree, "d/clean", "clean")
			e.put(e.tree, "d/sub/dirty", "dirty")
			clean, dirty, fresh := e.openRead(e.tree, "d/clean"), e.openFile(e.tree, "d/sub/dirty"), e.create(e.tree, "d/fresh")
			e.write(dirty, 0, "DIRTY")
			e.write(fresh, 0, "fresh")
			e.ok(e.rename(e.tree, "d", "e", store.Replace))
			equal(e, "names", e.names(e.tree, "e"), "clean fresh sub/")
			equal(e, "content", e.content(clean), "clean")
			equal(e, "content", e.content(dirty), "DIRTY")
			e.write(dirty, -1, "!")
			e.write(fresh, -1, "!")
			for _, f := range []store.File{clean, dirty, fresh} {
				e.close(f)
			}
			e.remount()
			equal(e, "content", e.get(e.tree, "e/clean"), "clean")
			equal(e, "content", e.get(e.tree, "e/sub/dirty"), "DIRTY!")
			equal(e, "content", e.get(e.tree, "e/fresh"), "fresh!")
			e.missing(e.tree, "d")
		}},
		{name: "a replaced open file keeps its content, and its name is another's", run: func(e *env) {
			for _, dirty := range []bool{false, true} {
				e.put(e.tree, "old", "old content")
				e.put(e.tree, "new", "new content")
				old := e.openFile(e.tree, "old")
				want := "old content"
				if dirty {
					e.write(old, 0, "OLD")
					want = "OLD content"
				}
				e.ok(e.rename(e.tree, "new", "old", store.Replace))
				equal(e, "content", e.content(old), want)
				equal(e, "size", e.stat(old).Size, 11)
				equal(e, "content", e.get(e.tree, "old"), "new content")
				e.write(old, 4, "CONTENT")
				equal(e, "content", e.content(old), want[:3]+" CONTENT")
				e.close(old)
				data, _ := e.object("main/old")
				equal(e, "object", data, "new content")
				equal(e, "names", e.names(e.tree, ""), "old")
			}
		}},
		{name: "a file that was never published is replaced too", run: func(e *env) {
			e.put(e.tree, "new", "new")
			f := e.create(e.tree, "fresh")
			e.write(f, 0, "fresh")
			e.ok(e.rename(e.tree, "new", "fresh", store.Replace))
			equal(e, "content", e.content(f), "fresh")
			e.close(f)
			equal(e, "content", e.get(e.tree, "fresh"), "new")
			data, _ := e.object("main/fresh")
			equal(e, "object", data, "new")
			equal(e, "names", e.names(e.tree, ""), "fresh")
		}},
		{name: "the way editors save keeps every version for who has it open", run: func(e *env) {
			e.put(e.tree, "doc", "version 0")
			var readers []store.File
			for i := range 5 {
				readers = append(readers, e.openRead(e.tree, "doc"))
				f, err := e.tree.Create(e.ctx, e.path("doc.tmp"), fileAttr, true)
				e.ok(err)
				e.write(f, 0, "version "+itoa(i+1))
				e.ok(f.Sync(e.ctx))
				e.close(f)
				e.ok(e.rename(e.tree, "doc.tmp", "doc", store.Replace))
			}
			for i, r := range readers {
				equal(e, "content", e.content(r), "version "+itoa(i))
				e.close(r)
			}
			equal(e, "content", e.get(e.tree, "doc"), "version 5")
			equal(e, "names", e.names(e.tree, ""), "doc")
		}},
		{name: "exchanged open files follow", run: func(e *env) {
			e.put(e.tree, "f", "of f")
			e.put(e.tree, "g", "of g")
			f, g := e.openFile(e.tree, "f"), e.openFile(e.tree, "g")
			e.write(f, -1, "!")
			if err := e.rename(e.tree, "f", "g", store.Exchange); err != nil {
				e.want(err, store.ErrUnsupported)
				e.close(f)
				e.close(g)
				return
			}
			equal(e, "content", e.content(f), "of f!")
			equal(e, "content", e.content(g), "of g")
			e.write(f, -1, "?")
			e.write(g, -1, "?")
			e.close(f)
			e.close(g)
			equal(e, "content", e.get(e.tree, "g"), "of f!?")
			equal(e, "content", e.get(e.tree, "f"), "of g?")
			equal(e, "names", e.names(e.tree, ""), "f g")
		}},
		{name: "a renamed file leaves a name that can be made again", run: func(e *env) {
			f := e.create(e.tree, "log")
			e.write(f, 0, "first\n")
			for i := range 3 { // as a log is rotated
				e.ok(e.rename(e.tree, "log", "log."+itoa(i), store.Replace))
				g, err := e.tree.Create(e.ctx, e.path("log"), fileAttr, true)
				e.ok(err)
				e.write(f, -1, "late\n")
				e.close(f)
				f = g
				e.write(f, 0, "next\n")
			}
			e.close(f)
			equal(e, "content", e.get(e.tree, "log.0"), "first\nlate\n")
			equal(e, "content", e.get(e.tree, "log.2"), "next\nlate\n")
			equal(e, "content", e.get(e.tree, "log"), "next\n")
			equal(e, "names", e.names(e.tree, ""), "log log.0 log.1 log.2")
		}},
		{name: "a long name works wherever it is renamed to", run: func(e *env) {
			e.put(e.tree, "f", "x")
			name := "f"
			for i := range 5 {
				next := strings.Repeat(string(rune('a'+i)), 200+i)
				e.ok(e.rename(e.tree, name, next, store.NoReplace))
				name = next
			}
			equal(e, "content", e.get(e.tree, name), "x")
		}},
	}
}
