package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
)

// caps is what the bucket can do. The first call probes it, and others wait.
func (c *core) caps(ctx context.Context) (backend.Caps, error) {
	caps, err := c.know(ctx)
	if err == nil {
		c.warned.Do(func() { c.warn(caps) })
	}
	return caps, err
}

// warn says in one line what users lose on a lesser store.
func (c *core) warn(caps backend.Caps) {
	var lost []string
	if !caps.CondCreate || !caps.CondOverwrite {
		lost = append(lost, "conditions: of two hosts that change one file at the same moment, one may lose its change, so let one write at a time")
	}
	if !caps.Metadata {
		lost = append(lost, "metadata: modes, owners and times are not kept")
	}
	if !caps.Copy {
		lost = append(lost, "copies: a rename reads and writes the whole content")
	}
	if len(lost) > 0 {
		c.log.Warn("this store lacks "+strings.Join(lost, "; "), "store", c.b.Name())
	}
}

func (c *core) know(ctx context.Context) (backend.Caps, error) {
	if known := c.probed.Load(); known != nil {
		return *known, nil
	}
	select {
	case c.probing <- struct{}{}:
		defer func() { <-c.probing }()
	case <-ctx.Done():
		return backend.Caps{}, ctx.Err()
	}
	if known := c.probed.Load(); known != nil {
		return *known, nil
	}
	caps, err := c.probe(ctx)
	seen := err == nil
	if errors.Is(err, backend.ErrPermission) {
		// Whoever may write only below some prefix cannot probe. If nothing
		// can be written, the change itself will say so.
		c.log.Warn("no permission to probe what the store can do: its conditions are taken on trust", "store", c.b.Name(), "err", err)
		caps, err = c.b.Caps(), nil
	}
	if err != nil {
		return backend.Caps{}, fmt.Errorf("probe %s: %w", c.b.Name(), err)
	}
	c.probed.Store(&caps)
	if seen {
		c.tell(caps)
	}
	return caps, nil
}

// Probe finds out by real requests what the bucket can do: ErrReadOnly. It
// makes objects below ".kei/probe/" and removes them again.
func (s *Store) Probe(ctx context.Context) (backend.Caps, error) {
	if s.opts.ReadOnly {
		return backend.Caps{}, fmt.Errorf("%s: %w", s.BackendName(), ErrReadOnly)
	}
	caps, err := s.probe(ctx)
	if err != nil {
		return backend.Caps{}, fmt.Errorf("probe %s: %w", s.BackendName(), err)
	}
	s.probed.Store(&caps)
	s.tell(caps)
	return caps, nil
}

func (c *core) tell(caps backend.Caps) {
	if c.opts.Probed != nil {
		c.opts.Probed(caps)
	}
}

func (c *core) probe(ctx context.Context) (backend.Caps, error) {
	p := &prober{b: c.b, dir: probeDir + nonce() + "/"}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := p.clean(ctx); err != nil {
			c.log.Warn("a probe left objects in the store", "store", c.b.Name(), "prefix", p.dir, "err", err)
		}
	}()
	var put, batched, assembled, copied, both backend.Caps
	err := together(
		func() (err error) { put, err = p.puts(ctx); return err },
		func() (err error) { batched, err = p.batches(ctx); return err },
		func() (err error) { copied, err = p.copies(ctx); return err },
		func() (err error) { assembled, err = p.assemblies(ctx); return err },
		func() (err error) { both, err = p.prefixes(ctx); return err },
	)
	if err != nil {
		return backend.Caps{}, err
	}
	caps := c.b.Caps() // for the limits, which no request shows
	caps.CondCreate, caps.CondOverwrite, caps.CondDelete = put.CondCreate, put.CondOverwrite, put.CondDelete
	caps.Metadata, caps.Versions = put.Metadata, put.Versions
	caps.StrongList = caps.StrongList && put.StrongList // one look proves only the contrary
	caps.CondBatch = batched.CondBatch
	caps.Copy, caps.CondCopy = copied.Copy, copied.CondCopy
	caps.CondAssemble = assembled.CondAssemble
	caps.ObjectPrefix = both.ObjectPrefix
	return caps, nil
}

// nonce is a name that nobody else has.
func nonce() string { return rand.Text()[:16] }

