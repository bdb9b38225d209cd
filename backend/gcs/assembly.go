package gcs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/api/storage/v1"

	"github.com/keifs/keifs/backend"
)

const (
	// maxCompose is how many objects one request joins.
	maxCompose = 32
	// composeAtOnce is how many of these requests an assembly has on the wire.
	composeAtOnce = 8
	// partAge is how old a part is that nobody needs any more.
	partAge = 7 * 24 * time.Hour
)

// Assemble begins an assembly. The store has no uploads in parts: each part is
// an object below a reserved prefix, and in the end the store joins them, 32 by
// a request, so that there is a tree of them where there are more.
func (b *bucket) Assemble(ctx context.Context, key string, opts backend.PutOptions) (backend.Assembly, error) {
	if err := b.checkPut("assemble", key, -1, opts); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("assemble %s: %w", key, err)
	}
	if !b.swept.Swap(true) {
		if err := b.sweep(ctx); err != nil {
			b.log.Debug("old parts of uploads may be left", "store", b.url, "err", err)
		}
	}
	opts.Metadata = b.attrs(opts).Metadata // that of the caller is his again
	return &assembly{b: b, key: key, opts: opts, dir: b.full(reserved + "parts/" + rand.Text() + "/"), parts: map[int]string{}, joined: map[string]string{}}, nil
}

// sweep deletes the parts that crashed processes have left.
func (b *bucket) sweep(ctx context.Context) error {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	out, err := b.objects.List(b.name).Prefix(b.full(reserved)).Fields("items(name,updated)").Context(ctx).Do()
	if err != nil {
		return err
	}
	for _, o := range out.Items {
		if updated, err := time.Parse(time.RFC3339, o.Updated); err != nil || time.Since(updated) < partAge {
			continue
		}
		if err := b.deletePart(ctx, o.Name); err != nil {
			return err
		}
	}
	return nil
}

type assembly struct {
	b    *bucket
	key  string
	opts backend.PutOptions
	dir  string // of all objects that it makes

	mu     sync.Mutex
	parts  map[int]string    // number to name
	joined map[string]string // what was joined already: the first name to that of the whole
	made   []string          // every name that may be there
}

// name is a new one. It is remembered before anything is sent.
func (a *assembly) name(what string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := fmt.Sprintf("%s%s-%d", a.dir, what, len(a.made))
	a.made = append(a.made, name)
	return name
}

func (a *assembly) add(number int, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts[number] = name
}

func (a *assembly) check(op string, number int, size int64) error {
	if number < 1 {
		return backend.Fail(op, a.key, backend.ErrInvalid, fmt.Errorf("part %d", number))
	}
	if number > a.b.caps.MaxParts || size > a.b.caps.MaxPart {
		return backend.Fail(op, a.key, backend.ErrTooLarge, fmt.Errorf("part %d of %d bytes", number, size))
	}
	return nil
}

func (a *assembly) PutPart(ctx context.Context, number int, src backend.Source) error {
	if err := a.check("putpart", number, src.Size()); err != nil {
		return err
	}
	name := a.name(fmt.Sprint(number))
	if _, err := a.b.upload(ctx, "putpart", name, src, backend.PutOptions{}); err != nil {
		return err
	}
	a.add(number, name)
	return nil
}

// CopyPart has the store copy a whole object. It cannot copy a range: that
// goes through here.
func (a *assembly) CopyPart(ctx context.Context, number int, key, etag string, offset, length int64) error {
	if err := a.check("copypart", number, length); err != nil {
		return err
	}
	b := a.b
	if err := b.checkKey("copypart", key); err != nil {
		return err
	}
	if offset < 0 || length <= 0 {
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d", offset, length))
	}
	from, err := b.stat(ctx, "copypart", key)
	if err != nil {
		return err
	}
	version := listed(key, from).ETag
	switch {
	case etag != "" && etag != version:
		return backend.Fail("copypart", key, backend.ErrPrecondition, fmt.Errorf("it is %s by now", version))
	case length > int64(from.Size)-offset:
		return backend.Fail("copypart", key, backend.ErrInvalid, fmt.Errorf("range %d+%d of %d bytes", offset, length, from.Size))
	}
	name := a.name(fmt.Sprint(number))
	if offset == 0 && length == int64(from.Size) {
		_, err = b.rewrite(ctx, "copypart", b.full(key), name, version, backend.Cond{}, &storage.Object{ContentType: from.ContentType, StorageClass: b.class})
	} else {
		err = b.transfer(ctx, key, version, offset, length, name)
	}
	if err != nil {
		return err
	}
	a.add(number, name)
	return nil
}

