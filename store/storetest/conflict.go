package storetest

import (
	"errors"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// hosts are the promises to several hosts with one bucket.
func hosts() []test {
	return []test{
		{name: "what one host closed the next to open sees", run: func(e *env) {
			other := e.other()
			for i := range 5 {
				e.put(e.tree, "f", "here "+itoa(i))
				equal(e, "content", e.get(other, "f"), "here "+itoa(i))
				e.put(other, "f", "there "+itoa(i))
				equal(e, "content", e.get(e.tree, "f"), "there "+itoa(i))
			}
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "what another tool did the next open sees", run: func(e *env) {
			e.put(e.tree, "f", "here")
			equal(e, "content", e.get(e.tree, "f"), "here")
			e.putObject("main/f", "of another tool")
			equal(e, "content", e.get(e.tree, "f"), "of another tool")
			e.putObject("main/f", "shorter")
			f := e.openFile(e.tree, "f")
			e.write(f, -1, "!")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "shorter!")
			e.deleteObject("main/f")
			_, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{})
			e.want(err, store.ErrNotExist)
		}},
		{name: "attributes that another host set the next open sees, and keeps", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openFile(e.tree, "f")
			e.setAttr(e.other(), "f", store.AttrChange{Mode: new(uint32(0o600))})
			g := e.openFile(e.tree, "f")
			equal(e, "mode", e.stat(g).Mode, uint32(store.ModeRegular|0o600))
			e.write(g, 0, "C")
			e.close(g)
			e.close(f)
			e.remount()
			equal(e, "mode", e.lookup(e.tree, "f").Mode, uint32(store.ModeRegular|0o600))
			equal(e, "content", e.get(e.tree, "f"), "Content")
		}},
		{name: "a file deleted elsewhere while it was written can be removed", run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "C")
			e.deleteObject("main/f")
			e.remove(e.tree, "f")
			equal(e, "content", e.content(f), "Content")
			e.close(f)
			e.missing(e.tree, "f")
			e.noObject("main/f")
		}},
		{name: "a file opened again after a change elsewhere is the new one", run: func(e *env) {
			e.put(e.tree, "f", "old content")
			old := e.openRead(e.tree, "f")
			e.putObject("main/f", "NEW CONTENT")
			equal(e, "content", e.get(e.tree, "f"), "NEW CONTENT")
			if s, err := readAll(e.ctx, old); err == nil {
				equal(e, "content", s, "old content")
			} else {
				e.want(err, store.ErrStale)
			}
			e.ok(old.Close(e.ctx))
			equal(e, "content", e.get(e.tree, "f"), "NEW CONTENT")
		}},
		{name: "a reader sees one version and never a mix", run: func(e *env) {
			const n = 64 << 10
			e.putObject("main/f", strings.Repeat("0", n))
			f := e.openRead(e.tree, "f")
			p := make([]byte, n/4)
			for i := range 4 {
				k, err := f.ReadAt(e.ctx, p, int64(i*len(p)))
				if err != nil {
					e.want(err, store.ErrStale)
				} else if strings.Trim(string(p[:k]), "0") != "" {
					e.t.Errorf("quarter %d is of a later version", i)
				}
				e.putObject("main/f", strings.Repeat(itoa(i+1), n))
			}
			e.ok(f.Close(e.ctx))
			equal(e, "content", e.get(e.tree, "f"), strings.Repeat("4", n))
		}},
		{name: "a reader of a file that another tool deleted gets it whole or an error", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.remount()
			f := e.openRead(e.tree, "f")
			e.deleteObject("main/f")
			if s, err := readAll(e.ctx, f); err == nil {
				equal(e, "content", s, "content")
			} else {
				e.want(err, store.ErrStale)
			}
			equal(e, "size", e.stat(f).Size, 7)
			e.ok(f.Close(e.ctx))
		}},
		{name: "mkdir is exclusive between hosts", needs: conditions, run: func(e *env) {
			other := e.other()
			e.missing(other, "d")
			e.mkdir(e.tree, "d")
			_, err := other.Mkdir(e.ctx, e.path("d"), store.Attr{Mode: store.ModeDir | 0o755})
			e.want(err, store.ErrExist)
		}},
		{name: "a rename that must not replace sees what another host made", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "here")
			e.missing(e.tree, "g")
			e.put(e.other(), "g", "there")
			e.want(e.rename(e.tree, "f", "g", store.NoReplace), store.ErrExist)
			equal(e, "content", e.get(e.tree, "f"), "here")
			equal(e, "content", e.get(e.tree, "g"), "there")
		}},
		{name: "a volume that is read-only changes nothing", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.mkdir(e.tree, "d")
			before := strings.Join(e.keys(""), " ")
			e.opts.ReadOnly = true
			e.remount()
			equal(e, "content", e.get(e.tree, "f"), "content")
			equal(e, "names", e.names(e.tree, ""), "d/ f")
			attr := store.Attr{Mode: store.ModeDir | 0o755}
			_, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{Write: true})
			e.want(err, store.ErrReadOnly)
			for _, exclusive := range []bool{false, true} {
				_, err = e.tree.Create(e.ctx, e.path("g"), fileAttr, exclusive)
				e.want(err, store.ErrReadOnly)
			}
			_, err = e.tree.Mkdir(e.ctx, e.path("e"), attr)
			e.want(err, store.ErrReadOnly)
			_, err = e.vol.Root().Mkdir(e.ctx, e.path("dev"), attr)
			e.want(err, store.ErrReadOnly)
			_, err = e.tree.Mknod(e.ctx, e.path("l"), store.Attr{Mode: store.ModeSymlink | 0o777}, "t")
			e.want(err, store.ErrReadOnly)
			e.want(e.tree.Remove(e.ctx, e.path("f")), store.ErrReadOnly)
			e.want(e.tree.Rmdir(e.ctx, e.path("d")), store.ErrReadOnly)
			e.want(e.rename(e.tree, "f", "g", store.Replace), store.ErrReadOnly)
			_, err = e.tree.SetAttr(e.ctx, e.path("f"), store.AttrChange{Mode: new(uint32(0o600))})
			e.want(err, store.ErrReadOnly)
			f := e.openRead(e.tree, "f")
			_, err = f.SetAttr(e.ctx, store.AttrChange{Mode: new(uint32(0o600))})
			e.want(err, store.ErrReadOnly)
			e.close(f)
			e.ok(e.vol.Sync(e.ctx))
			equal(e, "keys", strings.Join(e.keys(""), " "), before)
		}},
	}
}