// prober asks one bucket.
type prober struct {
	b   backend.Backend
	dir string // of all its objects
}

// refused says whether the store honoured the condition of a request that had
// to fail for it.
func refused(err error) (bool, error) {
	switch {
	case errors.Is(err, backend.ErrPrecondition):
		return true, nil
	case err == nil, errors.Is(err, backend.ErrUnsupported):
		return false, nil
	}
	return false, err
}

// granted says whether the store did what it was asked to.
func granted(err error) (bool, error) {
	switch {
	case err == nil, errors.Is(err, backend.ErrAmbiguous): // nobody else is here: it was ourselves
		return true, nil
	case errors.Is(err, backend.ErrUnsupported), errors.Is(err, backend.ErrPrecondition):
		return false, nil
	}
	return false, err
}

func (p *prober) put(ctx context.Context, name, body string, cond backend.Cond) (backend.Info, error) {
	return p.b.Put(ctx, p.dir+name, backend.Bytes([]byte(body)), backend.PutOptions{
		Cond: cond, Metadata: map[string]string{"probe": body},
	})
}

// twice makes an object, and gives the ETag that it had before and has now.
func (p *prober) twice(ctx context.Context, name string) (stale, current string, err error) {
	first, err := p.put(ctx, name, "older", backend.Cond{})
	if err != nil {
		return "", "", err
	}
	last, err := p.put(ctx, name, "old", backend.Cond{})
	return first.ETag, last.ETag, err
}

// puts looks at creation, overwriting and deletion, each with a condition
// that must hold and one that must not.
func (p *prober) puts(ctx context.Context) (caps backend.Caps, err error) {
	const name = "put"
	created, err := granted(second(p.put(ctx, name, "1", backend.Cond{IfAbsent: true})))
	if err != nil {
		return caps, err
	}
	again, err := refused(second(p.put(ctx, name, "2", backend.Cond{IfAbsent: true})))
	if err != nil {
		return caps, err
	}
	caps.CondCreate = created && again

	old, err := p.put(ctx, name, "3", backend.Cond{})
	if err != nil {
		return caps, err
	}
	changed, err := granted(second(p.put(ctx, name, "4", backend.Cond{IfMatch: old.ETag})))
	if err != nil {
		return caps, err
	}
	if !changed {
		if _, err := p.put(ctx, name, "4", backend.Cond{}); err != nil {
			return caps, err
		}
	}
	stale, err := refused(second(p.put(ctx, name, "5", backend.Cond{IfMatch: old.ETag})))
	if err != nil {
		return caps, err
	}
	caps.CondOverwrite = changed && stale

	info, err := p.b.Stat(ctx, p.dir+name)
	if err != nil {
		return caps, err
	}
	caps.Metadata = info.Metadata["probe"] != ""
	page, err := p.b.ListPage(ctx, backend.ListOptions{Prefix: p.dir + name})
	if err != nil {
		return caps, err
	}
	caps.StrongList = len(page.Objects) == 1 && page.Objects[0].ETag == info.ETag

	kept, err := refused(p.b.Delete(ctx, p.dir+name, backend.Cond{IfMatch: old.ETag}))
	if err != nil {
		return caps, err
	}
	if kept {
		kept, err = granted(p.b.Delete(ctx, p.dir+name, backend.Cond{IfMatch: info.ETag}))
		if err != nil {
			return caps, err
		}
	}
	caps.CondDelete = kept

	if versioner, ok := backend.As[backend.Versioner](p.b); ok {
		versions, err := versioner.VersionsPage(ctx, backend.ListOptions{Prefix: p.dir + name})
		if err != nil && !errors.Is(err, backend.ErrUnsupported) {
			return caps, err
		}
		caps.Versions = len(versions.Versions) > 1
	}
	return caps, nil
}

func second[T any](_ T, err error) error { return err }

// batches looks at the conditions of the deletions in a batch.
func (p *prober) batches(ctx context.Context) (caps backend.Caps, err error) {
	deleter, ok := backend.As[backend.BatchDeleter](p.b)
	if !ok {
		return caps, nil
	}
	const name = "batch"
	stale, current, err := p.twice(ctx, name)
	if err != nil {
		return caps, err
	}
	attempt := func(version string) error {
		errs, err := deleter.DeleteBatch(ctx, []backend.Deletion{{Key: p.dir + name, IfMatch: version}})
		if err == nil {
			err = errs[0]
		}
		if errors.Is(err, backend.ErrInvalid) { // a store that does not know the condition
			err = backend.ErrUnsupported
		}
		return err
	}
	kept, err := refused(attempt(stale))
	if err != nil || !kept {
		return caps, err
	}
	caps.CondBatch, err = granted(attempt(current))
	return caps, err
}

// copies looks at copies, and at the conditions of their destination.
func (p *prober) copies(ctx context.Context) (caps backend.Caps, err error) {
	copier, ok := backend.As[backend.Copier](p.b)
	if !ok {
		return caps, nil
	}
	const from, to = "copy-from", "copy-to"
	src, err := p.put(ctx, from, "new", backend.Cond{})
	if err != nil {
		return caps, err
	}
	stale, current, err := p.twice(ctx, to)
	if err != nil {
		return caps, err
	}
	attempt := func(cond backend.Cond) error {
		opts := backend.CopyOptions{SourceETag: src.ETag, Cond: cond, Metadata: map[string]string{"probe": "copy"}}
		return second(copier.Copy(ctx, p.dir+from, p.dir+to, opts))
	}
	// The one that has to succeed comes after those that must not: it makes
	// the destination another version.
	exists, err := refused(attempt(backend.Cond{IfAbsent: true}))
	if err != nil {
		return caps, err
	}
	changed, err := refused(attempt(backend.Cond{IfMatch: stale}))
	if err != nil {
		return caps, err
	}
	if exists && changed {
		if caps.CondCopy, err = granted(attempt(backend.Cond{IfMatch: current})); err != nil {
			return caps, err
		}
	}
	if caps.Copy, err = granted(attempt(backend.Cond{})); err != nil {
		return caps, err
	}
	caps.CondCopy = caps.CondCopy && caps.Copy
	return caps, nil
}

// assemblies looks at the condition of a completion.
func (p *prober) assemblies(ctx context.Context) (caps backend.Caps, err error) {
	assembler, ok := backend.As[backend.Assembler](p.b)
	if !ok {
		return caps, nil
	}
	const name = "assemble"
	stale, current, err := p.twice(ctx, name)
	if err != nil {
		return caps, err
	}
	attempt := func(cond backend.Cond) error {
		a, err := assembler.Assemble(ctx, p.dir+name, backend.PutOptions{Cond: cond})
		if err != nil {
			return err
		}
		if err = a.PutPart(ctx, 1, backend.Bytes([]byte("new"))); err == nil {
			if _, err = a.Complete(ctx); err == nil {
				return nil
			}
		}
		abortCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if abortErr := a.Abort(abortCtx); abortErr != nil && !errors.Is(abortErr, backend.ErrNotExist) {
			return errors.Join(err, abortErr)
		}
		return err
	}
	exists, err := refused(attempt(backend.Cond{IfAbsent: true}))
	if err != nil || !exists {
		return caps, err
	}
	changed, err := refused(attempt(backend.Cond{IfMatch: stale}))
	if err != nil || !changed {
		return caps, err
	}
	caps.CondAssemble, err = granted(attempt(backend.Cond{IfMatch: current}))
	return caps, err
}

// prefixes looks whether an object can be a prefix of others too.
func (p *prober) prefixes(ctx context.Context) (caps backend.Caps, err error) {
	if _, err := p.put(ctx, "prefix", "1", backend.Cond{}); err != nil {
		return caps, err
	}
	_, err = p.put(ctx, "prefix/child", "2", backend.Cond{})
	if errors.Is(err, backend.ErrBadKey) {
		return caps, nil
	}
	if err != nil {
		return caps, err
	}
	page, err := p.b.ListPage(ctx, backend.ListOptions{Prefix: p.dir + "prefix"})
	caps.ObjectPrefix = len(page.Objects) == 2
	return caps, err
}

// clean removes every object of the probe.
func (p *prober) clean(ctx context.Context) error {
	var errs []error
	for info, err := range backend.ListRecursive(ctx, p.b, p.dir) {
		if err == nil {
			err = p.b.Delete(ctx, info.Key, backend.Cond{})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
