package journal

import (
	"fmt"
	"os"
	"time"
)

// writer appends batches, one after another: whoever comes while one is being
// written goes into the next.
func (j *Journal) writer() {
	for {
		select {
		case <-j.work:
			j.writeBatch()
		case <-j.halt:
			j.writeBatch() // nobody adds to it any more
			return
		}
	}
}

func (j *Journal) writeBatch() {
	j.mu.Lock()
	b := j.batch
	j.batch = newBatch()
	file, at, broken := j.file, j.size, j.broken
	j.mu.Unlock()
	if len(b.done) > 0 {
		b.buf = appendDone(b.buf, b.done)
	}
	if len(b.buf) > 0 && broken == nil {
		broken = j.appendTo(file, b.buf, at)
	}
	if b.err = broken; b.err != nil {
		b.err = fmt.Errorf("journal %s: %w", j.path, b.err)
	}
	j.wroteBatch(b)
	close(b.written)
	j.shrink()
}

func appendDone(buf []byte, ids []ID) []byte {
	for len(ids) > 0 {
		n := min(len(ids), maxIDs)
		buf = appendFrame(buf, frame{tag: tagDone, ids: ids[:n]})
		ids = ids[n:]
	}
	return buf
}

// appendTo writes at the end of the file, all or nothing.
func (j *Journal) appendTo(file *os.File, p []byte, at int64) error {
	_, err := j.writeAt(file, p, at)
	if err == nil {
		return nil
	}
	if terr := file.Truncate(at); terr != nil {
		return fmt.Errorf("%w; and what was written of it cannot be removed: %v", err, terr)
	}
	return err
}

// wroteBatch notes what is in the file now.
func (j *Journal) wroteBatch(b *batch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if b.err != nil {
		j.batch.done = append(b.done, j.batch.done...) // with the next batch, then
		return
	}
	for _, r := range b.records {
		j.live[r.id] = span{off: j.size + r.off, n: r.n}
		j.bytes += r.n
		j.wrote = max(j.wrote, r.id)
		j.endLocked(r.replaces)
	}
	j.endLocked(b.done)
	j.marked = max(j.marked, b.mark)
	j.size += int64(len(b.buf))
	if len(b.records) > 0 {
		signal(j.dirty)
	}
}

// shrink rewrites the file when too much of it is dead. Where that fails, the
// file goes on as it is, and it is tried again when it has grown as much anew.
func (j *Journal) shrink() {
	j.mu.Lock()
	dead := j.size - j.bytes
	worth := j.broken == nil && dead > j.opts.Garbage && dead > j.bytes && j.size > j.failed+j.opts.Garbage
	j.mu.Unlock()
	if !worth {
		return
	}
	if err := j.rewrite(); err != nil {
		j.log.Warn("the journal cannot be rewritten, and stays large", "journal", j.path, "error", err)
		j.mu.Lock()
		j.failed = j.size
		j.mu.Unlock()
	}
}

// syncer makes records durable, at most SyncEvery after they were written.
func (j *Journal) syncer() {
	wait := !j.opts.SyncEach
	for {
		select {
		case <-j.quit:
			return
		case <-j.urgent:
		case <-j.dirty:
			if wait && !j.pause() {
				return
			}
		}
		wait = !j.sync() || !j.opts.SyncEach
	}
}

// pause waits for more records, unless somebody is in a hurry; false at the end.
func (j *Journal) pause() bool {
	timer := time.NewTimer(j.opts.SyncEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-j.urgent:
	case <-j.quit:
		return false
	}
	return true
}

// sync is one round: what the records refer to, a mark, and the file. It
// returns false where that has to be tried again.
func (j *Journal) sync() bool {
	j.mu.Lock()
	r, upTo := j.round, j.wrote
	j.round = newRound()
	needed := j.synced < upTo && j.broken == nil
	r.err = j.broken
	j.mu.Unlock()
	defer close(r.ended)
	if !needed {
		return true
	}
	if err := j.syncUpTo(upTo); err != nil {
		r.err = fmt.Errorf("journal %s: sync: %w", j.path, err)
		j.log.Error("the journal is not synced", "error", r.err)
		signal(j.dirty)
		return false
	}
	return true
}

func (j *Journal) syncUpTo(upTo ID) error {
	if j.opts.BeforeSync != nil {
		if err := j.opts.BeforeSync(); err != nil {
			return err
		}
	}
	j.mu.Lock()
	b := j.batch
	b.mark = upTo
	b.buf = appendFrame(b.buf, frame{tag: tagMark, id: upTo})
	j.mu.Unlock()
	signal(j.work)
	<-b.written
	if b.err != nil {
		return b.err
	}
	j.mu.Lock()
	file := j.file
	j.mu.Unlock()
	err := file.Sync()

	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil && j.file == file { // else it was rewritten meanwhile, and is durable thereby
		// What the kernel could not write it has forgotten: nothing that is
		// in the file is certain to stay.
		j.broken = fmt.Errorf("an fsync failed, and nothing is taken any more: %w", err)
		return j.broken
	}
	j.rounds++
	j.synced = max(j.synced, upTo)
	return nil
}
