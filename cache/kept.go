package cache

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/cache/shelf"
	"github.com/keifs/keifs/store"
)

// kept are the attributes that the bucket told of objects. A listing tells of
// an object everything but these, and where they are sure to be those of what
// it lists (store.Entry.Holds), no question is needed. What is kept is true for
// ever, so nothing that changes takes it away. It outlives a remount: see
// package shelf.
type kept struct {
	shelf  *shelf.Shelf
	frozen func(branch string) bool
	log    *slog.Logger
	warned sync.Once

	writing sync.Mutex // held by who writes to the disk, and taken before mu

	mu     sync.Mutex
	recent map[string]*store.Entry // by key: not on the disk yet
	drops  int                     // so many times something was forgotten
}

const (
	keepEvery  = 2 * time.Second
	maxRecent  = 100_000
	keptFormat = 2
	// fewKept are not worth a file.
	fewKept = 32
)

// openKept opens the file. Without one that can be used, attributes are kept
// in memory only, for a while.
func openKept(path string, s *store.Store, most int, log *slog.Logger) *kept {
	k := &kept{frozen: s.Frozen, log: log, recent: map[string]*store.Entry{}}
	var err error
	k.shelf, err = shelf.Open(path, shelf.Options{
		Owner: fmt.Sprintf("%d %s %s", keptFormat, s.BackendName(), s.Defaults()), Max: most, Logger: log,
	})
	if err != nil {
		log.Warn("attributes are not kept on the local disk", "file", path, "err", err)
	}
	return k
}

// keptKey names an entry: those of a directory are beside each other.
func keptKey(branch string, p store.Path) string { return branch + "\x00" + p.String() }

// learn takes what the bucket told of p.
func (k *kept) learn(branch string, p store.Path, e store.Entry) {
	if p.IsRoot() || e.Holds == (store.Times{}) || e.Partial || e.Listed || e.IsDir() && !e.Marker || k.frozen(branch) {
		return
	}
	key := keptKey(branch, p)
	e.Name, e.State = "", ""
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.recent[key]; ok || len(k.recent) < maxRecent {
		k.recent[key] = &e
	}
}

// drop forgets p and all below it; everything for the root of the branch "".
func (k *kept) drop(branch string, p store.Path) error {
	key := keptKey(branch, p)
	below := key + "/"
	switch {
	case p.IsRoot() && branch == "":
		below = ""
	case p.IsRoot():
		below = key
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	k.drops++
	maps.DeleteFunc(k.recent, func(other string, _ *store.Entry) bool {
		return other == key || strings.HasPrefix(other, below)
	})
	k.mu.Unlock()
	if !p.IsRoot() && k.shelf.There() {
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
	k.mu.Lock()
	drops := k.drops
	k.mu.Unlock()
	k.shelf.Read(func(get func([]byte) ([]byte, bool)) {
		key := []byte(prefix)
		for ; i < len(all); i++ {
			if e := &all[i]; wanting(*e) {
				key = append(key[:len(prefix)], e.Name...)
				k.completeOne(e, key, drops, get)
			}
		}
	})
	for ; i < len(all); i++ { // without a shelf
		if e := &all[i]; wanting(*e) {
			k.completeOne(e, []byte(prefix+e.Name), drops, func([]byte) ([]byte, bool) { return nil, false })
		}
	}
}

// wanting says whether an entry is not complete and what it lacks may be known.
func wanting(e store.Entry) bool { return e.Partial && !e.Changed.IsZero() }

func (k *kept) completeOne(e *store.Entry, key []byte, drops int, get func([]byte) ([]byte, bool)) {
	k.mu.Lock()
	recent := k.recent[string(key)]
	k.mu.Unlock()
	if recent != nil && fits(*recent, *e) {
		*e = as(*recent, *e)
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
		if k.drops == drops && k.recent[string(key)] == nil && len(k.recent) < maxRecent {
			k.recent[string(key)] = &found
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

// run writes to the disk what is new, until quit is closed.
func (k *kept) run(quit <-chan struct{}) {
	if k.shelf == nil {
		return
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.flush()
		case <-quit:
			return
		}
	}
}

// flush writes what is new. What the disk does not take is not kept.
func (k *kept) flush() {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	if len(k.recent) < fewKept && !k.shelf.There() {
		k.mu.Unlock()
		return
	}
	taken := maps.Clone(k.recent)
	k.mu.Unlock()
	pairs := make([]shelf.Pair, 0, len(taken))
	for _, key := range slices.Sorted(maps.Keys(taken)) { // in which the disk takes them best
		pairs = append(pairs, shelf.Pair{Key: []byte(key), Value: taken[key].AppendBytes(nil)})
	}
	if err := k.shelf.Put(pairs); err != nil {
		k.warned.Do(func() { k.log.Warn("attributes are not kept on the local disk", "err", err) })
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, e := range taken {
		if k.recent[key] == e {
			delete(k.recent, key)
		}
	}
}

// close writes what is new, and closes the file.
func (k *kept) close() error {
	k.flush()
	return k.shelf.Close()
}
