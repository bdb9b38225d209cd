package history

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

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
	Kind     string `json:"kind"` // "ref", "mark", "whiteout", "tag", "commit", "range", "pin" or "content"
	Name     string `json:"name"`
	Text     string `json:"text"`
	Repaired bool   `json:"repaired,omitempty"`
}

// FsckOptions of Fsck. The zero value is usable.
type FsckOptions struct {
	Repair bool // what can be derived

	// DeadAfter is the age at which the mark of a commit is taken for that of one
	// that died; default an hour. One that still runs does not finish
	// when its mark is taken away.
	DeadAfter time.Duration
	Progress  func(entries int64)
}

// Fsck checks every ref, tag, commit and range, and that the content of every
// entry is still in the bucket. It needs memory for the names of all objects.
// The error is of the store; what is wrong in it is in the report.
func (r *Repo) Fsck(ctx context.Context, opts FsckOptions) (*Report, error) {
	if opts.DeadAfter <= 0 {
		opts.DeadAfter = time.Hour
	}
	f := &fsck{r: r, opts: opts, report: &Report{Problems: []Problem{}}, seed: maphash.MakeSeed(), reached: map[string]bool{}}
	for _, step := range []func(context.Context) error{f.refs, f.marks, f.tags, f.listObjects, f.commits, f.whiteouts, f.behind} {
		if err := step(ctx); err != nil {
			return f.report, err
		}
	}
	return f.report, nil
}

type fsck struct {
	r      *Repo
	opts   FsckOptions
	report *Report

	// Commits, and whether they must be there: not where only the log of a
	// branch names them that was deleted since.
	reached map[string]bool
	late    []*refs.Ref // newest entries of logs that their refs did not point to
	lossy   []string    // branches whose logs lack what they must have
	marked  []*refs.Ref // that somebody commits to
	based   []*refs.Ref // that have a base, and a commit of their own

	seed    maphash.Seed
	objects map[string]uint64 // hash of the ETag, by key
	pins    map[string]int64  // size, by key
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

// refs checks refs and their logs.
func (f *fsck) refs(ctx context.Context) error {
	branches := map[string]bool{}
	for name, err := range f.r.refs.Branches(ctx) {
		if err != nil {
			return err
		}
		branches[name] = true
	}
	for e, err := range backend.List(ctx, f.r.raw, refs.LogDir) {
		if err != nil {
			return err
		}
		if name := strings.TrimSuffix(strings.TrimPrefix(e.Key, refs.LogDir), "/"); e.Prefix && refs.CheckName(name) == nil {
			branches[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(branches)) {
		if err := f.branch(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsck) branch(ctx context.Context, name string) error {
	ref, refErr := f.r.refs.Load(ctx, name)
	if refErr == nil {
		f.reach(true, named(ref)...)
		if ref.Committing != "" {
			f.marked = append(f.marked, ref)
		}
		if ref.Base != "" && ref.Head != "" && ref.Head != ref.Base {
			f.based = append(f.based, ref)
		}
	}
	lost, err := f.r.refs.Lost(ctx, name)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		f.lossy = append(f.lossy, name)
	}
	var last *refs.Ref
	deleted := false
	for entry, err := range f.r.refs.Log(ctx, name) {
		if err != nil {
			if errors.Is(err, backend.ErrNotExist) {
				break // which is told below
			}
			if err := f.broken("ref", name, fmt.Errorf("log: %w", err)); err != nil {
				return err
			}
			break
		}
		if last == nil {
			last = entry
		}
		deleted = deleted || entry.Deleted
		f.reach(!deleted, named(entry)...)
	}
	switch {
	case last != nil && (refErr == nil && ref.Generation < last.Generation || refErr != nil && !last.Deleted):
		f.late = append(f.late, last)
	case errors.Is(refErr, backend.ErrNotExist): // deleted
		return nil
	case refErr != nil:
		return f.broken("ref", name, refErr)
	}
	f.report.Branches++
	return nil
}

func (f *fsck) reach(needed bool, ids ...string) {
	for _, id := range ids {
		f.reached[id] = f.reached[id] || needed
	}
}

// tags checks the tags.
func (f *fsck) tags(ctx context.Context) error {
	for name, err := range f.r.refs.Tags(ctx) {
		if err != nil {
			return err
		}
		f.report.Tags++
		tag, err := f.r.refs.LoadTag(ctx, name)
		if err != nil {
			if err := f.broken("tag", name, err); err != nil {
				return err
			}
			continue
		}
		f.reach(true, tag.Commit)
	}
	return nil
}

// listObjects notes what the bucket has.
func (f *fsck) listObjects(ctx context.Context) error {
	f.objects, f.pins = map[string]uint64{}, map[string]int64{}
	for info, err := range backend.ListRecursive(ctx, f.r.raw, "") {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(info.Key, overlay.PinDir):
			f.pins[info.Key] = info.Size
		case !strings.HasPrefix(info.Key, ".kei/"):
			f.objects[info.Key] = maphash.String(f.seed, info.ETag)
		}
	}
	return nil
}

// commits checks commits and their ranges. Those that must be there come first,
// so that all before them must be as well.
func (f *fsck) commits(ctx context.Context) error {
	seen, ranges := map[string]bool{}, map[string]bool{}
	for _, needed := range []bool{true, false} {
		var open []string
		for id, n := range f.reached {
			if n == needed {
				open = append(open, id)
			}
		}
		slices.Sort(open)
		for len(open) > 0 {
			id := open[len(open)-1]
			open = open[:len(open)-1]
			if seen[id] {
				continue
			}
			m, err := f.r.commits.CheckManifest(ctx, id)
			if !needed && errors.Is(err, backend.ErrNotExist) {
				continue
			}
			seen[id] = true
			if err != nil {
				if err := f.broken("commit", id, err); err != nil {
					return err
				}
				continue
			}
			f.report.Commits++
			open = append(open, m.Parents...)
			for _, desc := range m.Ranges {
				if !ranges[desc.ID] {
					ranges[desc.ID] = true
					if err := f.rangeOf(ctx, desc); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// rangeOf checks a range and its entries.
func (f *fsck) rangeOf(ctx context.Context, desc commit.Range) error {
	f.report.Ranges++
	for e, err := range f.r.commits.CheckRange(ctx, desc) {
		if err != nil {
			return f.broken("range", desc.ID, err)
		}
		if err := f.content(ctx, &e); err != nil {
			return err
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
	if tag, there := f.objects[e.Key]; there && tag == maphash.String(f.seed, e.ETag) {
		return nil
	}
	if size, there := f.pins[overlay.PinKey(e.Key, e.ETag)]; there {
		if size != e.Size {
			f.problem("pin", e.Key, false, "the pin of version %s has %d bytes of %d: %s", e.ETag, size, e.Size, e.Path)
		}
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
	case errors.Is(err, backend.ErrNotExist), errors.Is(err, backend.ErrPrecondition),
		errors.Is(err, backend.ErrUnsupported): // a version, where the bucket keeps none any more
		f.problem("content", e.Key, false, "version %s was overwritten or deleted by another tool: %s", e.ETag, e.Path)
		return nil
	}
	return err
}

func ignore(backend.Info, io.Reader) error { return nil }
