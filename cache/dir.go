package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

// maxDirs is how many caches can share one configured folder.
const maxDirs = 64

// dir is the local folder of one cache, locked for as long as it is open:
//
//	lock      held by the owner
//	chunks/   see chunks
//	staging/  see staging
//	journal   see package cache/journal
//	attributes, attributes.sum see kept, and package cache/shelf
//	failed/   contents that could not be published when the volume was closed
//	2/, 3/, … the folders of caches opened while this one was taken
type dir struct {
	root string
	lock *os.File
}

// openDir takes the first free one of the folders from number n on.
func openDir(root string, n int) (*dir, int, error) {
	for ; n <= maxDirs; n++ {
		d := &dir{root: root}
		if n > 1 {
			d.root = filepath.Join(root, strconv.Itoa(n))
		}
		taken, err := d.take()
		if err != nil {
			return nil, n, fmt.Errorf("%w: %v", store.ErrCache, err)
		}
		if taken {
			return d, n, nil
		}
	}
	return nil, n, fmt.Errorf("%w: %s is used by %d mounts already", store.ErrCache, root, maxDirs)
}

// take locks the folder; false where somebody else has it. The lock goes with
// the process, however that ends.
func (d *dir) take() (bool, error) {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return false, err
	}
	f, err := os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	d.lock = f
	return true, nil
}

func (d *dir) path(name string) string { return filepath.Join(d.root, name) }

func (d *dir) close() { d.lock.Close() }

// diskError classifies an error of the local disk. The cause goes into the
// text only: io/fs's sentinels must not reach who asks about a file in the
// bucket.
func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %v", store.ErrCacheFull, err)
	case errors.Is(err, unix.EFBIG):
		return fmt.Errorf("%w: %v", store.ErrTooBig, err)
	}
	return fmt.Errorf("%w: %v", store.ErrCache, err)
}
