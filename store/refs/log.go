package refs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/keifs/keifs/backend"
)

// Log yields the generations of a branch's ref, the newest first, down to the
// first or to what a collection of garbage left. It needs a request each, as
// the caller proceeds. An error is yielded last. A branch that was deleted has
// one as well; one that never had a ref gives backend.ErrNotExist.
func (r *Refs) Log(ctx context.Context, branch string) iter.Seq2[*Ref, error] {
	return func(yield func(*Ref, error) bool) {
		if err := CheckName(branch); err != nil {
			yield(nil, err)
			return
		}
		ref, err := r.last(ctx, branch)
		if err != nil {
			yield(nil, err)
			return
		}
		for yield(ref, nil) && ref.Generation > 1 {
			older, err := r.read(ctx, logKey(branch, ref.Generation-1), branch)
			if errors.Is(err, backend.ErrNotExist) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			ref = older
		}
	}
}

// At is the generation of a branch that was current at a time.
// backend.ErrNotExist where there was none, or it is not known any more.
func (r *Refs) At(ctx context.Context, branch string, when time.Time) (*Ref, error) {
	for ref, err := range r.Log(ctx, branch) {
		if err != nil {
			return nil, err
		}
		if !ref.Time.After(when) {
			if ref.Deleted {
				break
			}
			return ref, nil
		}
	}
	return nil, fmt.Errorf("branch %q at %s: no history that old: %w", branch, when.Format(time.RFC3339), backend.ErrNotExist)
}

// Tag is a name for a commit.
type Tag struct {
	Format  int       `json:"format"`
	Name    string    `json:"name"`
	Commit  string    `json:"commit"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`
	Message string    `json:"message,omitempty"`
}

// ParseTag reads the record of a tag, strictly. backend.ErrCorrupt.
func ParseTag(data []byte) (*Tag, error) {
	var t Tag
	if err := decode(data, &t); err != nil {
		return nil, err
	}
	if t.Format != refFormat || CheckName(t.Name) != nil || !validID(t.Commit) || !sensible(t.Time, t.Host, t.Message) {
		return nil, fmt.Errorf("tag: %w", backend.ErrCorrupt)
	}
	return &t, nil
}

// CreateTag names a commit, which is not checked. ErrExist, ErrBadName,
// ErrNoConditions.
func (r *Refs) CreateTag(ctx context.Context, name, commit, message string) (*Tag, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	caps, err := r.caps(ctx)
	if err != nil {
		return nil, err
	}
	t := &Tag{Format: refFormat, Name: name, Commit: commit, Time: r.opts.Now().UTC(), Host: r.opts.Host, Message: shorten(message)}
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	_, err = r.b.Put(ctx, TagDir+name+kind, backend.Bytes(data), backend.PutOptions{
		Cond: backend.Cond{IfAbsent: caps.CondCreate}, ContentType: "application/json",
	})
	if errors.Is(err, backend.ErrPrecondition) {
		there, readErr := r.LoadTag(ctx, name)
		if readErr == nil && there.Commit == commit && there.Time.Equal(t.Time) && there.Host == t.Host {
			return there, nil // an answer got lost
		}
		return nil, fmt.Errorf("tag %q: %w", name, ErrExist)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// LoadTag reads a tag. backend.ErrNotExist, backend.ErrCorrupt.
func (r *Refs) LoadTag(ctx context.Context, name string) (*Tag, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	data, _, err := backend.ReadAll(ctx, r.b, TagDir+name+kind, maxRecord)
	if err != nil {
		return nil, err
	}
	t, err := ParseTag(data)
	if err == nil && t.Name != name {
		err = backend.ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("tag %q: %w", name, err)
	}
	return t, nil
}

// Tags yields the names of all tags, sorted. An error is yielded last.
func (r *Refs) Tags(ctx context.Context) iter.Seq2[string, error] { return r.names(ctx, TagDir) }

// DeleteTag removes a tag. backend.ErrNotExist.
func (r *Refs) DeleteTag(ctx context.Context, name string) error {
	if _, err := r.LoadTag(ctx, name); err != nil {
		return err
	}
	return r.b.Delete(ctx, TagDir+name+kind, backend.Cond{})
}
