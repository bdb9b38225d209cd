// Package shelf keeps small values on the local disk that can be had again
// from elsewhere: a bounded table that forgets what was used least. It knows
// nothing of what its values mean.
//
// A table is good for as long as nothing went wrong: when it is closed, a
// checksum of the file is left beside it, and where that is not there or is of
// another content, the table is begun anew, as where it is of another owner. So
// nothing is synced.
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
	"io"
	"log/slog"
	"os"
	"runtime/debug"
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
	path  string
	owner string
	log   *slog.Logger
	max   int

	mu     sync.RWMutex // held for writing by who opens and closes the file
	db     *bolt.DB     // nil before there is one, after Close, and when it was broken
	closed bool
}

var errOwner = errors.New("of another owner")

// The buckets of the file, and the keys of the first. Two are generations.
const (
	headBucket  = "head"
	oneBucket   = "one"
	otherBucket = "other"
	ownerKey    = "owner"
	youngKey    = "young" // which is the young generation
	countKey    = "count" // of its values
)

// generations are the bucket of the young one, and that of the old one.
func generations(tx *bolt.Tx) (young, old *bolt.Bucket) {
	young, old = tx.Bucket([]byte(oneBucket)), tx.Bucket([]byte(otherBucket))
	if string(tx.Bucket([]byte(headBucket)).Get([]byte(youngKey))) == otherBucket {
		young, old = old, young
	}
	return young, old
}

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
	err := s.whole()
	if err == nil {
		s.db, err = open(path, opts.Owner)
	}
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, errOwner) {
		s.log.Info("what was kept is begun anew", "file", path, "err", err)
	}
	return s, os.Remove(path)
}

// sumPath is the file with the checksum.
func (s *Shelf) sumPath() string { return s.path + ".sum" }

// whole says whether the file is as it was closed. It can be found to be so
// once: who does not close it leaves it in doubt.
func (s *Shelf) whole() error {
	want, err := os.ReadFile(s.sumPath())
	if err != nil {
		return err
	}
	if err := os.Remove(s.sumPath()); err != nil {
		return err
	}
	sum, err := sumOf(s.path)
	if err == nil && sum != string(want) {
		err = errors.New("it has changed since it was closed")
	}
	return err
}

// sumOf is the checksum of a file.
func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.Copy(h, f)
	return fmt.Sprintf("%d %08x\n", n, h.Sum32()), err
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
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { // which a broken file may well cause
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%v", r)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoSync: true})
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
		for _, name := range []string{oneBucket, otherBucket} {
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
	if err != nil {
		return err
	}
	sum, err := sumOf(s.path)
	if err != nil {
		return err
	}
	return os.WriteFile(s.sumPath(), []byte(sum), 0o600)
}

// Read calls fn with a function that looks values up, all as of one moment.
// aging: the value will be forgotten unless it is put again. It is valid until
// fn returns.
func (s *Shelf) Read(fn func(get func(key []byte) (value []byte, aging bool))) {
	_ = s.do(false, func(tx *bolt.Tx) error { // a broken file has no values
		young, old := generations(tx)
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
		head := tx.Bucket([]byte(headBucket))
		count := countOf(head)
		if count >= uint64(s.max/2) {
			if err := nextGeneration(tx); err != nil {
				return err
			}
			count = 0
		}
		young, old := generations(tx)
		for _, p := range pairs {
			there := young.Get(p.Key) != nil
			var err error
			if p.Value == nil {
				err = errors.Join(young.Delete(p.Key), old.Delete(p.Key))
				if there {
					count--
				}
			} else {
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

// nextGeneration forgets the old one, and begins a young one in its place.
func nextGeneration(tx *bolt.Tx) error {
	head := tx.Bucket([]byte(headBucket))
	next := otherBucket
	if string(head.Get([]byte(youngKey))) == otherBucket {
		next = oneBucket
	}
	if err := tx.DeleteBucket([]byte(next)); err != nil {
		return err
	}
	if _, err := tx.CreateBucket([]byte(next)); err != nil {
		return err
	}
	return head.Put([]byte(youngKey), []byte(next))
}

// Drop takes away all keys with a prefix; all there are, for none.
func (s *Shelf) Drop(prefix []byte) error {
	return s.do(true, func(tx *bolt.Tx) error {
		head := tx.Bucket([]byte(headBucket))
		if len(prefix) == 0 {
			if err := nextGeneration(tx); err != nil {
				return err
			}
			if err := nextGeneration(tx); err != nil {
				return err
			}
			return head.Put([]byte(countKey), binary.BigEndian.AppendUint64(nil, 0))
		}
		count := countOf(head)
		young, old := generations(tx)
		for _, b := range []*bolt.Bucket{young, old} {
			var keys [][]byte // a cursor loses its place when one is deleted
			c := b.Cursor()
			for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
				keys = append(keys, k)
			}
			for _, k := range keys {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			if b == young {
				count -= uint64(len(keys))
			}
		}
		return head.Put([]byte(countKey), binary.BigEndian.AppendUint64(nil, count))
	})
}

// Len is how many values there are at most.
func (s *Shelf) Len() (n int) {
	_ = s.do(false, func(tx *bolt.Tx) error {
		for _, name := range []string{oneBucket, otherBucket} {
			n += tx.Bucket([]byte(name)).Stats().KeyN
		}
		return nil
	})
	return n
}

// do runs fn in a transaction. A file that turns out to be broken is given up.
func (s *Shelf) do(write bool, fn func(*bolt.Tx) error) error {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	db := s.db
	if db == nil {
		s.mu.RUnlock()
		return nil
	}
	broken, err := transact(db, write, fn)
	s.mu.RUnlock()
	if broken {
		s.giveUp(db, err)
	}
	return err
}

// transact runs fn in a transaction. The library panics where the file is
// broken, and the memory that the file is mapped to faults where it is short.
func transact(db *bolt.DB, write bool, fn func(*bolt.Tx) error) (broken bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			broken, err = true, fmt.Errorf("broken: %v", r)
		}
	}()
	if write {
		return false, db.Update(fn)
	}
	return false, db.View(fn)
}

// giveUp removes a file that is broken. It is not closed: who panicked may hold
// its locks.
func (s *Shelf) giveUp(db *bolt.DB, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != db {
		return
	}
	s.db, s.closed = nil, true
	if rerr := os.Remove(s.path); rerr != nil {
		err = errors.Join(err, rerr)
	}
	s.log.Error("what was kept on the local disk is broken, and is removed", "file", s.path, "err", err)
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
