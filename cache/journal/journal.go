// Package journal is an append-only log on the local disk: what was promised
// to somebody and is not in the bucket yet. It knows nothing of what its
// records mean.
//
// A record is live from [Journal.Append] until [Journal.Done], or until
// another record replaces it. At the next Open [Journal.Replay] gives the live
// ones back, in the order in which they were appended, whatever ended the
// process before. What the records ask for must bear being done twice: a crash
// may come after the work and before Done is on the disk.
//
//	j, err := journal.Open(path, journal.Options{Store: "s3://bucket/prefix"})
//	err = j.Replay(func(r journal.Record) error { … }) // what is left from last time
//	id, err := j.Append(kindRemove, data)              // promised from here on
//	…                                                  // the work itself
//	j.Done(id)
//
// Append returns when the record is written, so that it outlives the process;
// an fsync at least every second, for all records since the last one, makes it
// outlive the machine. Who cannot wait for that calls Sync.
//
// On disk a journal is a header, which names the format and the store, and
// then frames, each with its length and a CRC-32C: records, lists of records
// that are done, and marks, which say that everything before them was synced.
// Opening rewrites it with the live records only, and so does a journal that
// has more dead than live bytes. A tail that does not decode was not synced: it
// is left out, and the file as it was is kept beside as NAME.torn.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Errors of this package. Those of the disk are returned as they are, wrapped.
var (
	// ErrForeign: the journal has records of another store.
	ErrForeign = errors.New("the journal is of another store")
	// ErrFormat: the file is no journal, or of a newer format.
	ErrFormat = errors.New("not a journal that this version can read")
	// ErrTooLarge: a record is over MaxRecord bytes.
	ErrTooLarge = errors.New("the record is too large for the journal")
	// ErrClosed: the journal is closed.
	ErrClosed = errors.New("the journal is closed")
)

// MaxRecord is how many bytes of data a record has at most.
const MaxRecord = 16 << 20

const (
	defaultEvery   = time.Second
	defaultGarbage = 4 << 20
)

// Options of Open. All but Store may be left out.
type Options struct {
	// Store is the URL of the store that the records are about. A journal
	// with records of another store is refused.
	Store string
	// SyncEach makes Append wait for the fsync of its record. Those of
	// concurrent calls share one.
	SyncEach bool
	// SyncEvery is how long a record may be unsynced; default 1 s.
	SyncEvery time.Duration
	// BeforeSync, if set, makes durable what the records refer to, which is
	// on the file system of the journal. It is called before each fsync,
	// never twice at a time, and has to cover every record whose Append has
	// been called before. Where it fails, Sync does.
	BeforeSync func() error
	// Garbage is how many dead bytes the file may have, as long as they are
	// fewer half of it too; default 4 MiB.
	Garbage int64
	// Boot names the boot of this machine; default that of the kernel.
	Boot   string
	Logger *slog.Logger
}

// ID names a record of an open journal. It is never used for another one, but
// differs from one Open to the next. Zero is no record.
type ID uint64

// Kind says what a record is, to who appended it. 0 to 127.
type Kind byte

// Record is what Replay gives back.
type Record struct {
	ID   ID
	Kind Kind
	Data []byte // the callee's to keep
	// Synced: the machine has not been started anew since the record was
	// written, or both it and what BeforeSync cares for were synced. Of
	// another record what it refers to may be missing or broken.
	Synced bool
}

// Journal is an open log. Make one with Open. It belongs to one process at a
// time, which the caller sees to. All methods are safe for concurrent use.
type Journal struct {
	path string
	opts Options
	log  *slog.Logger

	work   chan struct{} // there is a batch to write
	dirty  chan struct{} // there is something to sync
	urgent chan struct{} // somebody waits for the sync
	quit   chan struct{} // ends the syncer
	halt   chan struct{} // ends the writer, after it
	syncs  sync.WaitGroup
	writes sync.WaitGroup

	writeAt func(f *os.File, p []byte, off int64) (int, error) // of the file, but in tests of a bad disk

	mu     sync.Mutex
	closed bool
	broken error // of a disk that can no longer be trusted
	next   ID    // of the next record
	batch  *batch
	round  *round // the next sync to begin
	marked ID     // what the records up to here refer to is durable, and the file says so
	synced ID     // and the file is durable up to here

	file   *os.File // replaced by the writer only
	size   int64    // bytes of the file
	wrote  ID       // the last record in the file
	live   map[ID]span
	bytes  int64 // of the live frames
	rounds int64 // syncs since Open
	failed int64 // size at which a rewrite failed last
}

