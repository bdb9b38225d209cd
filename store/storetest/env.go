package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store"
)

// env is a bucket with one volume on it, and what a test does with them. Its
// methods fail the test where something does not work.
type env struct {
	t      *testing.T
	ctx    context.Context
	open   Open
	raw    backend.Backend // the bucket, as another S3 tool sees it: where the branch has a base, with that
	bucket backend.Backend // below the volumes
	based  *based          // nil where main has no base
	faults *fault.Injector // between every volume and the bucket
	opts   store.Options   // of the next volume
	probed *atomic.Pointer[backend.Caps]

	settle func(store.Volume) error // see RunLazy; nil where nothing waits
	vols   []store.Volume

	store *store.Store // of the volume opened last
	vol   store.Volume
	tree  store.Tree // branch main of vol
}

// newEnv makes the branch main and opens a volume on it.
func newEnv(t *testing.T, open Open, settle func(store.Volume) error, b bucket) *env {
	raw := b.make(t)
	e := &env{t: t, ctx: context.WithoutCancel(t.Context()), open: open, settle: settle, raw: raw, bucket: raw, faults: fault.New(), probed: b.probed}
	if e.probed == nil {
		e.probed = new(atomic.Pointer[backend.Caps])
	}
	e.opts.Host, e.opts.Attrs = "here", b.attrs
	if b.base {
		b, err := newBased(e.ctx, raw)
		e.ok(err)
		e.based, e.raw, e.opts.Commits = b, b.merged, b
	}
	e.opts.Probed = func(c backend.Caps) { e.probed.Store(&c) }
	e.mount()
	return e
}

// mount opens the volume of the test anew.
func (e *env) mount() {
	e.t.Helper()
	e.vol = e.volume()
	e.tree = e.branch(e.vol, "main")
}

// remount closes the volume and opens the next, which knows nothing of it.
func (e *env) remount() {
	e.t.Helper()
	e.ok(e.vol.Close(e.ctx))
	e.sink()
	e.mount()
}

// sink makes what the branch has a part of its base, if it has one. Nothing
// else may be at work on the bucket.
func (e *env) sink() {
	e.t.Helper()
	if e.based != nil {
		e.ok(e.based.sink(e.ctx))
	}
}

// volume opens another volume on the bucket: another host.
func (e *env) volume() store.Volume {
	e.t.Helper()
	opts := e.opts
	opts.Caps = e.probed.Load() // as a mount remembers it
	s, err := store.Open(e.ctx, e.faults.Wrap(e.bucket), opts)
	e.ok(err)
	e.store = s
	v := e.open(e.t, s)
	e.t.Cleanup(func() { v.Close(e.ctx) })
	e.vols = append(e.vols, v)
	return v
}

// settled lets the bucket have the removals that wait, before somebody looks
// at it or changes it by other means.
func (e *env) settled() {
	e.t.Helper()
	if e.settle == nil {
		return
	}
	for _, v := range e.vols {
		if err := e.settle(v); !errors.Is(err, store.ErrClosed) {
			e.ok(err)
		}
	}
}

// pending is what the volume has and the bucket does not.
func (e *env) pending() []store.Pending {
	e.t.Helper()
	e.settled()
	return e.vol.Pending()
}

// branch returns the tree of a branch, which is made if need be.
func (e *env) branch(v store.Volume, name string) store.Tree {
	e.t.Helper()
	tree, err := v.Branch(e.ctx, name)
	if errors.Is(err, store.ErrNotExist) && !e.opts.ReadOnly {
		_, err = v.Root().Mkdir(e.ctx, e.path(name), store.Attr{Mode: store.ModeDir | 0o755})
		e.ok(err)
		tree, err = v.Branch(e.ctx, name)
	}
	e.ok(err)
	return tree
}

// other is the branch main in another volume on the bucket.
func (e *env) other() store.Tree {
	e.t.Helper()
	return e.branch(e.volume(), "main")
}

