package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// A listing tells no metadata, and to ask for that of each object would cost a
// request a file. So keifs leaves a record before it first stores attributes
// in a branch, .kei/attributes/BRANCH, and that it is there, and since when by
// the store's clock, tells for which objects a listing is all there is to know.

// Attrs says where attributes come from that a listing cannot tell.
type Attrs int

// The ways.
const (
	// AttrsAsk: always asked for, and no record is left. For buckets that
	// nobody uses who looks for the record.
	AttrsAsk  Attrs = iota
	AttrsAuto       // asked for where keifs may have stored some
	AttrsList       // not asked for when a listing is at hand: all have the defaults
	AttrsHead       // always asked for: other tools may have stored some
)

const (
	// absentFor is for how long a branch that had no attributes of its own is
	// believed to have none: it gets its record once in its life.
	absentFor = 5 * time.Second
	// clockSlack is how far the clocks of a store's machines may be apart.
	clockSlack = time.Minute
)

// knowledge is for which objects of a branch a listing tells everything.
type knowledge struct {
	all    bool      // for all
	before time.Time // for those of an earlier time
}

// attrRecords is what is known of the records, by branch.
type attrRecords struct {
	mu    sync.Mutex
	known map[string]attrRecord
}

type attrRecord struct {
	there bool
	since time.Time // of the record; zero where it is there, but not known since when
	asked time.Time
}

func (s *Store) attrKey() string { return attrDir + strings.TrimSuffix(s.prefix, "/") }

// known is the knowledge of this branch. Where it cannot be had, it is none,
// which is always right.
func (s *Store) known(ctx context.Context) knowledge {
	switch {
	case s.isRoot() || s.opts.Attrs == AttrsAsk || s.opts.Attrs == AttrsHead:
		return knowledge{}
	case s.opts.Attrs == AttrsList || !s.b.Caps().Metadata:
		return knowledge{all: true}
	case s.b.HasBase(ctx, strings.TrimSuffix(s.prefix, "/")): // whose files are older, and have attributes
		return knowledge{}
	}
	s.attrs.mu.Lock()
	r, ok := s.attrs.known[s.branch]
	s.attrs.mu.Unlock()
	if !ok || !r.there && time.Since(r.asked) > absentFor || r.there && r.since.IsZero() {
		r = attrRecord{asked: time.Now()}
		info, err := s.b.Stat(ctx, s.attrKey())
		switch {
		case err == nil:
			r.there, r.since = true, info.ModTime
		case !errors.Is(err, backend.ErrNotExist):
			return knowledge{}
		}
		s.noteAttrs(r)
	}
	if !r.there {
		return knowledge{all: true}
	}
	return knowledge{before: r.since.Add(-clockSlack)}
}

// noteAttrs remembers an answer; what is there stays there.
func (s *Store) noteAttrs(r attrRecord) {
	s.attrs.mu.Lock()
	defer s.attrs.mu.Unlock()
	if old := s.attrs.known[s.branch]; old.there && (!r.there || !old.since.IsZero()) {
		return
	}
	s.attrs.known[s.branch] = r
}

// markAttrs sees to it that the branch has its record, before an object with
// attributes goes into it. Without, other mounts would not look for them.
func (s *Store) markAttrs(ctx context.Context, caps backend.Caps) error {
	if s.isRoot() || s.opts.Attrs == AttrsAsk || !caps.Metadata {
		return nil
	}
	s.attrs.mu.Lock()
	r := s.attrs.known[s.branch]
	s.attrs.mu.Unlock()
	if r.there {
		return nil
	}
	cond := backend.Cond{IfAbsent: true}
	if !caps.CondCreate {
		if there, err := backend.Exists(ctx, s.b, s.attrKey()); err != nil || there {
			if there {
				s.noteAttrs(attrRecord{there: true})
			}
			return err
		}
		cond = backend.Cond{}
	}
	_, err := s.b.Put(ctx, s.attrKey(), backend.Bytes([]byte(attrRecordText)), backend.PutOptions{Cond: cond, ContentType: "application/json"})
	if err != nil && !errors.Is(err, backend.ErrPrecondition) {
		return fmt.Errorf("note that branch %q has attributes: %w", s.branch, err)
	}
	s.noteAttrs(attrRecord{there: true})
	return nil
}

// attrRecordText is the content of a record. Only that it is there means something.
const attrRecordText = `{"format":1}` + "\n"

// dir is a directory that a listing names, without telling of its marker.
func (k knowledge) dir(o *Options, name string) Entry {
	if !k.all {
		return Entry{Name: name, Partial: true, Attr: Attr{Mode: ModeDir}}
	}
	return Entry{Name: name, Listed: true, Attr: o.decode(backend.Info{ModTime: time.Unix(0, 0)}, true)}
}

// file is a file that a listing names.
func (k knowledge) file(o *Options, name string, info backend.Info) Entry {
	e := Entry{Name: name, Size: info.Size, Version: info.ETag, Changed: info.ModTime}
	if k.all || info.ModTime.Before(k.before) {
		e.Listed, e.Attr = true, o.decode(info, false)
		return e
	}
	e.Partial, e.Attr = true, Attr{Mode: ModeRegular, Mtime: info.ModTime}
	return e
}
