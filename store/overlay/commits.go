package overlay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/refs"
)

// History is the Commits of a bucket, as packages commit and refs keep them.
type History struct {
	Repo *commit.Repo
	Refs *refs.Refs
	b    backend.Backend
}

// NewHistory returns the commits of a bucket. It sends no request.
func NewHistory(b backend.Backend) *History {
	return &History{commit.New(b, commit.Options{}), refs.New(b, refs.Options{}), b}
}

// Snapshot implements Commits.
func (h *History) Snapshot(ctx context.Context, id string) (Snapshot, error) {
	m, err := h.Repo.Manifest(ctx, id)
	if err != nil {
		return nil, err
	}
	return snapshot{h.Repo.Tree(m)}, nil
}

// Resolve implements Commits.
func (h *History) Resolve(ctx context.Context, branch, revision string) (string, error) {
	return h.Find(ctx, branch+"@"+revision)
}

// Find returns the id of the commit that people call so, see refs.Rev.
// backend.ErrNotExist, backend.ErrInvalid where the beginning of an id is that
// of several, or refs.ErrBadName.
func (h *History) Find(ctx context.Context, text string) (id string, err error) {
	id, _, err = h.FindBy(ctx, text)
	return id, err
}

// FindBy is Find, and says whether it was a branch's ref that led to the commit.
func (h *History) FindBy(ctx context.Context, text string) (id string, byRef bool, err error) {
	rev, err := refs.ParseRev(text, time.Now())
	if err != nil {
		return "", false, err
	}
	switch {
	case !rev.When.IsZero():
		var ref *refs.Ref
		if ref, err = h.Refs.At(ctx, rev.Name, rev.When); err == nil {
			id = ref.Head
		}
	case rev.At != "":
		id, err = h.named(ctx, rev.At)
	default:
		id, err = h.head(ctx, rev.Name)
		byRef = err == nil
		if errors.Is(err, backend.ErrNotExist) {
			id, err = h.named(ctx, rev.Name)
		}
	}
	if err == nil && id == "" {
		err = backend.Fail("find", text, backend.ErrNotExist, errors.New("no commit yet"))
	}
	for n := 0; err == nil && n < rev.Back; n++ {
		var m *commit.Manifest
		if m, err = h.Repo.Manifest(ctx, id); err != nil {
			break
		}
		if len(m.Parents) == 0 {
			return "", false, backend.Fail("find", text, backend.ErrNotExist, fmt.Errorf("there are only %d commits before it", n))
		}
		id = m.Parents[0]
	}
	return id, byRef, err
}

func (h *History) head(ctx context.Context, branch string) (string, error) {
	ref, err := h.Refs.Load(ctx, branch)
	if err != nil {
		return "", err
	}
	return ref.Head, nil
}

// minID is how many digits of an id are needed at least.
const minID = 4

// named is the commit of a tag, or the one whose id begins so.
func (h *History) named(ctx context.Context, name string) (string, error) {
	digits := strings.Trim(name, "0123456789abcdef") == ""
	if len(name) == 64 && digits {
		return name, nil
	}
	tag, err := h.Refs.LoadTag(ctx, name)
	if err == nil {
		return tag.Commit, nil
	}
	if !errors.Is(err, backend.ErrNotExist) || !digits || len(name) < minID {
		return "", err
	}
	before := strings.TrimSuffix(commit.Key(name), ".json")
	page, err := h.b.ListPage(ctx, backend.ListOptions{Prefix: before, Limit: 2})
	switch {
	case err != nil:
		return "", err
	case len(page.Objects) > 1:
		return "", backend.Fail("find", name, backend.ErrInvalid, errors.New("several commits begin so"))
	case len(page.Objects) == 1:
		if id, ok := commit.IDOfKey(page.Objects[0].Key); ok {
			return id, nil
		}
	}
	return "", backend.Fail("find", name, backend.ErrNotExist, nil)
}

// snapshot is the tree of a commit.
type snapshot struct{ tree *commit.Tree }

func (s snapshot) Lookup(ctx context.Context, rel string) (Object, bool, error) {
	e, ok, err := s.tree.Lookup(ctx, rel)
	return objectOf(e), ok, err
}

func (s snapshot) Walk(ctx context.Context, prefix, from string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for e, err := range s.tree.Walk(ctx, prefix, from) {
			if !yield(objectOf(e), err) {
				return
			}
		}
	}
}

func objectOf(e commit.Entry) Object {
	return Object{
		Rel: e.Path, Key: e.Key, ETag: e.ETag, VersionID: e.VersionID, Size: e.Size, ModTime: time.Unix(0, e.Modified),
	}
}
