package mem

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"

	"github.com/keifs/keifs/backend"
)

// powerful is a bucket with the powers that need no versions.
type powerful struct{ *bucket }

var (
	_ backend.Copier       = powerful{}
	_ backend.Assembler    = powerful{}
	_ backend.Discarder    = powerful{}
	_ backend.BatchDeleter = powerful{}
)

func (b powerful) Copy(ctx context.Context, src, dst string, opts backend.CopyOptions) (backend.Info, error) {
	put := backend.PutOptions{Cond: opts.Cond, Metadata: opts.Metadata}
	if !b.caps.Copy || !b.caps.CondCopy && opts.Cond != (backend.Cond{}) {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrUnsupported, nil)
	}
	if err := b.checkPut(ctx, "copy", dst, 0, put, b.caps.CondCopy, b.caps.CondCopy); err != nil {
		return backend.Info{}, err
	}
	from, err := b.get(ctx, "copy", src, opts.SourceVersion)
	if err != nil {
		return backend.Info{}, err
	}
	if opts.SourceETag != "" && opts.SourceETag != from.info.ETag {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrPrecondition, fmt.Errorf("the source has another ETag"))
	}
	if b.caps.MaxCopy > 0 && from.info.Size > b.caps.MaxCopy {
		return backend.Info{}, backend.Fail("copy", dst, backend.ErrTooLarge, nil)
	}
	if put.ContentType = from.info.ContentType; put.Metadata == nil {
		put.Metadata = from.info.Metadata
	}
	return b.store(ctx, "copy", b.object(dst, from.data, put), opts.Cond, b.caps.CondCopy, b.caps.CondCopy)
}

func (b powerful) DeleteBatch(ctx context.Context, objects []backend.Deletion) ([]error, error) {
	if len(objects) > 1000 {
		return nil, backend.Fail("deletebatch", "", backend.ErrInvalid, fmt.Errorf("%d keys", len(objects)))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	errs := make([]error, len(objects))
	for i, o := range objects {
		errs[i] = b.remove(ctx, o.Key, backend.Cond{IfMatch: o.IfMatch}, b.caps.CondBatch)
	}
	return errs, nil
}

func (b powerful) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	if err := b.checkPut(ctx, "assemble", key, 0, opts, b.caps.CondAssemble, b.caps.CondAssemble); err != nil {
		return nil, err
	}
	a := &assembly{b: b, key: key, opts: opts, parts: map[int][]byte{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun++
	a.id = strconv.Itoa(b.begun)
	b.assemblies[a.id] = a
	return a, nil
}

// ID implements what backend.AssemblyID asks for.
func (a *assembly) ID() string { return a.id }

// Discard implements backend.Discarder.
func (b powerful) Discard(ctx context.Context, _, id string) error {
	b.mu.Lock()
	a := b.assemblies[id]
	b.mu.Unlock()
	if a == nil {
		return ctx.Err()
	}
	return a.Abort(ctx)
}

// end forgets the assembly, whose lock is held.
func (a *assembly) end() {
	a.parts = nil
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	delete(a.b.assemblies, a.id)
}

type assembly struct {
	b    powerful
	id   string
	key  string
	opts backend.PutOptions

	mu    sync.Mutex
	parts map[int][]byte // nil once it has ended
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	if err := a.checkPart(ctx, "putpart", number, src.Size()); err != nil {
		return err
	}
	data, err := read(src)
	if err != nil {
		return fmt.Errorf("putpart %s: source: %w", a.key, err)
	}
	return a.add("putpart", number, data)
}

func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	if err := a.checkPart(ctx, "copypart", number, length); err != nil {
		return err
	}
	if !a.b.caps.Copy {
		return backend.Fail("copypart", a.key, backend.ErrUnsupported, nil)
	}
	o, err := a.b.get(ctx, "copypart", key, "")
	switch {
	case err != nil:
		return err
	case etag != "" && etag != o.info.ETag:
		return backend.Fail("copypart", key, backend.ErrPrecondition, nil)
	case offset < 0 || length < 0 || offset > o.info.Size || length > o.info.Size-offset:
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d of %d bytes", offset, length, o.info.Size))
	}
	return a.add("copypart", number, o.data[offset:offset+length])
}

func (a *assembly) checkPart(ctx context.Context, op string, number int, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if number < 1 {
		return backend.Fail(op, a.key, backend.ErrInvalid, fmt.Errorf("part %d", number))
	}
	if caps := a.b.caps; caps.MaxParts > 0 && number > caps.MaxParts || caps.MaxPart > 0 && size > caps.MaxPart {
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("part %d of %d bytes", number, size))
	}
	return nil
}

func (a *assembly) add(op string, number int, data []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts == nil {
		return backend.Fail(op, a.key, backend.ErrInvalid, errEnded)
	}
	a.parts[number] = data
	return nil
}

var errEnded = fmt.Errorf("the assembly has ended")

func (a *assembly) Complete(ctx context.Context) (backend.Info, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts == nil {
		return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, errEnded)
	}
	var data bytes.Buffer
	sums := md5.New()
	for n := range len(a.parts) {
		part, ok := a.parts[n+1]
		if !ok {
			return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no part %d", n+1))
		}
		if n+1 < len(a.parts) && int64(len(part)) < a.b.caps.MinPart {
			return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("part %d has only %d bytes", n+1, len(part)))
		}
		sum := md5.Sum(part)
		sums.Write(sum[:])
		data.Write(part)
	}
	if len(a.parts) == 0 {
		return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no parts"))
	}
	o := a.b.object(a.key, data.Bytes(), a.opts)
	// As in S3: the same content sent in parts has another ETag.
	o.info.ETag = fmt.Sprintf("%s-%d", hex.EncodeToString(sums.Sum(nil)), len(a.parts))
	info, err := a.b.store(ctx, "complete", o, a.opts.Cond, a.b.caps.CondAssemble, a.b.caps.CondAssemble)
	if err == nil {
		a.end()
	}
	return info, err
}

func (a *assembly) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
	return nil
}
