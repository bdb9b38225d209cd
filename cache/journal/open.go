package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens the journal of that file, or makes it; its folder must be there.
// ErrForeign where it has live records of another store, ErrFormat.
func Open(path string, opts Options) (*Journal, error) {
	if opts.SyncEvery == 0 {
		opts.SyncEvery = defaultEvery
	}
	if opts.Garbage == 0 {
		opts.Garbage = defaultGarbage
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Boot == "" {
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // unknown: never the same
		opts.Boot = strings.TrimSpace(string(boot))
	}
	j := &Journal{
		path: path, opts: opts, log: opts.Logger, next: 1, live: map[ID]span{}, batch: newBatch(), round: newRound(),
		work: make(chan struct{}, 1), dirty: make(chan struct{}, 1), urgent: make(chan struct{}, 1), quit: make(chan struct{}), halt: make(chan struct{}),
		writeAt: (*os.File).WriteAt,
	}
	if err := j.load(); err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if err := j.rewrite(); err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j.writes.Go(j.writer)
	j.syncs.Go(j.syncer)
	return j, nil
}

// load reads what a journal before has left, if there is one.
func (j *Journal) load() error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	j.file = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at, err := j.scan(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		f.Close()
		j.file = nil
		return err
	}
	if torn := info.Size() - at; torn > 0 {
		j.log.Warn("the end of the journal was not written as a whole; it was not synced, and is left out",
			"journal", j.path, "bytes", torn, "kept", j.path+".torn")
		if err := j.keepTorn(); err != nil {
			return err
		}
	}
	return nil
}

// keepTorn keeps the file as it is under another name.
func (j *Journal) keepTorn() error {
	err := os.Remove(j.path + ".torn")
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Link(j.path, j.path+".torn")
	}
	return err
}

// scan finds the live records of a file, and returns where it ends, or is
// torn.
func (j *Journal) scan(r *bufio.Reader) (at int64, err error) {
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r, start); err != nil || string(start) != magic {
		return 0, fmt.Errorf("no header: %w", ErrFormat)
	}
	at = int64(len(magic))
	h, n, err := readHead(r)
	if err != nil {
		return 0, err
	}
	at += n
	for {
		f, n, err := readFrame(r)
		switch {
		case errors.Is(err, errTorn), err == io.EOF:
			if h.Store != j.opts.Store && len(j.live) > 0 {
				return 0, fmt.Errorf("%w: it has %d records of %s, and not of %s", ErrForeign, len(j.live), h.Store, j.opts.Store)
			}
			return at, j.judge(h.Boot != "" && h.Boot == j.opts.Boot)
		case err != nil:
			return 0, err
		}
		switch {
		case f.tag < tagsFrom:
			j.live[f.id] = span{off: at, n: n}
			j.next = max(j.next, f.id+1)
			j.bytes += n
			j.endLocked(f.ids)
		case f.tag == tagDone:
			j.endLocked(f.ids)
		case f.tag == tagDoubt:
			for _, id := range f.ids {
				if s, ok := j.live[id]; ok {
					s.doubt = true
					j.live[id] = s
				}
			}
		case f.tag == tagMark:
			j.marked = max(j.marked, f.id)
			j.next = max(j.next, f.id+1)
		}
		at += n
	}
}

// judge decides about the records that no mark covers. If the machine has run
// on since, all is there, and is made durable now; if not, what they refer to
// may be missing.
func (j *Journal) judge(sameBoot bool) error {
	last := j.next - 1
	if sameBoot && j.marked < last && len(j.live) > 0 {
		if err := unix.Syncfs(int(j.file.Fd())); err != nil {
			return err
		}
		j.marked = last
	}
	for id, s := range j.live {
		if id > j.marked {
			s.doubt = true
			j.live[id] = s
		}
	}
	j.marked, j.synced, j.wrote = last, last, last
	return nil
}

func readHead(r *bufio.Reader) (head, int64, error) {
	f, n, err := readFrame(r)
	if err != nil && !errors.Is(err, errTorn) && err != io.EOF {
		return head{}, 0, err
	}
	var h head
	if err != nil || f.tag != tagHead || json.Unmarshal(f.data, &h) != nil {
		return head{}, 0, fmt.Errorf("a broken header: %w", ErrFormat)
	}
	if h.Format != format {
		return head{}, 0, fmt.Errorf("format %d, known is %d: %w", h.Format, format, ErrFormat)
	}
	return h, n, nil
}

