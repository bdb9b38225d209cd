package storetest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/keifs/keifs/store"
)

// handles are the promises about open files and when they are published.
func handles() []test {
	return []test{
		{name: "handles of one file share its content at once", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			reader, writer := e.openRead(e.tree, "f"), e.openFile(e.tree, "f")
			equal(e, "content", e.content(reader), "0123456789")
			e.write(writer, 4, "####")
			equal(e, "content", e.content(reader), "0123####89")
			late := e.openRead(e.tree, "f")
			equal(e, "content", e.content(late), "0123####89")
			second := e.openFile(e.tree, "f")
			e.write(second, -1, "end")
			equal(e, "content", e.content(writer), "0123####89end")
			equal(e, "size", e.stat(reader).Size, 13)
			e.flush(writer)
			equal(e, "content", e.content(reader), "0123####89end")
			e.write(second, 0, "S")
			e.close(writer)
			e.close(second)
			equal(e, "content", e.content(reader), "S123####89end")
			e.close(reader)
			e.close(late)
			data, _ := e.object("main/f")
			equal(e, "object", data, "S123####89end")
		}},
		{name: "a handle opened for reading cannot write", run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openRead(e.tree, "f")
			_, err := f.WriteAt(e.ctx, []byte("x"), 0)
			e.want(err, store.ErrReadOnly)
			e.want(f.Punch(e.ctx, 0, 1), store.ErrReadOnly)
			e.close(f)
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "opening what cannot be opened says why", run: func(e *env) {
			e.mkdir(e.tree, "dir")
			e.put(e.tree, "file", "")
			for name, want := range map[string]error{"nothing": store.ErrNotExist, "dir": store.ErrIsDir, "": store.ErrIsDir} {
				_, err := e.tree.Open(e.ctx, e.path(name), store.OpenFlags{})
				e.want(err, want)
				_, err = e.tree.Open(e.ctx, e.path(name), store.OpenFlags{Write: true, Truncate: true})
				e.want(err, want)
			}
			_, err := e.tree.Open(e.ctx, e.path("file/below"), store.OpenFlags{})
			e.wantAbsent(err)
		}},
		{name: "closing the last handle publishes what no flush did", run: func(e *env) {
			f := e.create(e.tree, "f")
			g := e.openFile(e.tree, "f")
			e.write(f, 0, "written")
			e.ok(f.Close(e.ctx))
			e.write(g, 7, " and mapped")
			e.ok(g.Close(e.ctx))
			data, _ := e.object("main/f")
			equal(e, "object", data, "written and mapped")
		}},
		{name: "syncing the volume publishes everything", run: func(e *env) {
			e.mkdir(e.tree, "d")
			var files []store.File
			for i := range 5 {
				f := e.create(e.tree, "d/"+itoa(i))
				e.write(f, 0, "of "+itoa(i))
				files = append(files, f)
			}
			equal(e, "pending", len(e.pending()), 5)
			e.ok(e.vol.Sync(e.ctx))
			equal(e, "pending", len(e.pending()), 0)
			for i, f := range files {
				data, _ := e.object("main/d/" + itoa(i))
				equal(e, "object", data, "of "+itoa(i))
				e.close(f)
			}
		}},
		{name: "closing the volume publishes everything and ends its files", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			old, vol := e.tree, e.vol
			e.remount()
			equal(e, "content", e.get(e.tree, "f"), "content")
			_, err := f.WriteAt(e.ctx, []byte("x"), 0)
			e.want(err, store.ErrClosed)
			_, err = f.ReadAt(e.ctx, make([]byte, 1), 0)
			e.want(err, store.ErrClosed)
			_, err = old.Create(e.ctx, e.path("late"), fileAttr, false)
			e.want(err, store.ErrClosed)
			_, err = old.Lookup(e.ctx, e.path("f"))
			e.want(err, store.ErrClosed)
			e.want(vol.Sync(e.ctx), store.ErrClosed)
			f.Close(e.ctx) // whatever it says, it returns
		}},
		{name: "what is pending is listed", run: func(e *env) {
			equal(e, "pending", len(e.pending()), 0)
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			pending := e.pending()
			if len(pending) != 1 {
				e.t.Fatalf("pending: %+v", pending)
			}
			p := pending[0]
			equal(e, "pending", p.Branch+"/"+p.Path+" "+p.State, "main/f dirty")
			equal(e, "bytes", p.Bytes, 7)
			equal(e, "since when", p.Since.IsZero(), false)
			e.flush(f)
			equal(e, "pending", len(e.pending()), 0)
			e.write(f, 0, "C")
			equal(e, "pending", len(e.pending()), 1)
			e.remove(e.tree, "f")
			equal(e, "pending", len(e.pending()), 0)
			e.close(f)
		}},
		{name: "a flush of an unchanged file sends nothing", run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openFile(e.tree, "f")
			e.content(f)
			e.faults.ResetRequests()
			e.flush(f)
			e.flush(f)
			e.ok(f.Sync(e.ctx))
			e.ok(f.Close(e.ctx))
			equal(e, "requests", len(e.faults.Requests()), 0)
		}},
		{name: "writers and a flusher at once lose nothing", run: func(e *env) {
			f := e.create(e.tree, "f")
			var flushes atomic.Int32
			var wg sync.WaitGroup
			wg.Go(func() {
				for flushes.Add(1) <= 30 {
					if err := f.Flush(e.ctx); err != nil {
						e.t.Error(err)
					}
				}
			})
			for i := range 4 {
				wg.Go(func() {
					for round := 0; round == 0 || flushes.Load() <= 30; round++ {
						for j := range 100 {
							if _, err := f.WriteAt(e.ctx, []byte{byte('a' + i)}, int64(j*4+i)); err != nil {
								e.t.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			e.close(f)
			data, _ := e.object("main/f")
			for j := range 100 {
				if data[j*4:j*4+4] != "abcd" {
					e.t.Fatalf("at %d: %q", j*4, data[j*4:j*4+4])
				}
			}
		}},
		{name: "opening sees what was published a moment ago", run: func(e *env) {
			f := e.create(e.tree, "f")
			for i := range 10 {
				e.write(f, 0, itoa(i))
				e.flush(f)
				g := e.openRead(e.tree, "f")
				equal(e, "content", e.content(g), itoa(i))
				e.close(g)
			}
			e.close(f)
		}},
	}
}

// creates are the promises about new files.
func creates() []test {
	return []test{
		{name: "a created file is visible at once and published at the flush", run: func(e *env) {
			f := e.create(e.tree, "f")
			equal(e, "size", e.lookup(e.tree, "f").Size, 0)
			equal(e, "regular", e.stat(f).IsRegular(), true)
			equal(e, "mode", e.stat(f).Mode, fileAttr.Mode)
			equal(e, "version", e.stat(f).Version, "")
			equal(e, "names", e.names(e.tree, ""), "f")
			e.flush(f)
			e.object("main/f")
			equal(e, "has a version", e.stat(f).Version != "", true)
			e.close(f)
		}},
		{name: "creating over a file truncates it", run: func(e *env) {
			e.put(e.tree, "f", "old content")
			f := e.create(e.tree, "f")
			equal(e, "content", e.content(f), "")
			e.write(f, 0, "new")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "new")
		}},
		{name: "creating over an open file truncates it for its handles", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "unpublished")
			g := e.create(e.tree, "f")
			equal(e, "content", e.content(f), "")
			e.write(g, 0, "new")
			equal(e, "content", e.content(f), "new")
			e.close(f)
			e.close(g)
			data, _ := e.object("main/f")
			equal(e, "object", data, "new")
		}},
		{name: "an exclusive create publishes at once and fails on anything there", run: func(e *env) {
			f, err := e.tree.Create(e.ctx, e.path("f"), fileAttr, true)
			e.ok(err)
			e.object("main/f")
			e.mkdir(e.tree, "dir")
			e.putObject("main/implicit/x", "")
			unpublished := e.create(e.tree, "unpublished")
			for _, name := range []string{"f", "dir", "implicit", "unpublished", ""} {
				_, err := e.tree.Create(e.ctx, e.path(name), fileAttr, true)
				e.want(err, store.ErrExist)
			}
			e.write(f, 0, "content")
			e.close(f)
			e.close(unpublished)
			data, _ := e.object("main/f")
			equal(e, "object", data, "content")
		}},
		{name: "creating where there is no directory says so", run: func(e *env) {
			e.put(e.tree, "file", "")
			e.mkdir(e.tree, "dir")
			unpublished := e.create(e.tree, "unpublished")
			for _, exclusive := range []bool{false, true} {
				for name, want := range map[string]error{
					"nothing/f": store.ErrNotExist, "nothing/d/f": store.ErrNotExist, "file/f": store.ErrNotDir, "unpublished/f": store.ErrNotDir,
				} {
					_, err := e.tree.Create(e.ctx, e.path(name), fileAttr, exclusive)
					e.want(err, want)
				}
			}
			_, err := e.tree.Create(e.ctx, e.path("dir"), fileAttr, false)
			e.want(err, store.ErrIsDir)
			e.close(unpublished)
		}},
		{name: "of twenty exclusive creates in one volume exactly one wins", run: func(e *env) {
			equal(e, "winners", e.race([]store.Tree{e.tree}, 20), 1)
		}},
		{name: "of exclusive creates on two hosts exactly one wins", needs: conditions, run: func(e *env) {
			for range 5 {
				other := e.other()
				equal(e, "winners", e.race([]store.Tree{e.tree, other}, 20), 1)
				e.remove(e.tree, "race")
				e.remount()
			}
		}},
		{name: "a removed name can be created again", run: func(e *env) {
			for i := range 3 {
				f, err := e.tree.Create(e.ctx, e.path("f"), fileAttr, true)
				e.ok(err)
				e.write(f, 0, itoa(i))
				e.close(f)
				equal(e, "content", e.get(e.tree, "f"), itoa(i))
				e.remove(e.tree, "f")
				e.missing(e.tree, "f")
				e.noObject("main/f")
			}
		}},
	}
}

// race lets n goroutines on each tree create one file and counts the winners.
func (e *env) race(trees []store.Tree, n int) int {
	e.t.Helper()
	var winners atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, tree := range trees {
		for range n {
			wg.Go(func() {
				<-start
				f, err := tree.Create(e.ctx, e.path("race"), fileAttr, true)
				switch {
				case err == nil:
					winners.Add(1)
					if err := f.Close(e.ctx); err != nil {
						e.t.Error(err)
					}
				case !errors.Is(err, store.ErrExist):
					e.t.Error(err)
				}
			})
		}
	}
	close(start)
	wg.Wait()
	return int(winners.Load())
}
