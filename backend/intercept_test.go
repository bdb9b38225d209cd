package backend_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/mem"
)

// forward passes requests on as they are.
func forward(ctx context.Context, _ *backend.Op, next func(context.Context) error) error {
	return next(ctx)
}

func TestInterceptedBucketConforms(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend {
		b := mem.New("test", mem.Options{Versions: true})
		return backend.Intercept(backend.Intercept(b, forward), forward)
	})
}

func TestPowersAreThoseOfTheInnermost(t *testing.T) {
	dir, err := file.Open(t.TempDir(), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, b := range []backend.Backend{
		mem.New("plain", mem.Options{Plain: true}), mem.New("all", mem.Options{}), mem.New("versions", mem.Options{Versions: true}), dir,
	} {
		want := powers(b)
		for depth := range 3 {
			if got := powers(b); !slices.Equal(got, want) {
				t.Errorf("%s behind %d decorators has %q, want %q", b.Name(), depth, got, want)
			}
			b = backend.Intercept(b, forward)
		}
	}
	if got := powers(mem.New("plain", mem.Options{Plain: true})); len(got) > 0 {
		t.Errorf("a plain bucket has %q", got)
	}
}

func powers(b backend.Backend) (names []string) {
	for name, has := range map[string]bool{
		"copier": is[backend.Copier](b), "assembler": is[backend.Assembler](b), "batch": is[backend.BatchDeleter](b),
		"versioner": is[backend.Versioner](b), "renamer": is[backend.Renamer](b),
	} {
		if has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func is[T any](b backend.Backend) bool {
	_, ok := backend.As[T](b)
	return ok
}

// TestEveryRequestIsIntercepted makes each request once; an interceptor sees
// it with its name, key and condition, and what it refuses does not happen.
func TestEveryRequestIsIntercepted(t *testing.T) {
	ctx := t.Context()
	inner := mem.New("test", mem.Options{Versions: true})
	if _, err := inner.Put(ctx, "there", backend.Bytes([]byte("old")), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	var mu sync.Mutex
	var seen []string
	refuse := false
	b := backend.Intercept(inner, func(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
		mu.Lock()
		defer mu.Unlock()
		what := op.Name + " " + op.Key
		if op.Cond.IfAbsent {
			what += " if absent"
		}
		if op.Cond.IfMatch != "" {
			what += " if match"
		}
		if op.Write() {
			what += " (write)"
		}
		seen = append(seen, what)
		if refuse {
			return refused
		}
		return next(ctx)
	})
	copier, _ := backend.As[backend.Copier](b)
	assembler, _ := backend.As[backend.Assembler](b)
	discarder, _ := backend.As[backend.Discarder](b)
	batch, _ := backend.As[backend.BatchDeleter](b)
	versioner, _ := backend.As[backend.Versioner](b)
	absent := backend.Cond{IfAbsent: true}
	asm, err := assembler.Assemble(ctx, "begun", backend.PutOptions{Cond: absent})
	if err != nil {
		t.Fatal(err)
	}
	seen = nil
	refuse = true
	calls := map[string]func() error{
		"stat there": func() error { _, err := b.Stat(ctx, "there"); return err },
		"get there if match": func() error {
			return b.Get(ctx, "there", backend.GetOptions{IfMatch: "x"}, func(backend.Info, io.Reader) error { return nil })
		},
		"put new if absent (write)": func() error {
			_, err := b.Put(ctx, "new", backend.Bytes(nil), backend.PutOptions{Cond: absent})
			return err
		},
		"delete there if match (write)": func() error { return b.Delete(ctx, "there", backend.Cond{IfMatch: "x"}) },
		"list pre":                      func() error { _, err := b.ListPage(ctx, backend.ListOptions{Prefix: "pre"}); return err },
		"copy new if absent (write)": func() error {
			_, err := copier.Copy(ctx, "there", "new", backend.CopyOptions{Cond: absent})
			return err
		},
		"assemble new (write)": func() error {
			_, err := assembler.Assemble(ctx, "new", backend.PutOptions{Cond: absent})
			return err
		},
		"putpart begun (write)":            func() error { return asm.PutPart(ctx, 1, backend.Bytes(nil)) },
		"copypart begun (write)":           func() error { return asm.CopyPart(ctx, 1, "there", "", 0, 1) },
		"complete begun if absent (write)": func() error { _, err := asm.Complete(ctx); return err },
		"abort begun (write)":              func() error { return asm.Abort(ctx) },
		"discard begun (write)":            func() error { return discarder.Discard(ctx, "begun", backend.AssemblyID(asm)) },
		"deletebatch  (write)":             func() error { _, err := batch.DeleteBatch(ctx, []backend.Deletion{{Key: "there"}}); return err },
		"versions pre":                     func() error { _, err := versioner.VersionsPage(ctx, backend.ListOptions{Prefix: "pre"}); return err },
	}
	for want, call := range calls {
		seen = nil
		if err := call(); err != refused {
			t.Errorf("%s: %v, want the interceptor's error", want, err)
		}
		if !slices.Equal(seen, []string{want}) {
			t.Errorf("seen: %q, want %q", seen, want)
		}
	}
	for info, err := range backend.ListRecursive(ctx, inner, "") {
		if err != nil || info.Key != "there" || info.Size != 3 {
			t.Errorf("something refused has happened: %+v, %v", info, err)
		}
	}
}

// TestInterceptorMayRepeat has the callback of Get begin anew with each
// attempt, and only the last result count.
func TestInterceptorMayRepeat(t *testing.T) {
	inner := mem.New("test", mem.Options{})
	attempts := 0
	b := backend.Intercept(inner, func(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
		attempts = 0
		for {
			attempts++
			broken := attempts < 3
			op.Body = func(r io.Reader) io.Reader {
				if broken {
					return io.MultiReader(io.LimitReader(r, 2), failing{})
				}
				return r
			}
			if err := next(ctx); !errors.Is(err, backend.ErrTransient) {
				return err
			}
		}
	})
	if _, err := b.Put(t.Context(), "a", backend.Bytes([]byte("content")), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	data, _, err := backend.ReadAll(t.Context(), b, "a", 100)
	if err != nil || string(data) != "content" || attempts != 3 {
		t.Errorf("%q, %v after %d attempts", data, err, attempts)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) {
	return 0, backend.Fail("get", "", backend.ErrTransient, errors.New("cut"))
}

func TestErrorTellsItsKindAndCause(t *testing.T) {
	cause := errors.New("the store's words")
	err := backend.Fail("put", "key", backend.ErrNoSpace, cause)
	if !errors.Is(err, backend.ErrNoSpace) || !errors.Is(err, cause) || errors.Is(err, backend.ErrIO) {
		t.Errorf("%v", err)
	}
	for _, part := range []string{"put", "key", backend.ErrNoSpace.Error(), cause.Error()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if backend.Fail("put", "key", nil, cause) != nil {
		t.Error("no kind is no error")
	}
	for _, kind := range backend.Sentinels() {
		want := kind == backend.ErrTransient || kind == backend.ErrThrottled || kind == backend.ErrUnreachable
		if backend.Retryable(backend.Fail("get", "", kind, nil)) != want {
			t.Errorf("retryable %q: %v", kind, !want)
		}
	}
}