// readFrame reads one frame; errTorn where there is none, io.EOF at the end.
func readFrame(r *bufio.Reader) (frame, int64, error) {
	prefix, err := r.Peek(prefixLen)
	switch {
	case err == io.EOF && len(prefix) == 0:
		return frame{}, 0, io.EOF
	case err == io.EOF:
		return frame{}, 0, errTorn
	case err != nil:
		return frame{}, 0, err
	}
	n, err := frameLength(prefix)
	if err != nil {
		return frame{}, 0, err
	}
	var p []byte
	for int64(len(p)) < n { // in pieces: a broken length must not cost its memory
		at := len(p)
		p = append(p, make([]byte, min(n-int64(at), 1<<20))...)
		if _, err := io.ReadFull(r, p[at:]); err == io.EOF || err == io.ErrUnexpectedEOF {
			return frame{}, 0, errTorn
		} else if err != nil {
			return frame{}, 0, err
		}
	}
	f, err := decodeFrame(p)
	return f, n, err
}

// endLocked forgets records.
func (j *Journal) endLocked(ids []ID) {
	for _, id := range ids {
		if s, ok := j.live[id]; ok {
			j.bytes -= s.n
			delete(j.live, id)
		}
	}
}

// Replay calls fn with each live record, in the order in which they were
// appended, and ends with the first error of fn. fn may call Append and Done;
// what is appended meanwhile is not replayed.
func (j *Journal) Replay(fn func(Record) error) error {
	j.mu.Lock()
	ids := slices.Sorted(maps.Keys(j.live))
	j.mu.Unlock()
	for _, id := range ids {
		f, s, ok, err := j.read(id)
		if err != nil {
			return err
		}
		if !ok {
			continue // done meanwhile
		}
		if err := fn(Record{ID: id, Kind: Kind(f.tag), Data: f.data, Synced: !s.doubt}); err != nil {
			return err
		}
	}
	return nil
}

// read reads a live record; false where it is not live any more. The file may
// be replaced meanwhile: then it is read from the new one.
func (j *Journal) read(id ID) (frame, span, bool, error) {
	for {
		j.mu.Lock()
		s, ok := j.live[id]
		file := j.file
		j.mu.Unlock()
		if !ok {
			return frame{}, span{}, false, nil
		}
		f, err := readAt(file, s)
		if err == nil && f.id == id {
			return f, s, true, nil
		}
		j.mu.Lock()
		same := j.file == file
		j.mu.Unlock()
		if same {
			return frame{}, span{}, false, fmt.Errorf("journal %s: record %d cannot be read: %w", j.path, id, err)
		}
	}
}

func readAt(file *os.File, s span) (frame, error) {
	p := make([]byte, s.n)
	if _, err := file.ReadAt(p, s.off); err != nil {
		return frame{}, err
	}
	return decodeFrame(p)
}

// rewrite makes the file anew, durable and with the live records only. Only
// the writer calls it, and Open.
func (j *Journal) rewrite() (err error) {
	j.mu.Lock()
	old, live, marked := j.file, maps.Clone(j.live), j.marked
	j.mu.Unlock()

	f, err := os.OpenFile(j.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	size := int64(0)
	write := func(p []byte) error {
		size += int64(len(p))
		_, err := w.Write(p)
		return err
	}
	if err := write(appendFrame([]byte(magic), head{format, j.opts.Store, j.opts.Boot}.frame())); err != nil {
		return err
	}
	var bytes int64
	var doubtful []ID
	for _, id := range slices.Sorted(maps.Keys(live)) {
		s := live[id]
		p := make([]byte, s.n)
		if _, err := old.ReadAt(p, s.off); err != nil {
			return err
		}
		if s.off = size; s.doubt {
			doubtful = append(doubtful, id)
		}
		live[id] = s
		bytes += s.n
		if err := write(p); err != nil {
			return err
		}
	}
	for ids := range slices.Chunk(doubtful, maxIDs) {
		if err := write(appendFrame(nil, frame{tag: tagDoubt, ids: ids})); err != nil {
			return err
		}
	}
	if err := write(appendFrame(nil, frame{tag: tagMark, id: marked})); err != nil {
		return err
	}
	return j.replace(f, w, old, live, size, bytes)
}

// replace makes f, written through w, the file of the journal.
func (j *Journal) replace(f *os.File, w *bufio.Writer, old *os.File, live map[ID]span, size, bytes int64) error {
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), j.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.mu.Lock()
	j.file, j.live, j.size, j.bytes, j.failed = f, live, size, bytes, 0
	j.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