// conflicts are the promises about lost races: nobody's bytes vanish.
func conflicts() []test {
	return []test{
		{name: "of two writers of one version both contents are kept", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			here, there := e.openFile(e.tree, "f"), e.openFile(e.other(), "f")
			e.write(here, 0, "here")
			e.write(there, 0, "there")
			e.flush(there)
			err := here.Flush(e.ctx)
			e.want(err, store.ErrStale)
			if _, ok := errors.AsType[*store.ConflictError](err); !ok {
				e.t.Errorf("%v does not say where the content is", err)
			}
			e.close(there)
			here.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "there")
			equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), "here")
			e.ok(e.vol.Sync(e.ctx))
			equal(e, "pending", len(e.pending()), 0)
			equal(e, "content", e.get(e.tree, "f"), "there")
		}},
		{name: "a conflict copy has its host in its name and is a file like any other", needs: conditions, run: func(e *env) {
			e.loseRace("notes.txt")
			found := ""
			for _, entry := range e.list(e.tree, "") {
				if isConflictCopy(entry.Name, "notes.txt") {
					found = entry.Name
				}
			}
			if !strings.HasPrefix(found, "notes.txt.conflict-here-") {
				e.t.Fatalf("name of the copy: %q", found)
			}
			equal(e, "content", e.get(e.tree, found), "mine")
			e.remove(e.tree, found)
			equal(e, "names", e.names(e.tree, ""), "notes.txt")
		}},
		{name: "of two creators of one name both contents are kept", needs: conditions, run: func(e *env) {
			here, there := e.create(e.tree, "f"), e.create(e.other(), "f")
			e.write(here, 0, "here")
			e.write(there, 0, "there")
			e.flush(here)
			e.want(there.Flush(e.ctx), store.ErrStale)
			e.close(here)
			there.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "here")
			equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), "there")
		}},
		{name: "two hosts that publish the same bytes do not conflict", needs: conditions, run: func(e *env) {
			attr := fileAttr
			attr.Mtime = when
			for _, tree := range []store.Tree{e.tree, e.other()} {
				f, err := tree.Create(e.ctx, e.path("f"), attr, false)
				e.ok(err)
				e.write(f, 0, "same")
				_, err = f.SetAttr(e.ctx, store.AttrChange{Mtime: &when})
				e.ok(err)
				e.close(f)
			}
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "what was written to a file deleted elsewhere is kept", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "changed")
			e.deleteObject("main/f")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "changed")
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "a conflict at the last close or at a sync keeps both contents", needs: conditions, run: func(e *env) {
			for i, publish := range []func(store.File) error{
				func(f store.File) error { return f.Close(e.ctx) },
				func(f store.File) error { return f.Sync(e.ctx) },
				func(store.File) error { return e.vol.Sync(e.ctx) },
			} {
				name := "f" + itoa(i)
				e.put(e.tree, name, "base")
				f := e.openFile(e.tree, name)
				e.write(f, 0, "mine")
				e.putObject("main/"+name, "theirs")
				e.want(publish(f), store.ErrStale)
				data, _ := e.object("main/" + name)
				equal(e, "object", data, "theirs")
				equal(e, "kept", strings.Join(e.conflictCopies(name), "|"), "mine")
			}
			equal(e, "pending", len(e.pending()), 0)
		}},
		{name: "after a conflict the handle has its content, and never overwrites theirs", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "mine")
			e.putObject("main/f", "theirs")
			e.want(f.Flush(e.ctx), store.ErrStale)
			equal(e, "content", e.content(f), "mine")
			equal(e, "content", e.get(e.tree, "f"), "theirs")
			if _, err := f.WriteAt(e.ctx, []byte("MORE"), 0); err == nil {
				e.want(f.Flush(e.ctx), store.ErrStale)
				equal(e, "the later content is kept", strings.Contains(strings.Join(e.conflictCopies("f"), "|"), "MORE"), true)
			}
			f.Flush(e.ctx)
			f.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
			e.put(e.tree, "f", "next")
			data, _ = e.object("main/f")
			equal(e, "object", data, "next")
		}},
		{name: "a handle on an older version cannot overwrite the newer", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.content(f)
			e.putObject("main/f", "theirs")
			equal(e, "content", e.get(e.tree, "f"), "theirs") // opened anew
			if _, err := f.WriteAt(e.ctx, []byte("mine"), 0); err == nil {
				e.want(f.Flush(e.ctx), store.ErrStale)
				equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), "mine")
			} else {
				e.want(err, store.ErrStale)
			}
			f.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
		}},
		{name: "attributes of an open file never carry its content over a newer one", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "b")
			e.flush(f)
			e.putObject("main/f", "theirs")
			_, err := f.SetAttr(e.ctx, store.AttrChange{Mode: new(uint32(0o600))})
			if err != nil {
				e.want(err, store.ErrStale)
			}
			if _, err := f.WriteAt(e.ctx, []byte("mine"), 0); err == nil {
				e.want(f.Flush(e.ctx), store.ErrStale)
			}
			f.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
		}},
		{name: "a truncating open of a file replaced elsewhere keeps both contents", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{Write: true, Truncate: true})
			e.ok(err)
			e.putObject("main/f", "theirs")
			e.write(f, 0, "mine")
			e.want(f.Flush(e.ctx), store.ErrStale)
			f.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
			equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), "mine")
		}},
		{name: "many losers are all kept", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			want := []string{}
			for i := range 4 {
				f, err := e.other().Open(e.ctx, e.path("f"), store.OpenFlags{Write: true, Truncate: true})
				e.ok(err)
				e.write(f, 0, "loser "+itoa(i))
				want = append(want, "loser "+itoa(i))
				e.putObject("main/f", "winner "+itoa(i))
				e.want(f.Flush(e.ctx), store.ErrStale)
				f.Close(e.ctx)
			}
			equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), strings.Join(want, "|"))
		}},
		{name: "content that lost and cannot be kept beside yet is not given up", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "mine")
			e.putObject("main/f", "theirs")
			e.faults.Add(fault.Rule{Op: "write", Key: "*.conflict-*", Err: backend.ErrNoSpace, Times: fault.Always})
			e.want(f.Flush(e.ctx), backend.ErrNoSpace)
			equal(e, "pending", len(e.pending()), 1)
			equal(e, "content", e.content(f), "mine")
			e.faults.Clear()
			e.want(f.Flush(e.ctx), store.ErrStale)
			f.Close(e.ctx)
			equal(e, "pending", len(e.pending()), 0)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
			equal(e, "kept", strings.Join(e.conflictCopies("f"), "|"), "mine")
		}},
		{name: "with the policy to fail nothing is stored beside", needs: conditions, run: func(e *env) {
			e.opts.Policy = store.Fail
			e.remount()
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "mine")
			e.putObject("main/f", "theirs")
			e.want(f.Flush(e.ctx), store.ErrStale)
			f.Close(e.ctx)
			data, _ := e.object("main/f")
			equal(e, "object", data, "theirs")
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "with the policy to overwrite the last one wins", run: func(e *env) {
			e.opts.Policy = store.Overwrite
			e.remount()
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "mine")
			e.putObject("main/f", "theirs")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "mine")
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "a rename moves what is there, and an open older version follows no more", needs: conditions, run: func(e *env) {
			e.put(e.tree, "f", "base")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "mine")
			e.putObject("main/f", "theirs")
			err := e.rename(e.tree, "f", "g", store.Replace)
			if err != nil {
				e.want(err, store.ErrStale)
			}
			f.Flush(e.ctx)
			f.Close(e.ctx)
			var all strings.Builder
			for _, key := range e.keys("main/") {
				data, _ := e.object(key)
				all.WriteString(data + "|")
			}
			equal(e, "theirs is kept", strings.Contains(all.String(), "theirs"), true)
			equal(e, "mine is kept", strings.Contains(all.String(), "mine"), true)
		}},
	}
}

// loseRace leaves "theirs" at name and "mine" beside it.
func (e *env) loseRace(name string) {
	e.t.Helper()
	e.put(e.tree, name, "base")
	f := e.openFile(e.tree, name)
	_, err := f.SetAttr(e.ctx, store.AttrChange{Size: new(int64(0))})
	e.ok(err)
	e.write(f, 0, "mine")
	e.putObject("main/"+name, "theirs")
	e.want(f.Flush(e.ctx), store.ErrStale)
	f.Close(e.ctx)
}
