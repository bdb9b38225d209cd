package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// Two mounts write, copy, rename and remove files and directories at random in
// one small tree, at the same time, while each request takes its time. Every
// content that was acknowledged is in the bucket in the end, under whatever
// name, unless somebody removed or replaced it where it was; and both mounts
// see the same tree.
func TestTwoMountsLoseNothingAndAgree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for name, opts := range map[string]Options{"through": {}, "write-back": {WriteBack: true}, "synchronous deletes": {SyncDeletes: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runTwoMounts(t, seed, opts, 700) })
		})
	}
}

// rivals are two mounts of one bucket, and what is known of the contents that
// they write.
type rivals struct {
	t   *testing.T
	raw backend.Backend

	mu      sync.Mutex
	n       int                 // contents so far
	acked   map[string]string   // content: where it was acknowledged
	excused map[string]bool     // contents that somebody removed or replaced, or may have
	history map[string][]string // by key: the contents that it has had
	log     []string            // what was done
}

// rival is one of them.
type rival struct {
	*rivals
	name string
	rnd  *rand.Rand
	lag  *rand.Rand
	opts Options
	c    *Cache
	tree store.Tree
}

func runTwoMounts(t *testing.T, seed uint64, opts Options, steps int) {
	t.Logf("seed %d", seed)
	all := &rivals{
		t: t, raw: mem.New(t.Name(), mem.Options{}),
		acked: map[string]string{}, excused: map[string]bool{}, history: map[string][]string{},
	}
	var both []*rival
	for i := range 2 {
		r := &rival{
			rivals: all, name: fmt.Sprint("host", i+1), opts: opts,
			rnd: rand.New(rand.NewPCG(seed, uint64(i))), lag: rand.New(rand.NewPCG(seed, uint64(i+2))),
		}
		r.opts.Dir = t.TempDir()
		r.open()
		t.Cleanup(func() { r.c.Close(context.Background()) })
		both = append(both, r)
	}
	var wg sync.WaitGroup
	for _, r := range both {
		wg.Go(func() {
			for range steps {
				r.step()
				time.Sleep(time.Duration(r.rnd.IntN(20)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	for _, r := range both {
		r.sync()
	}
	time.Sleep(2 * defaultTTL)
	trees := make([]map[string]string, 2)
	for i, r := range both {
		trees[i] = map[string]string{}
		r.walk("", trees[i])
		ok(t, r.c.Close(t.Context()))
	}
	if !maps.Equal(trees[0], trees[1]) {
		t.Errorf("seed %d: one sees %q, the other %q", seed, trees[0], trees[1])
	}
	found := map[string]bool{}
	for info, err := range backend.ListRecursive(t.Context(), all.raw, "main/") {
		ok(t, err)
		body, _, err := backend.ReadAll(t.Context(), all.raw, info.Key, 1<<20)
		ok(t, err)
		found[string(body)] = true
	}
	acknowledged := 0
	for content, where := range all.acked {
		if acknowledged++; !all.excused[content] && !found[content] {
			t.Errorf("seed %d: %q, which was acknowledged at %s, is lost", seed, content, where)
		}
	}
	if acknowledged < steps/10 {
		t.Errorf("seed %d: only %d contents were acknowledged", seed, acknowledged)
	}
	if t.Failed() {
		t.Log(strings.Join(all.log, "\n"))
	}
}

// open mounts the bucket.
func (r *rival) open() {
	b := backend.Intercept(r.raw, func(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
		r.mu.Lock()
		lag := time.Duration(r.lag.IntN(20)+1) * time.Millisecond
		r.mu.Unlock()
		time.Sleep(lag / 2)
		err := next(ctx)
		r.note(op.Key)
		time.Sleep(lag / 2)
		return err
	})
	s, err := store.Open(context.Background(), b, store.Options{Host: r.name})
	ok(r.t, err)
	r.c, err = Open(context.Background(), s, r.opts)
	ok(r.t, err)
	if _, err := r.c.Root().Mkdir(context.Background(), path(r.t, "main"), store.Attr{Mode: store.ModeDir | 0o755}); err != nil && !errors.Is(err, store.ErrExist) {
		r.t.Fatal(err)
	}
	r.tree, err = r.c.Branch(context.Background(), "main")
	ok(r.t, err)
}

// note takes down what a key has now.
func (r *rivals) note(key string) {
	if !strings.HasPrefix(key, "main/") {
		return
	}
	body, _, err := backend.ReadAll(context.Background(), r.raw, key, 1<<20)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.history[key]; len(h) == 0 || h[len(h)-1] != string(body) {
		r.history[key] = append(h, string(body))
	}
}

// excusing runs something that may take away what has the name p, in this
// mount or, from now until it returns, in the bucket.
func (r *rival) excusing(p string, fn func() error) error {
	key := "main/" + p
	here, _ := r.read(p)
	r.mu.Lock()
	before := max(0, len(r.history[key])-1)
	r.mu.Unlock()
	err := fn()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.excused[here] = true
	for _, content := range r.history[key][min(before, len(r.history[key])):] {
		r.excused[content] = true
	}
	return err
}

func (r *rival) read(p string) (string, error) {
	f, err := r.tree.Open(r.t.Context(), path(r.t, p), store.OpenFlags{})
	if err != nil {
		return "", err
	}
	content, err := r.readAll(f)
	return content, errors.Join(err, f.Close(r.t.Context()))
}

func (r *rival) readAll(f store.File) (string, error) {
	buf := make([]byte, 100)
	n, err := f.ReadAt(r.t.Context(), buf, 0)
	if err == io.EOF {
		err = nil
	}
	return string(buf[:n]), err
}

func (r *rival) dir() string {
	return []string{"", "a/", "b/", "a/b/", "c/", "c/a/"}[r.rnd.IntN(6)]
}
func (r *rival) file() string { return r.dir() + []string{"x", "y", "z"}[r.rnd.IntN(3)] }

// step does something, which may fail as it would on a local disk, or since
// the other was faster.
func (r *rival) step() {
	from, to := r.file(), r.file()
	dir, other := r.dir()+"d", strings.TrimSuffix(r.dir()+"a", "/")
	var what string
	var err error
	switch n := r.rnd.IntN(100); {
	case n < 35:
		what, err = "write "+from, r.write(from)
	case n < 50:
		what, err = "remove "+from, r.remove(from)
	case n < 62:
		what, err = "mv "+from+" "+to, r.excusing(to, func() error {
			return r.tree.Rename(r.t.Context(), path(r.t, from), path(r.t, to), store.Replace)
		})
	case n < 66:
		what, err = "mv -n "+from+" "+to, r.tree.Rename(r.t.Context(), path(r.t, from), path(r.t, to), store.NoReplace)
	case n < 78:
		all := []string{"a", "b", "c", "a/b", "c/a"}
		from, to := all[r.rnd.IntN(5)], all[r.rnd.IntN(5)]
		what, err = "mv "+from+"/ "+to, r.tree.Rename(r.t.Context(), path(r.t, from), path(r.t, to), store.Replace)
	case n < 88:
		_, err = r.tree.Mkdir(r.t.Context(), path(r.t, other), store.Attr{Mode: store.ModeDir | 0o755})
		what = "mkdir " + other
	case n < 92:
		what, err = "rmdir "+other, r.tree.Rmdir(r.t.Context(), path(r.t, other))
	case n < 95:
		what, err = "rm -r "+other, r.removeTree(other)
	case n < 96:
		what = "remount"
		settled(r.t, func() error { return r.c.Close(r.t.Context()) })
		r.open()
	case n < 97:
		what = "sync"
		r.sync()
	default:
		_, err = r.tree.Mkdir(r.t.Context(), path(r.t, dir), store.Attr{Mode: store.ModeDir | 0o755})
		what = "mkdir " + dir
		time.Sleep(time.Duration(r.rnd.IntN(2000)) * time.Millisecond)
	}
	r.mu.Lock()
	r.log = append(r.log, fmt.Sprintf("%s %s %s: %v", time.Now().Format("05.000"), r.name, what, err))
	r.mu.Unlock()
	if err != nil && !errors.Is(err, store.ErrInvalid) && !errors.Is(err, store.ErrStale) {
		if expected(err) != nil {
			r.t.Errorf("%s %s: %v", r.name, what, err)
		}
	}
}

func (r *rival) sync() { settled(r.t, func() error { return r.c.Sync(r.t.Context()) }) }

// settled runs something that tells, once, of each race that was lost.
func settled(t *testing.T, fn func() error) {
	for {
		if err := fn(); !errors.Is(err, store.ErrStale) {
			ok(t, err)
			return
		}
	}
}

// write replaces the content of a file, or makes one. That somebody else was
// faster means that the content is beside.
func (r *rival) write(p string) error {
	ctx := r.t.Context()
	f, err := r.tree.Open(ctx, path(r.t, p), store.OpenFlags{Write: true})
	if errors.Is(err, store.ErrNotExist) {
		err = r.excusing(p, func() (err error) {
			f, err = r.tree.Create(ctx, path(r.t, p), newAttr, r.rnd.IntN(2) == 0)
			return err
		})
	}
	if err != nil {
		return err
	}
	old, err := r.readAll(f)
	r.mu.Lock()
	r.n++
	content := fmt.Sprintf("%d of %s at %s", r.n, r.name, p)
	r.excused[old] = true
	r.mu.Unlock()
	if err == nil {
		var empty int64
		_, err = f.SetAttr(ctx, store.AttrChange{Size: &empty})
	}
	if err == nil {
		_, err = f.WriteAt(ctx, []byte(content), 0)
	}
	time.Sleep(time.Duration(r.rnd.IntN(30)) * time.Millisecond)
	written := err == nil
	if err == nil {
		err = f.Flush(ctx)
	}
	err = errors.Join(err, f.Close(ctx))
	if written && (err == nil || errors.Is(err, store.ErrStale)) {
		r.mu.Lock()
		r.acked[content] = p
		r.mu.Unlock()
	}
	return err
}

func (r *rival) remove(p string) error {
	return r.excusing(p, func() error { return r.tree.Remove(r.t.Context(), path(r.t, p)) })
}

func (r *rival) removeTree(dir string) error {
	for e, err := range r.tree.List(r.t.Context(), path(r.t, dir)) {
		if err != nil {
			return err
		}
		name := dir + "/" + e.Name
		if e.IsDir() {
			err = r.removeTree(name)
		} else {
			err = r.remove(name)
		}
		if err != nil {
			return err
		}
	}
	return r.tree.Rmdir(r.t.Context(), path(r.t, dir))
}

// walk lists all there is, with the contents of files.
func (r *rival) walk(dir string, into map[string]string) {
	r.t.Helper()
	for e, err := range r.tree.List(r.t.Context(), path(r.t, dir)) {
		ok(r.t, err)
		name := strings.TrimPrefix(dir+"/"+e.Name, "/")
		if e.IsDir() {
			into[name] = "a directory"
			r.walk(name, into)
			continue
		}
		content, err := r.read(name)
		ok(r.t, err)
		into[name] = content
	}
}