// span is where the frame of a record is.
type span struct {
	off, n int64
	doubt  bool // found by Open, and not synced before the machine went down
}

// batch is what one write appends.
type batch struct {
	buf     []byte
	records []pending
	done    []ID // named by Done
	mark    ID   // of a sync
	written chan struct{}
	err     error // set when written is closed
}

// pending is a record in a batch.
type pending struct {
	id       ID
	off, n   int64 // in the batch
	replaces []ID
}

// round is one sync, for all who wait for it.
type round struct {
	ended chan struct{}
	err   error
}

func newBatch() *batch { return &batch{written: make(chan struct{})} }
func newRound() *round { return &round{ended: make(chan struct{})} }

// Append adds a record, which replaces others: either it is live after a crash
// or they are. It returns when the record is written, with SyncEach when it is
// durable. After an error of the disk the record is not in the journal, and
// what it should have replaced still is.
func (j *Journal) Append(kind Kind, data []byte, replaces ...ID) (ID, error) {
	if kind > 127 {
		return 0, fmt.Errorf("journal: kind %d: %w", kind, ErrFormat)
	}
	if len(data) > MaxRecord || len(replaces) > maxIDs {
		return 0, fmt.Errorf("journal: %d bytes: %w", len(data), ErrTooLarge)
	}
	j.mu.Lock()
	if err := j.checkLocked(); err != nil {
		j.mu.Unlock()
		return 0, err
	}
	id := j.next
	j.next++
	b := j.batch
	off := int64(len(b.buf))
	b.buf = appendFrame(b.buf, frame{tag: byte(kind), id: id, ids: replaces, data: data})
	b.records = append(b.records, pending{id, off, int64(len(b.buf)) - off, replaces})
	j.mu.Unlock()
	signal(j.work)
	<-b.written
	if b.err != nil {
		return 0, b.err
	}
	if j.opts.SyncEach {
		return id, j.Sync(context.Background())
	}
	return id, nil
}

// Done ends records: they are not replayed any more. It does not wait; Flush
// and every later Append do.
func (j *Journal) Done(ids ...ID) {
	if len(ids) == 0 {
		return
	}
	j.mu.Lock()
	if j.checkLocked() == nil {
		j.batch.done = append(j.batch.done, ids...)
	}
	j.mu.Unlock()
	signal(j.work)
}

// Flush returns when everything that was told to Done before is written, and
// so will not be replayed, whatever becomes of this process.
func (j *Journal) Flush() error {
	j.mu.Lock()
	err, b := j.checkLocked(), j.batch
	j.mu.Unlock()
	if err != nil {
		return err
	}
	signal(j.work)
	<-b.written
	return b.err
}

// Sync returns when every record whose Append has returned is durable,
// together with what BeforeSync cares for.
func (j *Journal) Sync(ctx context.Context) error {
	j.mu.Lock()
	err, r, there := j.checkLocked(), j.round, j.synced >= j.wrote
	j.mu.Unlock()
	if err != nil || there {
		return err
	}
	signal(j.urgent)
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats is a snapshot of a journal.
type Stats struct {
	Records int64 // live
	Bytes   int64 // of the file
	Syncs   int64 // since Open
}

// Stats returns a snapshot.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{Records: int64(len(j.live)), Bytes: j.size, Syncs: j.rounds}
}

// Close syncs and closes the journal. What is live is replayed at the next
// Open.
func (j *Journal) Close() error {
	err := j.Sync(context.Background())
	if errors.Is(err, ErrClosed) {
		return nil
	}
	j.mu.Lock()
	already := j.closed
	j.closed = true
	j.mu.Unlock()
	if already {
		return nil
	}
	close(j.quit)
	j.syncs.Wait()
	close(j.halt)
	j.writes.Wait()
	if cerr := j.file.Close(); err == nil {
		err = cerr
	}
	return err
}

func (j *Journal) checkLocked() error {
	if j.closed {
		return ErrClosed
	}
	return j.broken
}

// signal wakes who waits on a channel of room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
