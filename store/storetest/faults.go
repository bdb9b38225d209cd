package storetest

import (
	"context"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// faults are the promises about bad days: the right error, nothing that was
// acknowledged lost, and success once the fault is over.
func faults() []test {
	return append(sweeps(), []test{
		{name: "reading reports what the bucket says, and works again later", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			for _, want := range []error{backend.ErrPermission, backend.ErrThrottled, backend.ErrTransient, backend.ErrNoBucket, backend.ErrIO} {
				e.remount() // nothing is remembered
				f := e.openRead(e.tree, "f")
				e.faults.Add(fault.Rule{Op: "get", Err: want, Times: fault.Always})
				_, err := f.ReadAt(e.ctx, make([]byte, 10), 0)
				e.want(err, want)
				e.faults.Clear()
				equal(e, "content", e.content(f), "0123456789")
				e.close(f)
			}
		}},
		{name: "a body cut in the middle is an error, never a short file", run: func(e *env) {
			e.put(e.tree, "f", strings.Repeat("0123456789", 1000))
			for _, write := range []bool{false, true} {
				e.remount()
				f := e.openFile(e.tree, "f")
				e.faults.Add(fault.Rule{Op: "get", Key: "main/f", Cut: true, CutAfter: 5000, Times: fault.Always})
				if write {
					n, err := f.WriteAt(e.ctx, []byte("x"), 9999)
					if err == nil { // it needs the content later only
						equal(e, "written", n, 1)
						_, err = f.ReadAt(e.ctx, make([]byte, 10_000), 0)
					}
					e.want(err, backend.ErrTransient)
				} else {
					_, err := f.ReadAt(e.ctx, make([]byte, 10_000), 0)
					e.want(err, backend.ErrTransient)
				}
				e.faults.Clear()
				equal(e, "size", len(e.content(f)), 10_000)
				e.close(f)
				data, _ := e.object("main/f")
				equal(e, "size", len(data), 10_000)
			}
		}},
		{name: "a lookup that fails is not an absent file", run: func(e *env) {
			e.put(e.tree, "f", "x")
			e.mkdir(e.tree, "d")
			for _, want := range []error{backend.ErrPermission, backend.ErrTransient} {
				e.remount()
				e.faults.Add(fault.Rule{Op: "stat", Err: want, Times: fault.Always}, fault.Rule{Op: "list", Err: want, Times: fault.Always})
				for _, name := range []string{"f", "d", "nothing"} {
					_, err := e.tree.Lookup(e.ctx, e.path(name))
					e.want(err, want)
				}
				_, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{})
				e.want(err, want)
				_, err = e.tree.Create(e.ctx, e.path("f"), fileAttr, true)
				e.want(err, want)
				_, err = e.vol.Branch(e.ctx, "dev")
				e.want(err, want)
				e.want(e.listErr(e.tree, ""), want)
				e.want(e.tree.Rmdir(e.ctx, e.path("d")), want)
				e.faults.Clear()
				equal(e, "size", e.lookup(e.tree, "f").Size, 1)
				equal(e, "names", e.names(e.tree, ""), "d/ f")
				e.missing(e.tree, "nothing")
			}
		}},
		{name: "a listing that fails half-way ends with the error", run: func(e *env) {
			for i := range 30 {
				e.putObject("main/d/f"+itoa(i), "")
			}
			least := 0 // pages that the bucket needs for them
			for page := (backend.Page{Next: "more"}); page.Next != ""; least++ {
				opts := backend.ListOptions{Prefix: "main/d/"}
				if least > 0 {
					opts.Token = page.Next
				}
				var err error
				page, err = e.raw.ListPage(e.ctx, opts)
				e.ok(err)
			}
			e.faults.ResetRequests()
			equal(e, "entries", len(e.list(e.tree, "d")), 30)
			pages := e.faults.Count("list")
			equal(e, "enough pages", pages >= least, true)
			for n := 1; n <= pages; n++ {
				e.remount()
				e.faults.Add(fault.Rule{Op: "list", From: n, Times: fault.Always, Err: backend.ErrTransient})
				names := 0
				var err error
				for _, err = range e.tree.List(e.ctx, e.path("d")) {
					if err == nil {
						names++
					}
				}
				if n <= least || err != nil {
					e.want(err, backend.ErrTransient)
				} else { // it did not need that one
					equal(e, "entries", names, 30)
				}
				e.faults.Clear()
				equal(e, "entries", len(e.list(e.tree, "d")), 30)
			}
		}},
		{name: "a bucket that turns read-only loses no bytes", prompt: true, run: func(e *env) {
			for _, want := range []error{backend.ErrPermission, backend.ErrTransient, backend.ErrNoSpace} {
				e.put(e.tree, "old", "old")
				f, g := e.create(e.tree, "new"), e.openFile(e.tree, "old")
				e.write(f, 0, "content")
				e.write(g, 0, "NEW")
				e.faults.Add(fault.Rule{Op: "write", Err: want, Times: fault.Always})
				e.want(f.Flush(e.ctx), want)
				e.want(g.Sync(e.ctx), want)
				e.want(e.vol.Sync(e.ctx), want)
				states := []string{}
				for _, p := range e.pending() {
					states = append(states, p.Path+" "+p.State)
					equal(e, "says why", p.Err != "", true)
				}
				equal(e, "pending", strings.Join(states, ", "), "new failed, old failed")
				equal(e, "content", e.get0(e.tree, "new"), "content")
				e.write(f, -1, ", more")
				e.want(f.Flush(e.ctx), want)
				equal(e, "content", e.content(f), "content, more")
				e.want(e.tree.Remove(e.ctx, e.path("old")), want)
				_, err := e.tree.Mkdir(e.ctx, e.path("d"), store.Attr{Mode: store.ModeDir | 0o755})
				e.want(err, want)
				e.faults.Clear()
				e.close(f)
				e.close(g)
				data, _ := e.object("main/new")
				equal(e, "object", data, "content, more")
				data, _ = e.object("main/old")
				equal(e, "object", data, "NEW")
				equal(e, "pending", len(e.pending()), 0)
				e.remove(e.tree, "new")
				e.remove(e.tree, "old")
			}
		}},
		{name: "what the last close could not publish is tried again", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			e.faults.Add(fault.Rule{Op: "write", Err: backend.ErrTransient, Times: fault.Always})
			e.want(f.Flush(e.ctx), backend.ErrTransient)
			e.want(f.Close(e.ctx), backend.ErrTransient)
			equal(e, "pending", len(e.pending()), 1)
			equal(e, "size", e.lookup(e.tree, "f").Size, 7)
			equal(e, "names", e.names(e.tree, ""), "f")
			g := e.openRead(e.tree, "f")
			equal(e, "content", e.content(g), "content")
			g.Close(e.ctx)
			e.want(e.vol.Sync(e.ctx), backend.ErrTransient)
			e.faults.Clear()
			e.ok(e.vol.Sync(e.ctx))
			data, _ := e.object("main/f")
			equal(e, "object", data, "content")
			equal(e, "pending", len(e.pending()), 0)
			e.remount()
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "an answer that got lost makes no conflict", run: func(e *env) {
			e.put(e.tree, "old", "old")
			f, g := e.create(e.tree, "new"), e.openFile(e.tree, "old")
			e.write(f, 0, "content")
			e.write(g, 0, "NEW")
			for name, f := range map[string]store.File{"new": f, "old": g} {
				e.faults.Add(fault.Rule{Op: "write", Key: "main/" + name, Err: backend.ErrTransient, After: true})
				e.want(f.Flush(e.ctx), backend.ErrTransient)
				e.faults.Clear()
				e.close(f)
				equal(e, "conflicts", len(e.conflictCopies(name)), 0)
			}
			equal(e, "content", e.get(e.tree, "new"), "content")
			equal(e, "content", e.get(e.tree, "old"), "NEW")
		}},
		{name: "a file whose publication got no answer is removed all the same", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			e.faults.Add(fault.Rule{Op: "write", Key: "main/f", Err: backend.ErrTransient, After: true})
			e.want(f.Flush(e.ctx), backend.ErrTransient)
			e.faults.Clear()
			e.remove(e.tree, "f")
			e.close(f)
			e.missing(e.tree, "f")
			e.noObject("main/f")
		}},
		{name: "an open file goes on after a rename that failed, wherever it is then", run: func(e *env) {
			for _, after := range []bool{false, true} {
				for n := 1; n < 20; n++ {
					e.put(e.tree, "f", "content")
					f := e.openFile(e.tree, "f")
					e.faults.Add(fault.Rule{Op: "write", Key: "main/*", From: n, Err: backend.ErrTransient, After: after})
					err := e.rename(e.tree, "f", "g", store.Replace)
					e.faults.Clear()
					equal(e, "content", e.content(f), "content")
					e.write(f, -1, ", more")
					e.close(f)
					equal(e, "conflicts", len(e.conflictCopies("f"))+len(e.conflictCopies("g")), 0)
					e.remount()
					found := map[string]string{}
					e.walk(e.tree, "", found)
					if found["f"] != "content, more" && found["g"] != "content, more" {
						e.t.Errorf("write %d failed, after it happened: %v; there is %q", n, after, found)
					}
					for name := range found {
						e.remove(e.tree, name)
					}
					if err == nil {
						break
					}
				}
			}
		}},
		{name: "a remove that failed leaves the file, open or not", prompt: true, run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.put(e.tree, "g", "content")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "C")
			e.faults.Add(fault.Rule{Op: "write", Err: backend.ErrPermission, Times: fault.Always})
			e.want(e.tree.Remove(e.ctx, e.path("f")), backend.ErrPermission)
			e.want(e.tree.Remove(e.ctx, e.path("g")), backend.ErrPermission)
			e.faults.Clear()
			equal(e, "content", e.content(f), "Content")
			e.close(f)
			equal(e, "content", e.get(e.tree, "f"), "Content")
			equal(e, "content", e.get(e.tree, "g"), "content")
			e.remove(e.tree, "f")
			e.remove(e.tree, "g")
			equal(e, "names", e.names(e.tree, ""), "")
		}},
		{name: "attributes that could not be stored are not shown", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			mode := e.lookup(e.tree, "f").Mode
			e.faults.Add(fault.Rule{Op: "write", Err: backend.ErrPermission, Times: fault.Always})
			_, err := e.tree.SetAttr(e.ctx, e.path("f"), store.AttrChange{Mode: new(uint32(0o600))})
			e.want(err, backend.ErrPermission)
			e.faults.Clear()
			equal(e, "mode", e.lookup(e.tree, "f").Mode, mode)
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "an exclusive create that failed can be tried again", run: func(e *env) {
			e.faults.Add(fault.Rule{Op: "put", Key: "main/f", Err: backend.ErrPermission, Times: fault.Always})
			_, err := e.tree.Create(e.ctx, e.path("f"), fileAttr, true)
			e.want(err, backend.ErrPermission)
			e.missing(e.tree, "f")
			equal(e, "pending", len(e.pending()), 0)
			e.faults.Clear()
			f, err := e.tree.Create(e.ctx, e.path("f"), fileAttr, true)
			e.ok(err)
			e.close(f)
		}},
		{name: "a volume closed while the bucket is away says what it could not publish", run: func(e *env) {
			f := e.create(e.tree, "unsaved.txt")
			e.write(f, 0, "content")
			e.faults.Add(fault.Rule{Op: "write", Err: backend.ErrUnreachable, Times: fault.Always})
			err := e.vol.Close(e.ctx)
			e.want(err, backend.ErrUnreachable)
			equal(e, "names the file", err != nil && strings.Contains(err.Error(), "unsaved.txt"), true)
		}},
		{name: "waiting for the bucket ends with the context", run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.remount()
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "CONTENT")
			e.mkdir(e.tree, "probed")
			ctx, cancel := context.WithCancel(e.ctx)
			release := make(chan struct{})
			hang := func(ctx context.Context, _ *backend.Op) error {
				cancel() // now that the request is on its way
				select {
				case <-ctx.Done():
				case <-release:
				}
				return context.Canceled
			}
			e.faults.Add(fault.Rule{Do: hang, Times: fault.Always})
			e.want(f.Flush(ctx), context.Canceled)
			_, err := e.tree.Open(ctx, e.path("g"), store.OpenFlags{})
			e.want(err, context.Canceled)
			_, err = e.tree.Mkdir(ctx, e.path("d"), store.Attr{Mode: store.ModeDir | 0o755})
			e.want(err, context.Canceled)
			e.faults.Clear()
			close(release)
			equal(e, "pending", len(e.pending()), 1)
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "CONTENT")
		}},
	}...)
}

// get0 reads a file by name without a flush.
func (e *env) get0(tree store.Tree, name string) string {
	e.t.Helper()
	f := e.openRead(tree, name)
	defer f.Close(e.ctx)
	return e.content(f)
}
