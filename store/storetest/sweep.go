package storetest

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// step is one call of a scenario. It changes the files that must be there
// after it, by path.
type step struct {
	name  string
	do    func(e *env, f *store.File) error
	after func(files map[string]string)
}

func scenario() []step {
	return []step{
		{"mkdir", func(e *env, _ *store.File) error {
			_, err := e.tree.Mkdir(e.ctx, e.path("d"), store.Attr{Mode: store.ModeDir | 0o755})
			return err
		}, func(m map[string]string) { m["d/"] = "a directory" }},
		{"create", func(e *env, f *store.File) (err error) {
			*f, err = e.tree.Create(e.ctx, e.path("d/f"), fileAttr, true)
			return err
		}, func(m map[string]string) { m["d/f"] = "" }},
		{"write", func(e *env, f *store.File) error {
			_, err := (*f).WriteAt(e.ctx, []byte("content"), 0)
			return err
		}, func(m map[string]string) {}},
		{"flush", func(e *env, f *store.File) error { return (*f).Flush(e.ctx) }, func(m map[string]string) { m["d/f"] = "content" }},
		{"rename the open file", func(e *env, _ *store.File) error {
			return e.rename(e.tree, "d/f", "d/g", store.Replace)
		}, func(m map[string]string) { m["d/g"] = m["d/f"]; delete(m, "d/f") }},
		{"write again", func(e *env, f *store.File) error {
			_, err := (*f).WriteAt(e.ctx, []byte(", more"), -1)
			return err
		}, func(m map[string]string) {}},
		{"sync", func(e *env, f *store.File) error { return (*f).Sync(e.ctx) }, func(m map[string]string) { m["d/g"] = "content, more" }},
		{"chmod", func(e *env, _ *store.File) error {
			_, err := e.tree.SetAttr(e.ctx, e.path("d/g"), store.AttrChange{Mode: new(uint32(0o600))})
			if !e.raw.Caps().Metadata && errors.Is(err, store.ErrUnsupported) {
				err = nil
			}
			return err
		}, func(m map[string]string) {}},
		{"close", func(e *env, f *store.File) error { return (*f).Close(e.ctx) }, func(m map[string]string) {}},
		{"rename over a file", func(e *env, _ *store.File) error {
			return e.rename(e.tree, "d/g", "kept", store.Replace)
		}, func(m map[string]string) { m["kept"] = m["d/g"]; delete(m, "d/g") }},
		{"rename the directory", func(e *env, _ *store.File) error {
			return e.rename(e.tree, "tree", "d/tree", store.Replace)
		}, func(m map[string]string) {
			m["d/tree/1"], m["d/tree/2"] = m["tree/1"], m["tree/2"]
			delete(m, "tree/1")
			delete(m, "tree/2")
		}},
		{"remove", func(e *env, _ *store.File) error { return e.tree.Remove(e.ctx, e.path("other")) }, func(m map[string]string) { delete(m, "other") }},
	}
}

// sweeps fail the first, the second, the third … request of a scenario.
func sweeps() []test {
	var all []test
	for name, rule := range map[string]fault.Rule{
		"write fails":                   {Op: "write", Err: backend.ErrTransient},
		"answer to a write gets lost":   {Op: "write", Err: backend.ErrTransient, After: true},
		"read fails":                    {Op: "read", Err: backend.ErrTransient},
		"request is refused by the 403": {Err: backend.ErrPermission},
	} {
		all = append(all, test{name: "whichever " + name + ", what was acknowledged is there", memory: true, run: func(e *env) {
			for n, in := range fault.Sweep(rule) {
				e.sweep(n, in)
				if e.t.Failed() {
					return
				}
			}
		}})
	}
	slices.SortFunc(all, func(a, b test) int { return strings.Compare(a.name, b.name) })
	return all
}

// sweep runs the scenario until a step fails, and looks with a fresh volume at
// what it left.
func (e *env) sweep(n int, in *fault.Injector) {
	e.t.Helper()
	for _, key := range e.keys("main/") {
		e.deleteObject(key)
	}
	after := map[string]string{"kept": "to be replaced", "other": "to be removed", "tree/1": "one", "tree/2": "two"}
	for name, content := range after {
		e.putObject("main/"+name, content)
	}
	before := maps.Clone(after)

	failed := ""
	e.faults = in
	if err := e.tryMount(); err != nil {
		failed = "mount"
	} else {
		var f store.File
		for _, s := range scenario() {
			s.after(after)
			if err := s.do(e, &f); err != nil {
				failed = s.name
				if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrStale) {
					e.t.Errorf("request %d, %s: %v", n, s.name, err)
				}
				break
			}
			before = maps.Clone(after)
		}
		// The fault was one: the volume works on, and what is pending gets in.
		_, err := e.tree.Lookup(e.ctx, e.path("kept"))
		if err != nil && failed != "" {
			e.t.Errorf("request %d failed in %q, and then a lookup: %v", n, failed, err)
		}
		e.ok(e.vol.Close(e.ctx))
	}
	e.faults = fault.New()
	e.mount()
	found := map[string]string{}
	e.walk(e.tree, "", found)

	// Each name is as before the step that failed, or as after it; and what
	// is somewhere in both states is somewhere now.
	bad := ""
	for name, content := range found {
		if !has(before, name, content) && !has(after, name, content) {
			bad = name
		}
	}
	for name, content := range before {
		kept := slices.Contains(slices.Collect(maps.Values(after)), content)
		switch {
		case strings.HasSuffix(name, "/"):
			equal(e, "directory "+name, e.lookup(e.tree, strings.TrimSuffix(name, "/")).IsDir(), true)
		case has(after, name, content) && !has(found, name, content):
			bad = name
		case kept && !slices.Contains(slices.Collect(maps.Values(found)), content):
			bad = name
		}
	}
	if bad != "" {
		e.t.Errorf("request %d failed in %q: %s is wrong\nbefore: %q\nafter:  %q\nfound:  %q", n, failed, bad, before, after, found)
	}
	e.ok(e.vol.Close(e.ctx))
}

func has(m map[string]string, name, content string) bool {
	got, ok := m[name]
	return ok && got == content
}

// tryMount is mount where that may fail.
func (e *env) tryMount() error {
	s, err := store.Open(e.ctx, e.faults.Wrap(e.bucket), e.opts) // which will probe
	if err != nil {
		return err
	}
	v := e.open(e.t, s)
	tree, err := v.Branch(e.ctx, "main")
	if err != nil {
		return errors.Join(err, v.Close(e.ctx))
	}
	e.vol, e.tree = v, tree
	return nil
}
