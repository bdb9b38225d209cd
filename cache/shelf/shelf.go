// Package shelf keeps small values on the local disk that can be had again
// from elsewhere: a bounded table that forgets what was used least. It knows
// nothing of what its values mean.
//
// Changes are transactions, made in batches by the caller, so that a crash at
// any moment leaves the table as it was after one of them. A value that the
// disk has changed is not given out, and a table that cannot be read, or is of
// another owner, is begun anew.
//
// The values are in two generations. New ones go into the young; when that has
// half of what may be kept, it becomes the old one, and what was in that and
// has not been put again since is gone.
package shelf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Options of Open.
type Options struct {
	// Owner is what the values depend on: what was kept for another one is
	// dropped.
	Owner string
	// Max is how many values are kept; default 500,000.
	Max    int
	Logger *slog.Logger
}

const defaultMax = 500_000

// Pair is a key and its value. A nil value takes the key away.
type Pair struct{ Key, Value []byte }

// Shelf is an open table. All methods are safe for concurrent use, and do
// nothing on a nil Shelf.
type Shelf struct {
	path   string
	owner  string
	log    *slog.Logger
	max    int
	broken sync.Once

	mu     sync.RWMutex // held for writing by who opens and closes the file
	db     *bolt.DB     // nil before there is one, and after Close
	closed bool
}

var errOwner = errors.New("of another owner")

// The buckets of the file, and the keys of the first.
const (
	headBucket  = "head"
	youngBucket = "young"
	oldBucket   = "old"
	asideBucket = "aside"
	ownerKey    = "owner"
	countKey    = "count" // values in the young generation
)

// Open opens the table of a file, which belongs to one process at a time. The
// file is made by the first change.
func Open(path string, opts Options) (*Shelf, error) {
	s := &Shelf{path: path, owner: opts.Owner, log: opts.Logger, max: opts.Max}
	if s.max <= 0 {
		s.max = defaultMax
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return s, err
	}
	var err error
	if s.db, err = open(path, opts.Owner); err == nil {
		return s, nil
	}
	if !errors.Is(err, errOwner) {
		s.log.Warn("what was kept cannot be read, and is begun anew", "file", path, "err", err)
	}
	return s, os.Remove(path)
}

// There says whether there is a file.
func (s *Shelf) There() bool {
	if s == nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.db != nil
}

// make makes the file where there is none.
func (s *Shelf) make() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil && !s.closed {
		s.db, err = open(s.path, s.owner)
	}
	return err
}