// Complete joins the parts. What was joined when it failed is not joined again.
func (a *assembly) Complete(ctx context.Context) (backend.Info, error) {
	names, err := a.list()
	if err != nil {
		return backend.Info{}, err
	}
	for level := 1; len(names) > maxCompose; level++ {
		if names, err = a.join(ctx, level, names); err != nil {
			return backend.Info{}, err
		}
	}
	b := a.b
	o, err := b.compose(ctx, a.key, b.full(a.key), names, a.opts)
	if err != nil {
		return backend.Info{}, err
	}
	// The object is there: that a part is left is no reason to say otherwise.
	if err := a.Abort(ctx); err != nil {
		b.log.Warn("parts of an upload are left; they are deleted in a week", "store", b.url, "prefix", a.dir, "err", err)
	}
	return b.info(a.key, o), nil
}

// list is the names of the parts in order.
func (a *assembly) list() ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.parts) == 0 {
		return nil, backend.Fail("complete", a.key, backend.ErrInvalid, errors.New("no parts"))
	}
	names := make([]string, len(a.parts))
	for i := range names {
		name, ok := a.parts[i+1]
		if !ok {
			return nil, backend.Fail("complete", a.key, backend.ErrInvalid, fmt.Errorf("no part %d", i+1))
		}
		names[i] = name
	}
	return names, nil
}

// join makes one object of every 32, and returns their names.
func (a *assembly) join(ctx context.Context, level int, names []string) ([]string, error) {
	groups := slices.Collect(slices.Chunk(names, maxCompose))
	out, errs := make([]string, len(groups)), make([]error, len(groups))
	var wg sync.WaitGroup
	slots := make(chan struct{}, composeAtOnce)
	for i, group := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i], errs[i] = a.joinOne(ctx, fmt.Sprintf("join%d", level), group)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *assembly) joinOne(ctx context.Context, what string, group []string) (string, error) {
	id := strings.Join(group, "\n")
	a.mu.Lock()
	name, done := a.joined[id]
	a.mu.Unlock()
	if done {
		return name, nil
	}
	name = a.name(what)
	if _, err := a.b.compose(ctx, a.key, name, group, backend.PutOptions{}); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.joined[id] = name
	return name, nil
}

// compose is the request that joins objects.
func (b *bucket) compose(ctx context.Context, key, to string, names []string, opts backend.PutOptions) (*storage.Object, error) {
	ctx, w := b.WatchLong(ctx)
	defer w.Stop()
	req := &storage.ComposeRequest{Destination: b.attrs(opts)}
	for _, name := range names {
		req.SourceObjects = append(req.SourceObjects, &storage.ComposeRequestSourceObjects{Name: name})
	}
	call := b.objects.Compose(b.name, to, req).Context(ctx)
	apply(call, opts.Cond)
	o, err := call.Do()
	return o, b.fail(ctx, "complete", key, err)
}

// Abort deletes all that was made.
func (a *assembly) Abort(ctx context.Context) error {
	a.mu.Lock()
	names := slices.Clone(a.made)
	a.mu.Unlock()
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, composeAtOnce)
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = a.b.deletePart(ctx, name)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.made, a.parts, a.joined = a.made[len(names):], map[int]string{}, map[string]string{}
	return nil
}

func (b *bucket) deletePart(ctx context.Context, name string) error {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	err := b.fail(ctx, "abort", strings.TrimPrefix(name, b.prefix), b.objects.Delete(b.name, name).Context(ctx).Do())
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// transfer stores a range of an object as another one, by way of a temporary
// file: a request is not held open for another one, which a store may make wait
// for the first.
func (b *bucket) transfer(ctx context.Context, key, etag string, offset, length int64, name string) error {
	file, err := os.CreateTemp("", "keifs-part-*")
	if err != nil {
		return backend.Fail("copypart", key, backend.ErrTransient, err)
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // it lives as long as it is open
		return backend.Fail("copypart", key, backend.ErrTransient, err)
	}
	err = b.Get(ctx, key, backend.GetOptions{Offset: offset, Length: length, IfMatch: etag}, func(_ backend.Info, body io.Reader) error {
		_, err := io.Copy(io.NewOffsetWriter(file, 0), body)
		return err
	})
	if err != nil {
		return err
	}
	_, err = b.upload(ctx, "copypart", name, io.NewSectionReader(file, 0, length), backend.PutOptions{})
	return err
}
