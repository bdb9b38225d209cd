package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/overlay"
)

// based gives the branch main of a bucket a base, and a head that names
// whatever is there, so that every change is one of committed content. The
// base begins with objects that whiteouts hide, under names that the tests
// like to use. Between the steps of a test, sink makes what the branch has as
// plain objects a part of the base, as a commit and a new branch from it would
// do: the tree stays the same, and everything that follows meets the base.
type based struct {
	raw    backend.Backend
	merged *overlay.Bucket // the bucket as the branch shows it

	mu      sync.Mutex
	objects map[string]overlay.Object // of the base, by key below main
}

// hidden is what the base has at first, and the whiteout that hides it.
var hidden = map[string]string{
	"f": "f", "file": "file", "a": "a", "g": "g", "d/f": "d/", "d/sub/deep": "d/", "dir/x": "dir/x", "from/f": "from/", "other/": "other/%!",
}

func newBased(ctx context.Context, raw backend.Backend) (*based, error) {
	b := &based{raw: raw, objects: map[string]overlay.Object{}}
	b.merged = overlay.New(raw, overlay.Options{Commits: b})
	put := func(key, content string) (backend.Info, error) {
		return raw.Put(ctx, key, backend.Bytes([]byte(content)), backend.PutOptions{})
	}
	for rel, whiteout := range hidden {
		if _, err := put(".kei/whiteouts/main/"+whiteout, ""); err != nil {
			return nil, err
		}
		key := ".kei/origin/" + rel
		info, err := put(key, "long gone")
		if err != nil {
			return nil, err
		}
		b.objects[rel] = overlay.Object{Rel: rel, Key: key, ETag: info.ETag, Size: info.Size, ModTime: info.ModTime}
	}
	_, err := put(".kei/branches/main.json", fmt.Sprintf(`{"format":1,"branch":"main","generation":1,"nonce":"n","head":%q,"base":%q,"time":"2026-11-20T10:00:00Z","host":"h"}`, commitOf("head"), commitOf("base")))
	return b, err
}

func commitOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// sink moves what can be from the branch to its base.
func (b *based) sink(ctx context.Context) error {
	for info, err := range backend.ListRecursive(ctx, b.raw, "main/") {
		if err != nil {
			return err
		}
		if err := b.sinkOne(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

func (b *based) sinkOne(ctx context.Context, info backend.Info) error {
	rel := strings.TrimPrefix(info.Key, "main/")
	b.mu.Lock()
	_, was := b.objects[rel]
	for other := range b.objects {
		nests := strings.HasPrefix(rel, other+"/") || strings.HasPrefix(other, rel+"/")
		was = was || nests && !b.raw.Caps().ObjectPrefix // no commit of such a bucket has both
	}
	b.mu.Unlock()
	key := fmt.Sprintf(".kei/origin/%s", commitOf(info.Key))
	switch there, err := backend.Exists(ctx, b.raw, key); {
	case err != nil:
		return err
	case was || there || strings.Contains(info.ETag, "-"):
		return nil // a base never changes; an object of parts has another ETag when it is copied
	}
	for info, err := range backend.ListRecursive(ctx, b.raw, ".kei/whiteouts/main/") {
		if err != nil {
			return err
		}
		if hides := strings.TrimPrefix(info.Key, ".kei/whiteouts/main/"); strings.HasSuffix(hides, "/") && strings.HasPrefix(rel, hides) {
			return nil
		}
	}
	data, info, err := backend.ReadAll(ctx, b.raw, info.Key, 1<<30)
	if err != nil {
		return err
	}
	copied, err := b.raw.Put(ctx, key, backend.Bytes(data), backend.PutOptions{Metadata: info.Metadata, ContentType: info.ContentType})
	if err != nil {
		return err
	}
	if copied.ETag != info.ETag {
		return errors.New("the ETag is not that of the content")
	}
	o := overlay.Object{
		Rel: rel, Key: key, ETag: info.ETag, Size: info.Size, ModTime: info.ModTime, Metadata: info.Metadata, ContentType: info.ContentType,
	}
	b.mu.Lock()
	b.objects[rel] = o
	b.mu.Unlock()
	return b.raw.Delete(ctx, info.Key, backend.Cond{})
}

// Snapshot implements overlay.Commits.
func (b *based) Snapshot(_ context.Context, commit string) (overlay.Snapshot, error) {
	switch commit {
	case commitOf("base"):
		return b, nil
	case commitOf("head"):
		return everything{b.raw}, nil
	}
	return nil, backend.ErrNotExist
}

// Resolve implements overlay.Commits.
func (b *based) Resolve(context.Context, string, string) (string, error) {
	return "", backend.ErrNotExist
}

// Lookup implements overlay.Snapshot.
func (b *based) Lookup(_ context.Context, rel string) (overlay.Object, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[rel]
	return o, ok, nil
}

// Walk implements overlay.Snapshot.
func (b *based) Walk(ctx context.Context, prefix, from string) iter.Seq2[overlay.Object, error] {
	b.mu.Lock()
	defer b.mu.Unlock()
	rels := slices.Sorted(maps.Keys(b.objects))
	return func(yield func(overlay.Object, error) bool) {
		for _, rel := range rels {
			if !strings.HasPrefix(rel, prefix) || rel < from {
				continue
			}
			if o, _, err := b.Lookup(ctx, rel); !yield(o, err) {
				return
			}
		}
	}
}

// everything is a commit that names each object as it is.
type everything struct{ raw backend.Backend }

func (e everything) Lookup(ctx context.Context, rel string) (overlay.Object, bool, error) {
	info, err := e.raw.Stat(ctx, "main/"+rel)
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrBadKey) {
		return overlay.Object{}, false, nil
	}
	return overlay.Object{Rel: rel, Key: "main/" + rel, ETag: info.ETag}, err == nil, err
}

func (e everything) Walk(context.Context, string, string) iter.Seq2[overlay.Object, error] {
	panic("nobody walks the head")
}
