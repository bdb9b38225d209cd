package commit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

type reader = io.Reader

// seq yields the items, without an error.
func seq[T any](items []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}

// small makes ranges of a few entries.
var small = Options{MinEntries: 8, MaxEntries: 90, CutBits: 5}

func entry(path string, version int) Entry {
	e := Entry{
		Path: path, Key: "main/" + path, ETag: fmt.Sprintf("e%d", version), Size: int64(version),
		Mode: 0o100644, Mtime: 5e9 + int64(version), Modified: 6e9,
	}
	if strings.HasSuffix(path, "/") {
		e.Mode, e.Size = 0o40755, 0
	}
	return e
}

// model is a tree as a map.
type model map[string]Entry

func (m model) sorted() []Entry {
	var list []Entry
	for _, path := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[path])
	}
	return list
}

func write(t *testing.T, r *Repo, m model, known ...*Manifest) *Manifest {
	t.Helper()
	w := r.Writer(t.Context(), known...)
	defer w.Abort()
	for _, e := range m.sorted() {
		if err := w.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	ranges, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return manifest(t, r, ranges)
}

func manifest(t *testing.T, r *Repo, ranges []Range) *Manifest {
	t.Helper()
	m := &Manifest{Branch: "main", Message: "m"}
	m.SetRanges(ranges)
	if err := r.PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	read, err := r.Manifest(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func randomPath(rnd *rand.Rand) string {
	path := fmt.Sprintf("d%d/f%03d", rnd.IntN(9), rnd.IntN(300))
	switch rnd.IntN(12) {
	case 0:
		return path[:3] // the marker
	case 1:
		return fmt.Sprintf("d%d/sub/é%d", rnd.IntN(9), rnd.IntN(50))
	case 2:
		return fmt.Sprintf("d%d", rnd.IntN(9)) // an object beside its directory
	}
	return path
}

func collect[T any](t *testing.T, items iter.Seq2[T, error]) []T {
	t.Helper()
	var list []T
	for it, err := range items {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, it)
	}
	return list
}

func TestEditedTreesAreThoseThatWouldBeWrittenAnew(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r := New(mem.New("t", mem.Options{}), small)
	was := model{}
	for i := range 600 {
		e := entry(randomPath(rnd), i)
		was[e.Path] = e
	}
	parent := write(t, r, was)
	for round := range 25 {
		now := maps.Clone(was)
		edits := map[string]Edit{}
		for range rnd.IntN(12) {
			path := randomPath(rnd)
			if rnd.IntN(3) == 0 {
				delete(now, path)
				edits[path] = Edit{Path: path}
				continue
			}
			e := entry(path, 1000+round)
			now[path], edits[path] = e, Edit{Path: path, Entry: &e}
		}
		var list []Edit
		for _, path := range slices.Sorted(maps.Keys(edits)) {
			list = append(list, edits[path])
		}
		ranges, err := r.Edit(t.Context(), parent, seq(list))
		if err != nil {
			t.Fatal(err)
		}
		anew := write(t, New(r.b, small), now)
		if !slices.Equal(ranges, anew.Ranges) {
			t.Fatalf("round %d: edited %v, anew %v", round, ranges, anew.Ranges)
		}
		var want []Change
		for _, path := range slices.Sorted(maps.Keys(union(was, now))) {
			before, had := was[path]
			after, has := now[path]
			if had != has || !before.Same(&after) {
				want = append(want, Change{Path: path})
			}
		}
		got := collect(t, Diff(t.Context(), r.Tree(parent), r.Tree(anew)))
		if len(got) != len(want) {
			t.Fatalf("round %d: %d changes, want %d", round, len(got), len(want))
		}
		for i, c := range got {
			_, had := was[c.Path]
			_, has := now[c.Path]
			if c.Path != want[i].Path || (c.Old != nil) != had || (c.New != nil) != has {
				t.Fatalf("round %d: change %+v, want %s", round, c, want[i].Path)
			}
		}
		was, parent = now, anew
	}
}

func union(a, b model) model {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

func TestTreeAnswersAsTheEntriesDo(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	r := New(mem.New("t", mem.Options{}), small)
	m := model{}
	for i := range 500 {
		e := entry(randomPath(rnd), i)
		m[e.Path] = e
	}
	written := write(t, r, m)
	for _, cacheBytes := range []int64{1, 1 << 20} {
		o := small
		o.CacheBytes = cacheBytes
		tree := New(r.b, o).Tree(written)
		if got := collect(t, tree.Walk(t.Context(), "", "")); !slices.Equal(got, m.sorted()) {
			t.Fatal("walk differs")
		}
		for range 200 {
			path := randomPath(rnd)
			e, found, err := tree.Lookup(t.Context(), path)
			if want, has := m[path]; err != nil || found != has || e != want {
				t.Fatalf("lookup %q: %v %v %v, want %v", path, e, found, err, want)
			}
		}
		for d := range 9 {
			listing(t, tree, m, fmt.Sprintf("d%d/", d))
		}
		listing(t, tree, m, "")
		listing(t, tree, m, "d1/sub/")
		listing(t, tree, m, "none/")
		if has, err := tree.HasPrefix(t.Context(), "none/"); has || err != nil {
			t.Error(has, err)
		}
	}
}

// listing compares a directory with the model, in one go and in pages.
func listing(t *testing.T, tree *Tree, m model, dir string) {
	t.Helper()
	var want []string
	for _, e := range m.sorted() {
		rest, below := strings.CutPrefix(e.Path, dir)
		if !below || rest == "" {
			continue
		}
		if name, _, sub := strings.Cut(rest, "/"); sub {
			rest = name + "/"
		}
		if len(want) == 0 || want[len(want)-1] != rest {
			want = append(want, rest)
		}
	}
	var got, paged []string
	for c, err := range tree.List(t.Context(), dir, "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Position())
		if e, has := m[dir+c.Position()]; (c.Entry != nil) != has || has && *c.Entry != e {
			t.Fatalf("%s%s: %v", dir, c.Position(), c.Entry)
		}
	}
	after := ""
	for more := true; more; {
		more = false
		for c, err := range tree.List(t.Context(), dir, after) {
			if err != nil {
				t.Fatal(err)
			}
			after, more = c.Position(), true
			paged = append(paged, after)
			break
		}
	}
	if !slices.Equal(got, want) || !slices.Equal(paged, want) {
		t.Fatalf("list %q:\n got  %v\n page %v\n want %v", dir, got, paged, want)
	}
}

func TestAFewChangesCostAFewRequests(t *testing.T) {
	t.Parallel()
	const n = 20_000
	ctx := t.Context()
	store := &counting{Backend: mem.New("t", mem.Options{})}
	// As a million entries by the default: ranges are a fifth or so of all.
	opts := Options{MinEntries: MinRange / 50, MaxEntries: MaxRange / 50, CutBits: cutBits - 5}
	w := New(store, opts).Writer(ctx)
	for i := range n {
		if err := w.Add(big(i, "")); err != nil {
			t.Fatal(err)
		}
	}
	ranges, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	a, b := &Manifest{Branch: "main"}, &Manifest{Branch: "main"}
	a.SetRanges(ranges)
	store.puts.Store(0)
	ranges, err = New(store, opts).Edit(ctx, a, seq(scattered(n, 10)))
	if err != nil {
		t.Fatal(err)
	}
	b.SetRanges(ranges)
	if puts := store.puts.Load() + 3; puts > 12 { // manifest, log, ref
		t.Errorf("10 changes upload %d objects, promised are 12", puts)
	}
	store.gets.Store(0)
	fresh := New(store, opts)
	if got := collect(t, Diff(ctx, fresh.Tree(a), fresh.Tree(b))); len(got) != 10 {
		t.Errorf("%d changes", len(got))
	}
	if gets := store.gets.Load(); gets > 12 {
		t.Errorf("a diff of 10 changes reads %d ranges, promised are 12", gets)
	}
	// What the same entries make is not written again.
	store.puts.Store(0)
	w = fresh.Writer(ctx, a)
	for i := range n {
		if err := w.Add(big(i, "")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil || store.puts.Load() != 0 {
		t.Error("unchanged ranges were written", store.puts.Load(), err)
	}
}

func TestAnEntryCosts40Bytes(t *testing.T) {
	t.Parallel()
	var canonical []byte
	const n = 20_000
	for i := range n {
		e := big(i, "")
		canonical = e.append(canonical)
	}
	file, err := encodeRange(canonical)
	if err != nil {
		t.Fatal(err)
	}
	if per := float64(len(file)) / n; per > 40 {
		t.Errorf("%.1f bytes an entry, promised are 40", per)
	}
}

func TestNoEntryLeavesItsBranch(t *testing.T) {
	t.Parallel()
	w := New(mem.New("t", mem.Options{}), small).Writer(t.Context())
	defer w.Abort()
	for _, path := range []string{"", "..", "../x", "a/../x", "a/..", "./a", "a/./b", "a\x00", "\xff"} {
		if err := w.Add(entry(path, 1)); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, spoil := range []func(*Entry){
		func(e *Entry) { e.Mode = 0o20644 },
		func(e *Entry) { e.Mode = 0o40755 },
		func(e *Entry) { e.Size = -1 },
		func(e *Entry) { e.Key = ".kei/pins/x" },
		func(e *Entry) { e.ETag = "" },
		func(e *Entry) { e.Target = "x" },
	} {
		e := entry("a", 1)
		spoil(&e)
		if err := w.Add(e); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

func TestAFailedUploadFailsTheCommit(t *testing.T) {
	t.Parallel()
	r := New(failing{mem.New("t", mem.Options{})}, small)
	w := r.Writer(t.Context())
	defer w.Abort()
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		err = w.Add(entry(fmt.Sprintf("f%03d", i), i))
	}
	if _, closeErr := w.Close(); !errors.Is(errors.Join(err, closeErr), backend.ErrPermission) {
		t.Error(err, closeErr)
	}
}

type failing struct{ backend.Backend }

func (f failing) Put(context.Context, string, backend.Source, backend.PutOptions) (backend.Info, error) {
	return backend.Info{}, backend.Fail("put", "", backend.ErrPermission, nil)
}