func (e *env) ok(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// want checks for an error, nil for success.
func (e *env) want(err, want error) {
	e.t.Helper()
	if !errors.Is(err, want) {
		e.t.Errorf("error: %v; want: %v", err, want)
	}
}

// wantAbsent checks for the error of a path below a file, where a volume may
// save the request that tells why there is nothing.
func (e *env) wantAbsent(err error) {
	e.t.Helper()
	if !errors.Is(err, store.ErrNotExist) && !errors.Is(err, store.ErrNotDir) {
		e.t.Errorf("error: %v; want: %v or %v", err, store.ErrNotExist, store.ErrNotDir)
	}
}

func equal[T comparable](e *env, what string, got, want T) {
	e.t.Helper()
	if got != want {
		e.t.Errorf("%s: got %s; want %s", what, show(got), show(want))
	}
}

func show(v any) string {
	s := fmt.Sprintf("%#v", v)
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return s
}

func (e *env) path(s string) store.Path {
	e.t.Helper()
	p, err := store.ParsePath(s)
	e.ok(err)
	return p
}

var fileAttr = store.Attr{Mode: store.ModeRegular | 0o644}

// create makes a file and leaves it open.
func (e *env) create(tree store.Tree, name string) store.File {
	e.t.Helper()
	f, err := tree.Create(e.ctx, e.path(name), fileAttr, false)
	e.ok(err)
	return f
}

// openFile opens a file, for writing too.
func (e *env) openFile(tree store.Tree, name string) store.File {
	e.t.Helper()
	f, err := tree.Open(e.ctx, e.path(name), store.OpenFlags{Write: true})
	e.ok(err)
	return f
}

// openRead opens a file for reading only.
func (e *env) openRead(tree store.Tree, name string) store.File {
	e.t.Helper()
	f, err := tree.Open(e.ctx, e.path(name), store.OpenFlags{})
	e.ok(err)
	return f
}

// write writes at an offset, below 0 at the end.
func (e *env) write(f store.File, off int64, s string) {
	e.t.Helper()
	n, err := f.WriteAt(e.ctx, []byte(s), off)
	e.ok(err)
	equal(e, "bytes written", n, len(s))
}

func (e *env) flush(f store.File) {
	e.t.Helper()
	e.ok(f.Flush(e.ctx))
}

// close is what close(2) does with the last descriptor.
func (e *env) close(f store.File) {
	e.t.Helper()
	e.ok(f.Flush(e.ctx))
	e.ok(f.Close(e.ctx))
}

// put makes a file with that content, or replaces its content.
func (e *env) put(tree store.Tree, name, content string) {
	e.t.Helper()
	f := e.create(tree, name)
	e.write(f, 0, content)
	e.close(f)
	e.sink()
}

func (e *env) mkdir(tree store.Tree, name string) {
	e.t.Helper()
	_, err := tree.Mkdir(e.ctx, e.path(name), store.Attr{Mode: store.ModeDir | 0o755})
	e.ok(err)
	e.sink()
}

// readAll reads a handle from its start to its end.
func readAll(ctx context.Context, f store.File) (string, error) {
	var all []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := f.ReadAt(ctx, buf, int64(len(all)))
		all = append(all, buf[:n]...)
		if err == io.EOF && n == 0 {
			return string(all), nil
		}
		if err != nil {
			return string(all), err
		}
		if n == 0 {
			return string(all), io.ErrNoProgress
		}
	}
}

func (e *env) content(f store.File) string {
	e.t.Helper()
	s, err := readAll(e.ctx, f)
	e.ok(err)
	return s
}

// get reads a whole file by name.
func (e *env) get(tree store.Tree, name string) string {
	e.t.Helper()
	f := e.openRead(tree, name)
	s := e.content(f)
	e.close(f)
	return s
}

func (e *env) lookup(tree store.Tree, name string) store.Entry {
	e.t.Helper()
	entry, err := tree.Lookup(e.ctx, e.path(name))
	e.ok(err)
	return entry
}

func (e *env) stat(f store.File) store.Entry {
	e.t.Helper()
	entry, err := f.Stat(e.ctx)
	e.ok(err)
	return entry
}

// missing checks that a name is not there.
func (e *env) missing(tree store.Tree, name string) {
	e.t.Helper()
	_, err := tree.Lookup(e.ctx, e.path(name))
	e.want(err, store.ErrNotExist)
}

// list is the entries of a directory.
func (e *env) list(tree store.Tree, dir string) []store.Entry {
	e.t.Helper()
	var entries []store.Entry
	for entry, err := range tree.List(e.ctx, e.path(dir)) {
		e.ok(err)
		entries = append(entries, entry)
	}
	return entries
}

// names is a directory's names, those of directories with a slash.
func (e *env) names(tree store.Tree, dir string) string {
	e.t.Helper()
	var names []string
	for _, entry := range e.list(tree, dir) {
		if entry.IsDir() {
			entry.Name += "/"
		}
		names = append(names, entry.Name)
	}
	return strings.Join(names, " ")
}

func (e *env) listErr(tree store.Tree, dir string) error {
	for _, err := range tree.List(e.ctx, e.path(dir)) {
		if err != nil {
			return err
		}
	}
	return nil
}

// object reads an object of the bucket itself.
func (e *env) object(key string) (string, backend.Info) {
	e.t.Helper()
	e.settled()
	data, info, err := backend.ReadAll(e.ctx, e.raw, key, 1<<30)
	e.ok(err)
	return string(data), info
}

// putObject is what another S3 tool does.
func (e *env) putObject(key, content string) {
	e.t.Helper()
	e.settled()
	_, err := e.raw.Put(e.ctx, key, backend.Bytes([]byte(content)), backend.PutOptions{})
	e.ok(err)
	e.sink()
}

func (e *env) deleteObject(key string) {
	e.t.Helper()
	e.settled()
	e.ok(e.raw.Delete(e.ctx, key, backend.Cond{}))
}

// noObject checks that the bucket has no such object.
func (e *env) noObject(key string) {
	e.t.Helper()
	e.settled()
	there, err := backend.Exists(e.ctx, e.raw, key)
	e.ok(err)
	equal(e, "object "+key+" exists", there, false)
}

// keys is every key of the bucket with that prefix.
func (e *env) keys(prefix string) []string {
	e.t.Helper()
	e.settled()
	var keys []string
	for info, err := range backend.ListRecursive(e.ctx, e.raw, prefix) {
		e.ok(err)
		keys = append(keys, info.Key)
	}
	return keys
}

// conflictCopies is the contents of what lost at path.
func (e *env) conflictCopies(path string) []string {
	e.t.Helper()
	var contents []string
	for _, key := range e.keys("main/") {
		if isConflictCopy(key, "main/"+path) {
			s, _ := e.object(key)
			contents = append(contents, s)
		}
	}
	slices.Sort(contents)
	return contents
}

func (e *env) rename(tree store.Tree, from, to string, mode store.RenameMode) error {
	e.t.Helper()
	return tree.Rename(e.ctx, e.path(from), e.path(to), mode)
}

func (e *env) remove(tree store.Tree, name string) {
	e.t.Helper()
	e.ok(tree.Remove(e.ctx, e.path(name)))
}

//go:fix inline
