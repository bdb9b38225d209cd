package overlay

import (
	"cmp"
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/refs"
)

// moment is what a branch of a versioned bucket was at a moment, committed or
// not. The versions of an object decide, where any is as old; what was there
// before the bucket kept versions, or is of the branch's base, its commit of
// then tells.
type moment struct {
	raw      backend.Backend
	versions backend.Versioner
	branch   string
	when     time.Time
	commit   Snapshot // the branch's last one before; none: there was none
	based    bool     // the branch had a base

	mu   sync.Mutex
	gone whiteouts // of then; nil: not asked for yet
}

// momentOf is the view of a branch at the moment that a revision names. ok is
// false where it names none, or the bucket keeps no versions.
func (l *layer) momentOf(ctx context.Context, v *view) (ok bool, err error) {
	versions, versioned := backend.As[backend.Versioner](l.raw)
	now := time.Now()
	when, isTime := refs.ParseTime(l.revision, now)
	if !versioned || !l.raw.Caps().Versions || !isTime || when.After(now) {
		return false, nil
	}
	when = when.UTC()
	// What is told as an age is another moment with each question: it need
	// not be more exact than it was told.
	if other, _ := refs.ParseTime(l.revision, now.Add(time.Minute)); !other.Equal(when) {
		step := time.Second
		if now.Sub(when) >= time.Hour {
			step = time.Minute
		}
		when = when.Truncate(step)
	}
	m := &moment{raw: l.raw, versions: versions, branch: l.branch, when: when, commit: none{}}
	ref, err := l.refs.At(ctx, l.branch, when)
	if err == nil {
		m.based = ref.Base != ""
		id := cmp.Or(ref.Head, ref.Base)
		if id != "" {
			var commit Snapshot
			if commit, err = l.snapshot(ctx, id); err == nil {
				m.commit = commit
			}
		}
	}
	if err != nil && !unnamed(err) { // else there are only versions to go by
		return false, err
	}
	v.base, v.frozen, v.commit = m, true, when.Format(time.RFC3339Nano)
	return true, nil
}

// state is what an object was at the moment.
type state struct {
	Object
	there bool
}

// states yields the objects of which a version is as old as the moment, in the
// order of their keys, below prefix and not below from.
func (m *moment) states(ctx context.Context, prefix, from string) iter.Seq2[state, error] {
	return m.statesBelow(ctx, m.branch+"/", prefix, from, false)
}

// statesBelow is states below another directory of the bucket; alone: of the
// object prefix and no other.
func (m *moment) statesBelow(ctx context.Context, dir, prefix, from string, alone bool) iter.Seq2[state, error] {
	return func(yield func(state, error) bool) {
		opts := backend.ListOptions{Prefix: dir + prefix}
		if alone {
			opts.Limit = fewVersions
		}
		if after := before(from); after > prefix {
			opts.After = dir + after
		}
		last := "" // the key that is decided
		for {
			page, err := m.versions.VersionsPage(ctx, opts)
			if err != nil {
				yield(state{}, err)
				return
			}
			for _, v := range page.Versions {
				rel := v.Key[len(dir):]
				if alone && rel != prefix { // it comes before all it is the beginning of
					return
				}
				if v.Key == last || v.ModTime.After(m.when) || rel < from {
					continue
				}
				last = v.Key
				s := state{Object{Rel: rel, Key: v.Key, ETag: v.ETag, VersionID: v.VersionID, Size: v.Size, ModTime: v.ModTime}, !v.Deleted}
				if !yield(s, nil) {
					return
				}
			}
			if opts.Token = page.Next; opts.Token == "" {
				return
			}
			opts.After = ""
		}
	}
}

// before is a key from which on a listing has all that is not below from: it is
// that of a directory that is passed over, or the one right before. Empty where
// there is none to name.
func before(from string) string {
	if key, ok := strings.CutSuffix(from, "\x00"); ok {
		return key
	}
	if dir, ok := strings.CutSuffix(from, "0"); ok { // see behind
		return dir + "/\U0010ffff"
	}
	return ""
}

// fewVersions is how many are asked for at a time of one object.
const fewVersions = 64

// Lookup implements Snapshot.
func (m *moment) Lookup(ctx context.Context, rel string) (Object, bool, error) {
	for s, err := range m.statesBelow(ctx, m.branch+"/", rel, "", true) {
		return s.Object, s.there, err
	}
	o, ok, err := m.commit.Lookup(ctx, rel)
	if ok && err == nil {
		ok, err = m.shows(ctx, o)
	}
	return o, ok, err
}

// shows says whether the branch had not deleted what it only had by its commit.
func (m *moment) shows(ctx context.Context, o Object) (bool, error) {
	if strings.HasPrefix(o.Key, m.branch+"/") {
		return true, nil // from before there were versions, which would tell of the end
	}
	if !m.based {
		return false, nil // all that showed was its own, as after it was made independent
	}
	m.mu.Lock()
	w := m.gone
	m.mu.Unlock()
	if w == nil {
		w = whiteouts{}
		for s, err := range m.statesBelow(ctx, whiteoutDir+m.branch+"/", "", "", false) {
			if err != nil {
				return false, err
			}
			if s.there {
				w[s.Rel] = struct{}{}
			}
		}
		m.mu.Lock()
		m.gone = w
		m.mu.Unlock()
	}
	return !w.hides(o.Rel), nil
}

// Walk implements Snapshot.
func (m *moment) Walk(ctx context.Context, prefix, from string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		next, stop := iter.Pull2(m.commit.Walk(ctx, prefix, from))
		defer stop()
		o, err, more := next()
		// committed yields what only the commit tells, up to a key or all.
		committed := func(end string, all bool) bool {
			for more && (all || err != nil || o.Rel < end) {
				shows := err == nil
				if shows {
					shows, err = m.shows(ctx, o)
				}
				if (shows || err != nil) && !yield(o, err) || err != nil {
					return false
				}
				o, err, more = next()
			}
			if more && o.Rel == end && !all {
				o, err, more = next()
			}
			return true
		}
		for s, err := range m.states(ctx, prefix, from) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !committed(s.Rel, false) || s.there && !yield(s.Object, nil) {
				return
			}
		}
		committed("", true)
	}
}
