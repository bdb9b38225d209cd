package file

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keifs/keifs/backend"
)

func (b *bucket) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	if err := b.checkPut(ctx, "assemble", key, 0, opts); err != nil {
		return nil, err
	}
	if isMarker(key) {
		return nil, backend.Fail("assemble", key, backend.ErrBadKey, errors.New("a directory has no content"))
	}
	return &assembly{b: b, key: key, opts: opts, parts: map[int]part{}, sources: map[string]*object{}}, nil
}

// assembly has the sent parts as temporary files, and of copied ones only
// where they come from, with the source held open: so a byte is copied once.
type assembly struct {
	b    *bucket
	key  string
	opts backend.PutOptions

	mu      sync.Mutex
	ended   bool
	parts   map[int]part
	sources map[string]*object // by key and ETag
}

type part struct {
	sent   *temp   // its file is closed: there may be thousands
	copied *object // or the source
	off, n int64
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	if err := a.checkPart(ctx, "putpart", number); err != nil {
		return err
	}
	t, err := a.b.tempFile()
	if err != nil {
		return a.b.fail("putpart", a.key, err)
	}
	if err := a.b.write(ctx, "putpart", a.key, t.f, src); err != nil {
		t.discard()
		return err
	}
	t.f.Close()
	if err := a.add("putpart", number, part{sent: t, n: src.Size()}); err != nil {
		t.discard()
		return err
	}
	return nil
}

func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	if err := a.checkPart(ctx, "copypart", number); err != nil {
		return err
	}
	o, err := a.b.open(ctx, "copypart", key)
	if err != nil {
		return err
	}
	switch {
	case etag != "" && etag != o.etag():
		err = backend.Fail("copypart", key, backend.ErrPrecondition, nil)
	case offset < 0 || length < 0 || offset > o.size() || length > o.size()-offset:
		err = backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d of %d bytes", offset, length, o.size()))
	default:
		err = a.add("copypart", number, part{copied: o, off: offset, n: length})
	}
	if err != nil {
		o.f.Close()
	}
	return err
}

func (a *assembly) checkPart(ctx context.Context, op string, number int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case number < 1:
		return backend.Fail(op, a.key, backend.ErrInvalid, fmt.Errorf("part %d", number))
	case number > maxParts:
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("part %d of at most %d", number, maxParts))
	}
	return nil
}

var errEnded = errors.New("the assembly has ended")

// add takes over the part, unless it returns an error.
func (a *assembly) add(op string, number int, p part) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return backend.Fail(op, a.key, backend.ErrInvalid, errEnded)
	}
	if p.copied != nil {
		// Many parts of one source need only one open file.
		id := p.copied.key + "\x00" + p.copied.etag()
		if have := a.sources[id]; have != nil {
			p.copied.f.Close()
			p.copied = have
		} else {
			a.sources[id] = p.copied
		}
	}
	if old := a.parts[number]; old.sent != nil {
		old.sent.discard()
	}
	a.parts[number] = p
	return nil
}

func (a *assembly) Complete(ctx context.Context) (backend.Info, error) {
	a.mu.Lock()
	defer a.mu.Unlock() // nothing else makes sense at this time
	switch {
	case a.ended:
		return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, errEnded)
	case len(a.parts) == 0:
		return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, errors.New("no parts"))
	}
	if err := ctx.Err(); err != nil {
		return backend.Info{}, err
	}
	t, err := a.b.tempFile()
	if err != nil {
		return backend.Info{}, a.b.fail("complete", a.key, err)
	}
	defer t.discard()
	size := int64(0)
	for number := range len(a.parts) {
		p, ok := a.parts[number+1]
		if !ok {
			return backend.Info{}, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no part %d", number+1))
		}
		if err := p.copyTo(ctx, t, size); err != nil {
			return backend.Info{}, a.b.fail("complete", a.key, err)
		}
		size += p.n
	}
	info, err := a.b.finish(ctx, a.key, t, newRecord(a.opts), a.opts.Cond)
	if err == nil {
		a.endLocked()
	}
	return info, a.b.fail("complete", a.key, err)
}

// copyTo copies the part into t at that offset.
func (p part) copyTo(ctx context.Context, t *temp, off int64) error {
	if p.copied != nil {
		return copyRange(ctx, t.f, off, p.copied, p.off, p.n)
	}
	f, err := openFile(p.sent.ws.owner, p.sent.name)
	if err != nil {
		return err
	}
	defer f.Close()
	o, err := stat(p.sent.name, f)
	if err != nil {
		return err
	}
	return copyRange(ctx, t.f, off, o, 0, p.n)
}

func (a *assembly) Abort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endLocked()
	return nil
}

func (a *assembly) endLocked() {
	for _, p := range a.parts {
		if p.sent != nil {
			p.sent.discard()
		}
	}
	for _, o := range a.sources {
		o.f.Close()
	}
	a.ended, a.parts, a.sources = true, nil, nil
}
