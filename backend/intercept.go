package backend

import (
	"context"
	"io"
)

// Op describes one request that passes an [Interceptor].
type Op struct {
	Name string // "stat", "get", "put", "delete", "list", "copy", "assemble", "putpart", "copypart", "complete", "abort", "discard", "deletebatch", "versions", "rename"
	Key  string // the key, or the prefix of a listing
	Cond Cond   // the condition of a change

	// Body, when an interceptor sets it, wraps the body that Get hands to its
	// callback. It must preserve the bytes, or fail.
	Body func(io.Reader) io.Reader
}

// Write says whether the request changes the bucket.
func (op *Op) Write() bool {
	switch op.Name {
	case "stat", "get", "list", "versions":
		return false
	}
	return true
}

// Interceptor runs around one request: it calls next once, never, or several
// times (a retry). The error it returns is the error of the request.
type Interceptor func(ctx context.Context, op *Op, next func(context.Context) error) error

// Intercept returns next with every request, those of the optional powers and
// of assemblies included, passed through in. It is how all decorators are
// built, so that none has to forward methods and none hides a power.
func Intercept(next Backend, in Interceptor) Backend {
	return &intercepted{next: next, in: in}
}

// As finds an optional power (Copier, Assembler, …) of b, through decorators.
// One that is not built with Intercept has a method Decorates, which returns
// what it decorates: it has no power that this does not have.
func As[T any](b Backend) (T, bool) {
	if d, ok := b.(interface{ Decorates() Backend }); ok {
		if _, ok := As[T](d.Decorates()); !ok {
			var none T
			return none, false
		}
	}
	t, ok := b.(T)
	return t, ok
}

type intercepted struct {
	next Backend
	in   Interceptor
}

// call runs one request with a result through the interceptor.
func call[T any](ctx context.Context, d *intercepted, op *Op, do func(context.Context) (T, error)) (T, error) {
	var out T
	err := d.in(ctx, op, func(ctx context.Context) (err error) {
		out, err = do(ctx)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return out, nil
}

func (d *intercepted) Stat(ctx context.Context, key string) (Info, error) {
	return call(ctx, d, &Op{Name: "stat", Key: key}, func(ctx context.Context) (Info, error) {
		return d.next.Stat(ctx, key)
	})
}

func (d *intercepted) Get(ctx context.Context, key string, opts GetOptions, fn func(Info, io.Reader) error) error {
	op := &Op{Name: "get", Key: key, Cond: Cond{IfMatch: opts.IfMatch}}
	return d.in(ctx, op, func(ctx context.Context) error {
		return d.next.Get(ctx, key, opts, func(info Info, body io.Reader) error {
			if op.Body != nil {
				body = op.Body(body)
			}
			return fn(info, body)
		})
	})
}

func (d *intercepted) Put(ctx context.Context, key string, src Source, opts PutOptions) (Info, error) {
	return call(ctx, d, &Op{Name: "put", Key: key, Cond: opts.Cond}, func(ctx context.Context) (Info, error) {
		return d.next.Put(ctx, key, src, opts)
	})
}

func (d *intercepted) Delete(ctx context.Context, key string, cond Cond) error {
	return d.in(ctx, &Op{Name: "delete", Key: key, Cond: cond}, func(ctx context.Context) error {
		return d.next.Delete(ctx, key, cond)
	})
}

func (d *intercepted) ListPage(ctx context.Context, opts ListOptions) (Page, error) {
	return call(ctx, d, &Op{Name: "list", Key: opts.Prefix}, func(ctx context.Context) (Page, error) {
		return d.next.ListPage(ctx, opts)
	})
}

func (d *intercepted) Caps() Caps         { return d.next.Caps() }
func (d *intercepted) Name() string       { return d.next.Name() }
func (d *intercepted) Close() error       { return d.next.Close() }
func (d *intercepted) Decorates() Backend { return d.next }

// The powers below are reached only through [As], which has made sure that
// d.next has them.

func power[T any](d *intercepted) T {
	t, _ := As[T](d.next)
	return t
}

func (d *intercepted) Copy(ctx context.Context, src, dst string, opts CopyOptions) (Info, error) {
	return call(ctx, d, &Op{Name: "copy", Key: dst, Cond: opts.Cond}, func(ctx context.Context) (Info, error) {
		return power[Copier](d).Copy(ctx, src, dst, opts)
	})
}

func (d *intercepted) Assemble(ctx context.Context, key string, opts PutOptions) (Assembly, error) {
	return call(ctx, d, &Op{Name: "assemble", Key: key}, func(ctx context.Context) (Assembly, error) {
		a, err := power[Assembler](d).Assemble(ctx, key, opts)
		if err != nil {
			return nil, err
		}
		return &interceptedAssembly{d: d, next: a, key: key, cond: opts.Cond}, nil
	})
}

func (d *intercepted) Discard(ctx context.Context, key, id string) error {
	return d.in(ctx, &Op{Name: "discard", Key: key}, func(ctx context.Context) error {
		return power[Discarder](d).Discard(ctx, key, id)
	})
}

func (d *intercepted) DeleteBatch(ctx context.Context, objects []Deletion) ([]error, error) {
	return call(ctx, d, &Op{Name: "deletebatch"}, func(ctx context.Context) ([]error, error) {
		return power[BatchDeleter](d).DeleteBatch(ctx, objects)
	})
}

func (d *intercepted) VersionsPage(ctx context.Context, opts ListOptions) (VersionsPage, error) {
	return call(ctx, d, &Op{Name: "versions", Key: opts.Prefix}, func(ctx context.Context) (VersionsPage, error) {
		return power[Versioner](d).VersionsPage(ctx, opts)
	})
}

func (d *intercepted) Rename(ctx context.Context, src, dst string, cond Cond) (Info, error) {
	return call(ctx, d, &Op{Name: "rename", Key: dst, Cond: cond}, func(ctx context.Context) (Info, error) {
		return power[Renamer](d).Rename(ctx, src, dst, cond)
	})
}

type interceptedAssembly struct {
	d    *intercepted
	next Assembly
	key  string
	cond Cond
}

func (a *interceptedAssembly) PutPart(ctx context.Context, number int, src Source) error {
	return a.d.in(ctx, &Op{Name: "putpart", Key: a.key}, func(ctx context.Context) error {
		return a.next.PutPart(ctx, number, src)
	})
}

func (a *interceptedAssembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	return a.d.in(ctx, &Op{Name: "copypart", Key: a.key}, func(ctx context.Context) error {
		return a.next.CopyPart(ctx, number, key, etag, offset, length)
	})
}

func (a *interceptedAssembly) Complete(ctx context.Context) (Info, error) {
	return call(ctx, a.d, &Op{Name: "complete", Key: a.key, Cond: a.cond}, a.next.Complete)
}

func (a *interceptedAssembly) Abort(ctx context.Context) error {
	return a.d.in(ctx, &Op{Name: "abort", Key: a.key}, a.next.Abort)
}

// ID is what Discard knows the assembly by.
func (a *interceptedAssembly) ID() string { return AssemblyID(a.next) }