func open(path, owner string) (db *bolt.DB, err error) {
	defer func() { // which a broken file may well cause
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	ready := false
	err = db.View(func(tx *bolt.Tx) error {
		if head := tx.Bucket([]byte(headBucket)); head != nil {
			ready = string(head.Get([]byte(ownerKey))) == owner
		}
		return nil
	})
	if err == nil && ready {
		return db, nil
	}
	err = db.Update(func(tx *bolt.Tx) error {
		head, err := tx.CreateBucketIfNotExists([]byte(headBucket))
		if err != nil {
			return err
		}
		switch before := head.Get([]byte(ownerKey)); {
		case before == nil:
			err = head.Put([]byte(ownerKey), []byte(owner))
		case string(before) != owner:
			err = errOwner
		}
		for _, name := range []string{youngBucket, oldBucket, asideBucket} {
			if err == nil {
				_, err = tx.CreateBucketIfNotExists([]byte(name))
			}
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close closes the file.
func (s *Shelf) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}

// Read calls fn with a function that looks values up, all as of one moment.
// aging: the value will be forgotten unless it is put again. It is valid until
// fn returns.
func (s *Shelf) Read(fn func(get func(key []byte) (value []byte, aging bool))) {
	s.do(false, func(tx *bolt.Tx) error {
		young, old := tx.Bucket([]byte(youngBucket)), tx.Bucket([]byte(oldBucket))
		fn(func(key []byte) ([]byte, bool) {
			if value := young.Get(key); value != nil {
				return unseal(value), false
			}
			return unseal(old.Get(key)), true
		})
		return nil
	})
}

// Put makes changes, all or none of them.
func (s *Shelf) Put(pairs []Pair) error {
	if len(pairs) == 0 || s == nil {
		return nil
	}
	if err := s.make(); err != nil {
		return err
	}
	return s.do(true, func(tx *bolt.Tx) error {
		head, young := tx.Bucket([]byte(headBucket)), tx.Bucket([]byte(youngBucket))
		count := countOf(head)
		if count >= uint64(s.max/2) {
			if err := nextGeneration(tx); err != nil {
				return err
			}
			young, count = tx.Bucket([]byte(youngBucket)), 0
		}
		old := tx.Bucket([]byte(oldBucket))
		for _, p := range pairs {
			there := young.Get(p.Key) != nil
			var err error
			switch {
			case p.Value == nil:
				err = errors.Join(young.Delete(p.Key), old.Delete(p.Key))
				if there {
					count--
				}
			default:
				err = young.Put(p.Key, seal(p.Value))
				if !there {
					count++
				}
			}
			if err != nil {
				return err
			}
		}
		return head.Put([]byte(countKey), binary.BigEndian.AppendUint64(nil, count))
	})
}

func countOf(head *bolt.Bucket) uint64 {
	if b := head.Get([]byte(countKey)); len(b) == 8 {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// nextGeneration forgets the old one, and begins a young one.
func nextGeneration(tx *bolt.Tx) error {
	if err := tx.DeleteBucket([]byte(oldBucket)); err != nil {
		return err
	}
	old, err := tx.CreateBucket([]byte(oldBucket))
	if err != nil {
		return err
	}
	err = tx.Bucket([]byte(youngBucket)).ForEach(func(k, v []byte) error { return old.Put(k, v) })
	if err != nil {
		return err
	}
	if err := tx.DeleteBucket([]byte(youngBucket)); err != nil {
		return err
	}
	_, err = tx.CreateBucket([]byte(youngBucket))
	return err
}

// Drop takes away all keys with a prefix.
func (s *Shelf) Drop(prefix []byte) error {
	return s.do(true, func(tx *bolt.Tx) error {
		head := tx.Bucket([]byte(headBucket))
		count := countOf(head)
		for _, name := range []string{youngBucket, oldBucket, asideBucket} {
			c := tx.Bucket([]byte(name)).Cursor()
			for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
				if err := c.Delete(); err != nil {
					return err
				}
				if name == youngBucket {
					count--
				}
			}
		}
		return head.Put([]byte(countKey), binary.BigEndian.AppendUint64(nil, count))
	})
}

// PutAside keeps pairs that TakeAside gives back, once.
func (s *Shelf) PutAside(pairs []Pair) error {
	if len(pairs) == 0 || s == nil {
		return nil
	}
	if err := s.make(); err != nil {
		return err
	}
	return s.do(true, func(tx *bolt.Tx) error {
		aside := tx.Bucket([]byte(asideBucket))
		for _, p := range pairs {
			if err := aside.Put(p.Key, seal(p.Value)); err != nil {
				return err
			}
		}
		return nil
	})
}

// TakeAside returns what was put aside, and has forgotten it for certain when
// it returns.
func (s *Shelf) TakeAside() (pairs []Pair, err error) {
	some := false
	err = s.do(false, func(tx *bolt.Tx) error {
		first, _ := tx.Bucket([]byte(asideBucket)).Cursor().First()
		some = first != nil
		return nil
	})
	if err != nil || !some {
		return nil, err
	}
	err = s.do(true, func(tx *bolt.Tx) error {
		err := tx.Bucket([]byte(asideBucket)).ForEach(func(k, v []byte) error {
			if value := unseal(v); value != nil {
				pairs = append(pairs, Pair{bytes.Clone(k), bytes.Clone(value)})
			}
			return nil
		})
		if err != nil || len(pairs) == 0 {
			return err
		}
		if err := tx.DeleteBucket([]byte(asideBucket)); err != nil {
			return err
		}
		_, err = tx.CreateBucket([]byte(asideBucket))
		return err
	})
	if err != nil {
		return nil, err
	}
	return pairs, nil
}

// Len is how many values there are at most.
func (s *Shelf) Len() (n int) {
	s.do(false, func(tx *bolt.Tx) error {
		for _, name := range []string{youngBucket, oldBucket} {
			n += tx.Bucket([]byte(name)).Stats().KeyN
		}
		return nil
	})
	return n
}

// do runs fn in a transaction. A file that turns out to be broken panics in
// the library: then there is nothing any more.
func (s *Shelf) do(write bool, fn func(*bolt.Tx) error) (err error) {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("broken: %v", r)
			s.broken.Do(func() { s.log.Error("what was kept on the local disk is broken", "file", s.db.Path(), "err", err) })
		}
	}()
	if write {
		return s.db.Update(fn)
	}
	return s.db.View(fn)
}

// seal puts a checksum before a value.
func seal(value []byte) []byte {
	out := make([]byte, 4, 4+len(value))
	binary.LittleEndian.PutUint32(out, checksum(value))
	return append(out, value...)
}

// unseal is the value, or nil where it is not as it was put.
func unseal(sealed []byte) []byte {
	if len(sealed) < 4 || binary.LittleEndian.Uint32(sealed) != checksum(sealed[4:]) {
		return nil
	}
	return sealed[4:]
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }
