package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

// bench is a store over a bucket in memory whose requests are recorded and
// can be disturbed.
type bench struct {
	*Store
	t   *testing.T
	raw backend.Backend // the bucket itself, as another tool sees it
	in  *fault.Injector
	log *bytes.Buffer
}

func newBench(t *testing.T, bucket mem.Options, opts Options) *bench {
	t.Helper()
	return benchOver(t, mem.New(t.Name(), bucket), opts)
}

func benchOver(t *testing.T, raw backend.Backend, opts Options) *bench {
	t.Helper()
	b := &bench{t: t, raw: raw, in: fault.New(), log: new(bytes.Buffer)}
	b.in.Quiet(overlay.IsRefCheck) // which has tests of its own
	opts.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	if opts.Host == "" {
		opts.Host = "host"
	}
	if opts.Caps == nil {
		caps := raw.Caps()
		opts.Caps = &caps
	}
	var err error
	b.Store, err = Open(t.Context(), b.in.Wrap(raw), opts)
	if err != nil {
		t.Fatal(err)
	}
	b.in.ResetRequests()
	return b
}

func (b *bench) path(rel string) Path {
	b.t.Helper()
	p, err := ParsePath(rel)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// put is another tool.
func (b *bench) put(key, body string, metadata ...string) backend.Info {
	b.t.Helper()
	opts := backend.PutOptions{}
	for pair := range slices.Chunk(metadata, 2) {
		if opts.Metadata == nil {
			opts.Metadata = map[string]string{}
		}
		opts.Metadata[pair[0]] = pair[1]
	}
	info, err := b.raw.Put(context.Background(), key, backend.Bytes([]byte(body)), opts)
	if err != nil {
		b.t.Fatal(err)
	}
	return info
}

func (b *bench) body(key string) string {
	b.t.Helper()
	data, _, err := backend.ReadAll(context.Background(), b.raw, key, 1<<30)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

func (b *bench) stat(key string) backend.Info {
	b.t.Helper()
	info, err := b.raw.Stat(context.Background(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	return info
}

// keys is what is in the bucket, the records of keifs aside.
func (b *bench) keys() []string {
	b.t.Helper()
	keys := []string{}
	for info, err := range backend.ListRecursive(context.Background(), b.raw, "") {
		if err != nil {
			b.t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// cost checks which requests were sent since the last time. Those that run at
// the same time are compared without order.
func (b *bench) cost(want ...string) {
	b.t.Helper()
	got := b.in.Requests()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Errorf("requests:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	b.in.ResetRequests()
}

func (b *bench) publish(rel, content string, opts PublishOptions) (Entry, error) {
	b.t.Helper()
	return b.Publish(b.t.Context(), b.path(rel), backend.Bytes([]byte(content)), opts)
}

func (b *bench) names(dir string) []string {
	b.t.Helper()
	return names(b.t, b.List(b.t.Context(), b.path(dir)))
}

func names(t *testing.T, list iter.Seq2[Entry, error]) []string {
	t.Helper()
	all := []string{}
	for e, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		if e.IsDir() {
			e.Name += "/"
		}
		all = append(all, e.Name)
	}
	return all
}

func (b *bench) read(p Path, version string, off, n int64) (string, error) {
	var data []byte
	err := b.Read(b.t.Context(), p, version, off, n, func(r io.Reader) (err error) {
		data, err = io.ReadAll(r)
		return err
	})
	return string(data), err
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
}

// alike says whether two entries are the same in all but how far what they
// say holds, which is more of what was just stored than of what is told of it.
func alike(a, b Entry) bool {
	a.Holds, b.Holds = Times{}, Times{}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
}

//go:fix inline

func TestOpeningReadsTheFormatAndWritesNothing(t *testing.T) {
	raw := mem.New("", mem.Options{})
	in := fault.New()
	s, err := Open(t.Context(), in.Wrap(raw), Options{})
	ok(t, err)
	same(t, in.Requests(), []string{"GET .kei/format.json"})
	if s.CurrentBranch() != "main" || s.BackendName() != "mem:" || s.Name() != "main" || s.RootView().CurrentBranch() != "" {
		t.Errorf("%q %q", s.CurrentBranch(), s.BackendName())
	}
	b := &bench{t: t, raw: raw}
	for body, want := range map[string]error{
		`{"format":1}`: nil, `{"format":1,"more":true}`: nil,
		`{"format":2}`: ErrFormat, `{"format":0}`: ErrFormat, `{}`: ErrFormat, `nonsense`: ErrFormat, strings.Repeat(" ", 1<<17): ErrFormat,
	} {
		b.put(formatKey, body)
		if _, err := Open(t.Context(), raw, Options{}); !errors.Is(err, want) {
			t.Errorf("%.30s: %v, want %v", body, err, want)
		}
		if _, err := Open(t.Context(), raw, Options{ReadOnly: true}); err != nil {
			t.Errorf("%.30s, only reading: %v", body, err)
		}
	}
	if _, err := Open(t.Context(), mem.New("", mem.Options{}), Options{Branch: ".kei"}); !errors.Is(err, ErrBadName) {
		t.Errorf("a reserved branch: %v", err)
	}
	_, err = Open(t.Context(), fault.New(fault.Rule{Err: backend.ErrNoBucket}).Wrap(raw), Options{})
	is(t, err, backend.ErrNoBucket)
}

func TestKeysAreBelowTheBranch(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	dev, err := b.Branch("dev")
	ok(t, err)
	for rel, want := range map[string]string{"a/b": "dev/a/b", "": "dev", "\xff": "dev/%!%FF", ".kei/x": "dev/.kei/x", "%!/x": "dev//x"} {
		if got, err := dev.Key(rel); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", rel, got, err, want)
		}
	}
	for rel, want := range map[string]error{
		"../main/a": ErrBadName, "/a": ErrBadName, "%!..%2Fmain": ErrBadName, "%!a/b": ErrNotDir,
		strings.Repeat("long/", 300) + "x": ErrNameTooLong, strings.Repeat("x", 256): ErrNameTooLong,
	} {
		if got, err := dev.Key(rel); !errors.Is(err, want) {
			t.Errorf("%.20q is %q, %v; want %v", rel, got, err, want)
		}
	}
	if _, err := b.RootView().Key(".kei/format.json"); !errors.Is(err, ErrBadName) {
		t.Errorf("a record by name: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", ".kei", ".keifs", "%!%2Ekei", "%!a"} {
		if _, err := b.Branch(name); !errors.Is(err, ErrBadName) {
			t.Errorf("branch %q: %v", name, err)
		}
	}
	for name, want := range map[string]error{
		"a": nil, "v1.2_x-y": nil, "ü": nil, "a@b": ErrBadName, "a:b": ErrBadName, "a\nb": ErrBadName, "\xff": ErrBadName,
		".kei2": ErrBadName, "%!%25!x": ErrBadName, strings.Repeat("x", 201): ErrNameTooLong,
	} {
		if err := ValidateBranch(name); !errors.Is(err, want) {
			t.Errorf("a new branch %q: %v, want %v", name, err, want)
		}
	}
}

func TestNothingChangesWhereItMustNot(t *testing.T) {
	for name, c := range map[string]struct {
		open func(*bench) *Store
		opts Options
		want error
	}{
		"read-only":          {func(b *bench) *Store { return b.Store }, Options{ReadOnly: true}, ErrReadOnly},
		"read-only root":     {func(b *bench) *Store { return b.RootView() }, Options{ReadOnly: true}, ErrReadOnly},
		"above the branches": {func(b *bench) *Store { return b.RootView() }, Options{}, ErrOutsideBranch},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, mem.Options{}, c.opts)
			b.put("f", "x")
			b.put("d/f", "x")
			s, ctx := c.open(b), t.Context()
			f, d := b.path("f"), b.path("d/g")
			errs := map[string]error{
				"publish": second(s.Publish(ctx, f, backend.Bytes(nil), PublishOptions{Replace: true})),
				"copy":    second(s.PublishCopy(ctx, s, f, "", 1, d, PublishOptions{Replace: true})),
				"setattr": second(s.SetAttr(ctx, f, AttrChange{UID: new(uint32(1))})),
				"mkdir":   second(s.Mkdir(ctx, d, Attr{})),
				"mknod":   second(s.Mknod(ctx, d, Attr{}, "")),
				"remove":  s.Remove(ctx, f),
				"rmdir":   s.Rmdir(ctx, d),
				"rename":  s.Rename(ctx, f, d, Replace),
			}
			for op, err := range errs {
				if !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", op, err, c.want)
				}
			}
			b.cost()
			same(t, b.keys(), []string{"d/f", "f"})
		})
	}
}

func TestStatsAreASnapshot(t *testing.T) {
	b := newBench(t, mem.Options{}, Options{})
	b.put("main/"+strings.Repeat("x", 300), "")
	b.put("main/"+strings.Repeat("y", 254), "")
	b.put("main/"+strings.Repeat("y", 254)+"/z", "")
	b.put(".keifoo/x", "")
	same(t, b.names(""), []string{strings.Repeat("y", 254) + "/"})
	b.names("")
	same(t, names(t, b.RootView().List(t.Context(), Path{})), []string{"main/"})
	st := b.Stats()
	if st.Unnameable != 3 || len(st.Examples) != 3 || st.Examples[0] != ".keifoo/" || st.Caps == nil {
		t.Errorf("%+v", st)
	}
}

// afterFirst runs a function once, when the first request of an operation has
// come to an end.
func afterFirst(op string, raw backend.Backend, fn func(backend.Backend) error) backend.Interceptor {
	var done atomic.Bool
	return func(ctx context.Context, o *backend.Op, next func(context.Context) error) error {
		err := next(ctx)
		if o.Name == op && !done.Swap(true) {
			return errors.Join(err, fn(raw))
		}
		return err
	}
}
