package overlay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

// shelf keeps commits in memory.
type shelf struct {
	mu      sync.Mutex
	commits map[string]tree
}

// tree is a commit: objects, sorted.
type tree []overlay.Object

func (s *shelf) Snapshot(_ context.Context, commit string) (overlay.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.commits[commit]; ok {
		return t, nil
	}
	return nil, backend.ErrNotExist
}

func (s *shelf) Resolve(_ context.Context, branch, revision string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.commits[revision]; ok {
		return revision, nil
	}
	return "", backend.ErrNotExist
}

func (t tree) Lookup(_ context.Context, rel string) (overlay.Object, bool, error) {
	i, ok := slices.BinarySearchFunc(t, rel, func(o overlay.Object, rel string) int { return strings.Compare(o.Rel, rel) })
	if !ok {
		return overlay.Object{}, false, nil
	}
	return t[i], true, nil
}

func (t tree) Walk(_ context.Context, prefix, from string) iter.Seq2[overlay.Object, error] {
	return func(yield func(overlay.Object, error) bool) {
		for _, o := range t {
			if strings.HasPrefix(o.Rel, prefix) && o.Rel >= from && !yield(o, nil) {
				return
			}
		}
	}
}

// bench is a bucket in memory, and clients of it.
type bench struct {
	t     *testing.T
	raw   backend.Backend
	shelf *shelf
	in    *fault.Injector
	*overlay.Bucket
	generation int
}

func newBench(t *testing.T, opts mem.Options) *bench {
	b := &bench{t: t, raw: mem.New("", opts), shelf: &shelf{commits: map[string]tree{}}, in: fault.New()}
	b.in.Quiet(overlay.IsRefCheck)
	b.Bucket = b.client()
	return b
}

// client is another host.
func (b *bench) client() *overlay.Bucket {
	return overlay.New(b.in.Wrap(b.raw), overlay.Options{Commits: b.shelf})
}

func (b *bench) put(key, content string) {
	b.t.Helper()
	_, err := b.raw.Put(context.Background(), key, backend.Bytes([]byte(content)), backend.PutOptions{})
	b.ok(err)
}

func (b *bench) ref(branch string, ref map[string]any) {
	b.t.Helper()
	b.generation++
	record := map[string]any{
		"format": 1, "branch": branch, "generation": b.generation, "nonce": fmt.Sprint(b.generation),
		"head": "", "base": "", "time": "2026-11-20T10:00:00Z", "host": "h",
	}
	maps.Copy(record, ref)
	data, err := json.Marshal(record)
	b.ok(err)
	b.put(".kei/branches/"+branch+".json", string(data))
}

// commit lists a branch as who commits does.
func (b *bench) commit(branch, id string) {
	b.t.Helper()
	var t tree
	for o, err := range b.client().Walk(context.Background(), branch, "") {
		b.ok(err)
		t = append(t, o)
	}
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	b.shelf.commits[id] = t
}

// id is the id of a commit with a name.
func id(name string) string { return strings.Repeat("0", 64-len(name)) + name }

// fork makes main of files, a commit of it, and dev from that.
func fork(t *testing.T, opts mem.Options, files ...string) *bench {
	b := newBench(t, opts)
	for _, f := range files {
		b.put("main/"+f, "main's "+f)
	}
	b.commit("main", id("c"))
	b.ref("main", map[string]any{"head": id("c")})
	b.ref("dev", map[string]any{"head": id("c"), "base": id("c")})
	return b
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) write(c backend.Backend, key, content string, cond backend.Cond) error {
	_, err := c.Put(context.Background(), key, backend.Bytes([]byte(content)), backend.PutOptions{Cond: cond})
	return err
}

// read is a whole object; an error as text.
func read(c backend.Backend, key string) string {
	var content bytes.Buffer
	err := c.Get(context.Background(), key, backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
		content.Reset()
		_, err := io.Copy(&content, body)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return content.String()
}

// keys is what a client sees below a prefix.
func keys(t *testing.T, c backend.Backend, prefix string) string {
	t.Helper()
	var all []string
	for info, err := range backend.ListRecursive(context.Background(), c, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.TrimPrefix(info.Key, prefix))
	}
	return strings.Join(all, " ")
}

// cost checks the requests of fn, in their order.
func (b *bench) cost(what string, fn func() error, want ...string) {
	b.t.Helper()
	b.in.ResetRequests()
	b.ok(fn())
	if got := b.in.Requests(); !slices.Equal(got, want) {
		b.t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}
