package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// staging is the folder of contents that are not in the bucket yet. What is in
// it when it is opened belonged to an owner that is dead: what that had
// acknowledged is adopted, the rest deleted.
type staging struct {
	dir  string
	next atomic.Int64
	used atomic.Int64 // staged files

	mu       sync.Mutex
	unsynced map[*stagedFile]struct{} // what the journal has promised, since its last sync
	adopted  map[string]struct{}      // until the rest is deleted

	writeAt func(f *os.File, p []byte, off int64) (int, error) // of the file, but in tests of a full disk

	// relieve, if set, is asked to free bytes of the disk when it is full;
	// false when there is nothing more to free.
	relieve func(bytes int64) bool
}

func openStaging(dir string) (*staging, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError(err)
	}
	s := &staging{
		dir: dir, writeAt: (*os.File).WriteAt,
		unsynced: map[*stagedFile]struct{}{}, adopted: map[string]struct{}{},
	}
	found, err := os.ReadDir(dir)
	for _, f := range found {
		if n, err := strconv.ParseInt(f.Name(), 10, 64); err == nil {
			s.next.Store(max(s.next.Load(), n))
		}
	}
	return s, diskError(err)
}

var errNotStaged = errors.New("not in the staging")

// adopt opens a file of an owner before; errNotStaged.
func (s *staging) adopt(name string) (file *stagedFile, size int64, err error) {
	if filepath.Base(name) != name {
		return nil, 0, fmt.Errorf("%q: %w", name, errNotStaged)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%q: %w", name, errNotStaged)
	}
	if err != nil {
		return nil, 0, diskError(err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, diskError(err)
	}
	s.used.Add(1)
	s.mu.Lock()
	s.adopted[name] = struct{}{}
	s.mu.Unlock()
	return &stagedFile{s: s, f: f}, info.Size(), nil
}

// clean deletes what was not adopted. Nothing is created meanwhile.
func (s *staging) clean() error {
	found, err := os.ReadDir(s.dir)
	for _, f := range found {
		if _, ours := s.adopted[f.Name()]; !ours && err == nil {
			err = os.RemoveAll(filepath.Join(s.dir, f.Name()))
		}
	}
	s.adopted = nil
	return diskError(err)
}

// mustSync has the file synced with the journal.
func (s *staging) mustSync(f *stagedFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsynced[f] = struct{}{}
}

// syncFew is up to how many files are synced one by one: each costs what a
// sync of the whole file system costs, if that has nothing else to write.
const syncFew = 8

// sync makes the files durable that mustSync has named since the last time.
func (s *staging) sync() error {
	s.mu.Lock()
	files := s.unsynced
	s.unsynced = map[*stagedFile]struct{}{}
	s.mu.Unlock()
	err := s.syncFiles(files)
	if err != nil {
		s.mu.Lock()
		maps.Copy(s.unsynced, files)
		s.mu.Unlock()
	}
	return err
}

func (s *staging) syncFiles(files map[*stagedFile]struct{}) error {
	if len(files) == 0 {
		return nil
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if len(files) > syncFew {
		return unix.Syncfs(int(dir.Fd()))
	}
	for f := range files {
		// One that is closed is in the bucket, or was removed.
		if err := f.f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return dir.Sync()
}

// create makes an empty staged file.
func (s *staging) create() (*stagedFile, error) {
	var f *os.File
	err := s.withRoom(0, func() (err error) {
		name := filepath.Join(s.dir, fmt.Sprintf("%08d", s.next.Add(1)))
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.used.Add(1)
	return &stagedFile{s: s, f: f}, nil
}

// withRoom runs fn, again after other data made room when the disk was full.
func (s *staging) withRoom(bytes int64, fn func() error) error {
	for {
		err := fn()
		full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
		if !full || s.relieve == nil || !s.relieve(max(bytes, 16<<20)) {
			return diskError(err)
		}
	}
}

// stagedFile is the whole content of one file, sparse where it has holes. Its
// owner sees to it that nothing is written while it is published. Errors are
// store.ErrCacheFull, store.ErrTooBig and store.ErrCache.
type stagedFile struct {
	s *staging
	f *os.File
}

// ReadAt implements io.ReaderAt.
func (f *stagedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = diskError(err)
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *stagedFile) WriteAt(p []byte, off int64) (int, error) {
	if off > math.MaxInt64-int64(len(p)) {
		return 0, store.ErrTooBig
	}
	done := 0
	err := f.s.withRoom(int64(len(p)), func() error {
		n, err := f.s.writeAt(f.f, p[done:], off+int64(done))
		done += n
		return err
	})
	return done, err
}

// truncate cuts or extends the file by a hole.
func (f *stagedFile) truncate(size int64) error {
	return f.s.withRoom(0, func() error { return f.f.Truncate(size) })
}

// punch makes the range, which lies within the file, a hole.
func (f *stagedFile) punch(off, n int64) error {
	err := f.s.withRoom(0, func() error {
		return unix.Fallocate(int(f.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err == nil {
		return nil
	}
	// A disk without holes: zeros do as well.
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		z := zeros[:min(n, int64(len(zeros)))]
		if _, err := f.WriteAt(z, off); err != nil {
			return err
		}
		off, n = off+int64(len(z)), n-int64(len(z))
	}
	return nil
}

// seek finds data or a hole, as lseek; store.ErrNoData.
func (f *stagedFile) seek(off int64, hole bool) (int64, error) {
	whence := unix.SEEK_DATA
	if hole {
		whence = unix.SEEK_HOLE
	}
	at, err := unix.Seek(int(f.f.Fd()), off, whence) // the file's own offset is used by nobody
	if errors.Is(err, unix.ENXIO) {
		return 0, store.ErrNoData
	}
	return at, diskError(err)
}

// source is the content of the first size bytes, for a publication.
func (f *stagedFile) source(size int64) backend.Source { return stagedSource{f, size} }

type stagedSource struct {
	*stagedFile
	size int64
}

func (s stagedSource) Size() int64 { return s.size }

// name is what adopt finds it by.
func (f *stagedFile) name() string { return filepath.Base(f.f.Name()) }

// release closes the file and leaves it to be adopted.
func (f *stagedFile) release() {
	f.f.Close()
	f.s.used.Add(-1)
}

// moveTo gives the file a name outside the staging, made durable.
func (f *stagedFile) moveTo(name string) error {
	err := f.f.Sync()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = os.Rename(f.f.Name(), name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(name))
	}
	return diskError(err)
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// discard ends the file.
func (f *stagedFile) discard() {
	os.Remove(f.f.Name()) // fails where it was moved away
	f.f.Close()
	f.s.used.Add(-1)
}
