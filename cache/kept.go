package cache

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/keifs/keifs/cache/shelf"
	"github.com/keifs/keifs/store"
)

// kept are the attributes that were learnt, by question or by a change of this
// volume. A listing tells of an object everything but these, and where they
// are sure to be those of what it lists (store.Entry.Holds), no question is
// needed. They outlive a remount: see package shelf.
//
// An entry goes to the disk when it is some seconds old. Until then this
// volume may still change it within one second of the store's clock, and if it
// died right after that, the next one would believe what is on the disk.
type kept struct {
	shelf  *shelf.Shelf
	frozen func(branch string) bool
	log    *slog.Logger

	mu     sync.Mutex
	recent map[string]keptEntry // by key: not on the disk yet
}

// keptEntry is what is known of one name.
type keptEntry struct {
	entry *store.Entry // nil: nothing is known
	at    time.Time
}

const (
	ripeAfter  = 4 * time.Second // longer than two objects can have one time
	keepEvery  = 2 * time.Second
	maxRecent  = 100_000
	keptFormat = 1
	// fewKept are not worth a file.
	fewKept = 32
)

// openKept opens the file. Without one that can be used, attributes are kept
// in memory only, for a while.
func openKept(path string, s *store.Store, most int, log *slog.Logger) *kept {
	k := &kept{frozen: s.Frozen, log: log, recent: map[string]keptEntry{}}
	var err error
	k.shelf, err = shelf.Open(path, shelf.Options{
		Owner: fmt.Sprintf("%d %s %s", keptFormat, s.BackendName(), s.Defaults()), Max: most, Logger: log,
	})
	if err != nil {
		log.Warn("attributes are not kept on the local disk", "file", path, "err", err)
		return k
	}
	young, err := k.shelf.TakeAside()
	if err != nil { // they would be there again the next time, and not be true any more
		log.Warn("attributes are not kept on the local disk", "file", path, "err", err)
		k.shelf.Close()
		k.shelf = nil
		_ = os.Remove(path)
		return k
	}
	now := time.Now()
	for _, p := range young {
		if e, err := store.EntryFrom("", p.Value); err == nil {
			k.recent[string(p.Key)] = keptEntry{&e, now}
		}
	}
	return k
}

// keptKey names an entry: those of a directory are beside each other.
func keptKey(branch string, p store.Path) string { return branch + "\x00" + p.String() }

// learn takes what the bucket told of p, or what was stored there.
func (k *kept) learn(branch string, p store.Path, e store.Entry) {
	if p.IsRoot() || k.frozen(branch) || e.Partial || e.Listed || e.IsDir() && !e.Marker {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := keptKey(branch, p)
	before, ok := k.recent[key]
	if e.Holds == (store.Times{}) {
		// It may be another's change that no time tells from what is known,
		// unless it says the same.
		if ok && before.entry != nil && before.entry.Version == e.Version && before.entry.Holds.Has(e.Changed) && sameAttr(before.entry.Attr, e.Attr) {
			return
		}
		k.recent[key] = keptEntry{at: time.Now()}
		return
	}
	if ok || len(k.recent) < maxRecent {
		e.Name, e.State = "", ""
		k.recent[key] = keptEntry{&e, time.Now()}
	}
}

func sameAttr(a, b store.Attr) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Mtime.Equal(b.Mtime) && a.Atime.Equal(b.Atime) &&
		a.Ctime.Equal(b.Ctime) && a.ContentType == b.ContentType && maps.Equal(a.Foreign, b.Foreign) &&
		maps.EqualFunc(a.Xattrs, b.Xattrs, slices.Equal[[]byte])
}

// doubt forgets what is known of p: a change of it may have happened, or not.
func (k *kept) doubt(branch string, p store.Path) {
	if p.IsRoot() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.recent[keptKey(branch, p)] = keptEntry{at: time.Now()}
}

// drop forgets p and all below it.
func (k *kept) drop(branch string, p store.Path) error {
	key := keptKey(branch, p)
	below := key + "/"
	if p.IsRoot() {
		below = key
	}
	k.mu.Lock()
	maps.DeleteFunc(k.recent, func(other string, _ keptEntry) bool {
		return other == key || len(other) >= len(below) && other[:len(below)] == below
	})
	k.mu.Unlock()
	if !p.IsRoot() {
		if err := k.shelf.Put([]shelf.Pair{{Key: []byte(key)}}); err != nil {
			return err
		}
	}
	return k.shelf.Drop([]byte(below))
}

