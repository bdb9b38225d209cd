package history

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// Report is what Fsck found.
type Report struct {
	Branches int       `json:"branches"`
	Tags     int       `json:"tags"`
	Commits  int       `json:"commits"`
	Ranges   int       `json:"ranges"`
	Entries  int64     `json:"entries"` // in these ranges, each once
	Problems []Problem `json:"problems"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Kind     string `json:"kind"` // "ref", "tag", "commit", "range" or "content"
	Name     string `json:"name"`
	Text     string `json:"text"`
	Repaired bool   `json:"repaired,omitempty"`
}

// FsckOptions of Fsck. The zero value is usable.
type FsckOptions struct {
	Repair   bool // what can be derived: refs, from their logs
	Progress func(entries int64)
}

// Fsck checks every ref, tag, commit and range, and that the content of every
// entry is still in the bucket. It needs memory for the names of all objects.
// The error is of the store; what is wrong in it is in the report.
func (r *Repo) Fsck(ctx context.Context, opts FsckOptions) (*Report, error) {
	f := &fsck{r: r, opts: opts, report: &Report{Problems: []Problem{}}, seed: maphash.MakeSeed()}
	ids, err := f.roots(ctx)
	if err == nil {
		err = f.listObjects(ctx)
	}
	if err == nil {
		err = f.commits(ctx, ids)
	}
	return f.report, err
}

type fsck struct {
	r      *Repo
	opts   FsckOptions
	report *Report

	seed    maphash.Seed
	objects map[string]uint64 // hash of the ETag, by key
	pins    map[string]bool   // by key
}

func (f *fsck) problem(kind, name string, repaired bool, format string, args ...any) {
	f.report.Problems = append(f.report.Problems, Problem{kind, name, fmt.Sprintf(format, args...), repaired})
}

// broken notes an error that is about a record, and returns those of the store.
func (f *fsck) broken(kind, name string, err error) error {
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt) || errors.Is(err, backend.ErrTooLarge) {
		f.problem(kind, name, false, "%v", err)
		return nil
	}
	return err
}

// roots checks refs and tags, and returns all commits that they and the logs name.
func (f *fsck) roots(ctx context.Context) ([]string, error) {
	var ids []string
	branches := map[string]bool{}
	for name, err := range f.r.refs.Branches(ctx) {
		if err != nil {
			return nil, err
		}
		branches[name] = true
	}
	for e, err := range backend.List(ctx, f.r.raw, refs.LogDir) {
		if err != nil {
			return nil, err
		}
		if name := strings.TrimSuffix(strings.TrimPrefix(e.Key, refs.LogDir), "/"); e.Prefix && refs.CheckName(name) == nil {
			branches[name] = true
		}
	}
	for name := range branches {
		more, err := f.branch(ctx, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	for name, err := range f.r.refs.Tags(ctx) {
		if err != nil {
			return nil, err
		}
		f.report.Tags++
		tag, err := f.r.refs.LoadTag(ctx, name)
		if err != nil {
			if err := f.broken("tag", name, err); err != nil {
				return nil, err
			}
			continue
		}
		ids = append(ids, tag.Commit)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (f *fsck) branch(ctx context.Context, name string) (ids []string, err error) {
	ref, refErr := f.r.refs.Load(ctx, name)
	var last *refs.Ref
	for entry, err := range f.r.refs.Log(ctx, name) {
		if err != nil {
			if err := f.broken("ref", name, fmt.Errorf("log: %w", err)); err != nil {
				return nil, err
			}
			break
		}
		if last == nil {
			last = entry
		}
		for _, id := range []string{entry.Head, entry.Base} {
			if id != "" {
				ids = append(ids, id)
			}
		}
	}
	behind := last != nil && (refErr == nil && ref.Generation < last.Generation || refErr != nil && !last.Deleted)
	switch {
	case behind:
		repaired := false
		if f.opts.Repair {
			if repaired, err = f.r.refs.Repair(ctx, name); err != nil {
				return nil, err
			}
		}
		f.problem("ref", name, repaired, "is not what its log says (generation %d)", last.Generation)
	case errors.Is(refErr, backend.ErrNotExist): // deleted
		return ids, nil
	case refErr != nil:
		return ids, f.broken("ref", name, refErr)
	}
	f.report.Branches++
	return ids, nil
}

// listObjects notes what the bucket has.
func (f *fsck) listObjects(ctx context.Context) error {
	f.objects, f.pins = map[string]uint64{}, map[string]bool{}
	for info, err := range backend.ListRecursive(ctx, f.r.raw, "") {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(info.Key, ".kei/pins/"):
			f.pins[info.Key] = true
		case !strings.HasPrefix(info.Key, ".kei/"):
			f.objects[info.Key] = maphash.String(f.seed, info.ETag)
		}
	}
	return nil
}

func (f *fsck) commits(ctx context.Context, open []string) error {
	seen, ranges := map[string]bool{}, map[string]bool{}
	for len(open) > 0 {
		id := open[len(open)-1]
		open = open[:len(open)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		m, err := f.r.commits.Manifest(ctx, id)
		if err != nil {
			if err := f.broken("commit", id, err); err != nil {
				return err
			}
			continue
		}
		f.report.Commits++
		open = append(open, m.Parents...)
		for _, desc := range m.Ranges {
			if ranges[desc.ID] {
				continue
			}
			ranges[desc.ID] = true
			f.report.Ranges++
			if err := f.r.commits.CheckRange(ctx, desc); err != nil {
				if err := f.broken("range", desc.ID, err); err != nil {
					return err
				}
				continue
			}
			for e, err := range f.r.commits.TreeOf([]commit.Range{desc}).Walk(ctx, "", "") {
				if err != nil {
					return err
				}
				if err := f.content(ctx, &e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// content checks that what an entry names is there.
func (f *fsck) content(ctx context.Context, e *commit.Entry) error {
	f.report.Entries++
	if f.opts.Progress != nil && f.report.Entries%1000 == 0 {
		f.opts.Progress(f.report.Entries)
	}
	if tag, there := f.objects[e.Key]; there && tag == maphash.String(f.seed, e.ETag) || f.pins[overlay.PinKey(e.Key, e.ETag)] {
		return nil
	}
	// Changed since it was listed, or a version.
	err := f.r.raw.Get(ctx, e.Key, backend.GetOptions{VersionID: e.VersionID, IfMatch: e.ETag, Length: 1}, ignore)
	if err == nil {
		return nil
	}
	there, pinErr := backend.Exists(ctx, f.r.raw, overlay.PinKey(e.Key, e.ETag))
	switch {
	case pinErr != nil:
		return pinErr
	case there:
		return nil
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrPrecondition):
		f.problem("content", e.Key, false, "version %s was overwritten or deleted by another tool: %s", e.ETag, e.Path)
		return nil
	}
	return err
}

func ignore(backend.Info, io.Reader) error { return nil }