// complete completes the entries of a directory that a listing has just told,
// as far as their attributes are known. The slice is the caller's own.
func (k *kept) complete(branch string, dir store.Path, all []store.Entry) {
	i := slices.IndexFunc(all, wanting)
	if i < 0 || k.frozen(branch) {
		return
	}
	prefix := keptKey(branch, dir)
	if !dir.IsRoot() {
		prefix += "/"
	}
	k.shelf.Read(func(get func([]byte) ([]byte, bool)) {
		key := []byte(prefix)
		for ; i < len(all); i++ {
			if e := &all[i]; wanting(*e) {
				key = append(key[:len(prefix)], e.Name...)
				k.completeOne(e, key, get)
			}
		}
	})
	for ; i < len(all); i++ { // without a shelf
		if e := &all[i]; wanting(*e) {
			k.completeOne(e, []byte(prefix+e.Name), func([]byte) ([]byte, bool) { return nil, false })
		}
	}
}

// wanting says whether an entry is not complete and what it lacks may be known.
func wanting(e store.Entry) bool { return e.Partial && !e.Changed.IsZero() }

func (k *kept) completeOne(e *store.Entry, key []byte, get func([]byte) ([]byte, bool)) {
	k.mu.Lock()
	r, ok := k.recent[string(key)]
	k.mu.Unlock()
	if ok {
		if r.entry != nil && fits(*r.entry, *e) {
			*e = as(*r.entry, *e)
		}
		return
	}
	value, aging := get(key)
	if value == nil {
		return
	}
	found, err := store.EntryFrom(e.Name, value)
	if err != nil || !fits(found, *e) {
		return
	}
	if aging {
		k.mu.Lock()
		if _, ok := k.recent[string(key)]; !ok && len(k.recent) < maxRecent {
			k.recent[string(key)] = keptEntry{&found, time.Now()}
		}
		k.mu.Unlock()
	}
	*e = as(found, *e)
}

// as is what is known, under the name and with the time that were listed.
func as(known, listed store.Entry) store.Entry {
	known.Name, known.Changed = listed.Name, listed.Changed
	return known
}

// fits says whether what is known is of the object that was listed.
func fits(known, listed store.Entry) bool {
	return known.IsDir() == listed.IsDir() && known.Version == listed.Version && known.Holds.Has(listed.Changed) &&
		(known.IsDir() && listed.Marker || known.Size == listed.Size)
}

// run writes to the disk what is ripe, until quit is closed.
func (k *kept) run(quit <-chan struct{}) {
	if k.shelf == nil {
		return
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := k.flush(); err != nil {
				k.log.Warn("attributes are not kept on the local disk", "err", err)
			}
		case <-quit:
			return
		}
	}
}

// flush writes what is ripe.
func (k *kept) flush() error {
	var pairs []shelf.Pair
	now := time.Now()
	k.mu.Lock()
	for key, r := range k.recent {
		if now.Sub(r.at) >= ripeAfter {
			pairs = append(pairs, r.pair(key))
		}
	}
	k.mu.Unlock()
	if len(pairs) < fewKept && !k.shelf.There() {
		return nil
	}
	err := k.shelf.Put(sorted(pairs))
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, r := range k.recent {
		if now.Sub(r.at) >= ripeAfter && (err == nil || r.entry != nil) {
			delete(k.recent, key)
		}
	}
	return err
}

func (r keptEntry) pair(key string) shelf.Pair {
	p := shelf.Pair{Key: []byte(key)}
	if r.entry != nil {
		p.Value = r.entry.AppendBytes(nil)
	}
	return p
}

// sorted is the order in which the disk takes them best.
func sorted(pairs []shelf.Pair) []shelf.Pair {
	slices.SortFunc(pairs, func(a, b shelf.Pair) int { return slices.Compare(a.Key, b.Key) })
	return pairs
}

// close writes everything: what is not ripe so that the next one takes it into
// its memory.
func (k *kept) close() error {
	err := k.flush()
	var young, gone []shelf.Pair
	k.mu.Lock()
	for key, r := range k.recent {
		if r.entry == nil {
			gone = append(gone, r.pair(key))
		} else {
			young = append(young, r.pair(key))
		}
	}
	k.mu.Unlock()
	if len(young) < fewKept && !k.shelf.There() {
		gone, young = nil, nil
	}
	if gerr := k.shelf.Put(sorted(gone)); err == nil {
		err = gerr
	}
	if perr := k.shelf.PutAside(sorted(young)); err == nil {
		err = perr
	}
	if cerr := k.shelf.Close(); err == nil {
		err = cerr
	}
	return err
}
