package file

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// split returns the folder of a key (empty, or ending in '/') and the name in
// it. That of a marker is the name of its directory.
func split(key string) (folder, name string) {
	key = strings.TrimSuffix(key, "/")
	i := strings.LastIndexByte(key, '/')
	return key[:i+1], key[i+1:]
}

// openFolder opens the directory that folder names, which is empty or ends in
// '/'. The caller closes it.
func (b *bucket) openFolder(folder string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	dir, err := openFd(int(b.root.Fd()), ".", flags, 0)
	for rest := folder; rest != "" && err == nil; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		above := dir
		dir, err = openFd(above, name, flags, 0)
		unix.Close(above)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dir), folder), nil
}

// openObject opens what is at key: a regular file, or a marker.
func (b *bucket) openObject(key string) (*object, error) {
	folder, name := split(key)
	dir, err := b.openFolder(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return openIn(dir, name, key)
}

func openIn(dir *os.File, name, key string) (*object, error) {
	wantDir := strings.HasSuffix(key, "/")
	open := openFile
	if wantDir {
		open = openDir
	}
	f, err := open(dir, name)
	if err != nil {
		return nil, err
	}
	o, err := stat(key, f)
	if err == nil {
		switch is := o.st.Mode & unix.S_IFMT; {
		case wantDir:
			var marker bool
			if marker, err = o.isMarker(); err == nil && !marker {
				err = unix.ENOENT
			}
		case is != unix.S_IFREG:
			err = unix.ENOENT
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return o, nil
}

// makeFolder is openFolder that makes the directories on the way, and has
// them all on the disk when it returns.
func (b *bucket) makeFolder(ctx context.Context, folder string) (*os.File, error) {
	dir, err := openDir(b.root, ".")
	for done := 0; done < len(folder) && err == nil; {
		end := done + strings.IndexByte(folder[done:], '/')
		var next *os.File
		next, err = b.enterFolder(ctx, dir, folder[done:end], folder[:end+1])
		dir.Close()
		dir, done = next, end+1
	}
	return dir, err
}

// enterFolder opens directory name in dir, or makes it.
//
// A directory that keifs makes is not an object, even while it is empty: its
// record says so before it appears. And until its name is on the disk, the
// record says that too, so that no one's object is acknowledged before the
// directories on its way are durable, whoever has made them.
func (b *bucket) enterFolder(ctx context.Context, dir *os.File, name, key string) (*os.File, error) {
	next, err := openDir(dir, name)
	if errors.Is(err, unix.ENOENT) {
		if err := b.addFolder(dir, name, record{nonce: newNonce(), fresh: true}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		next, err = openDir(dir, name)
	}
	if errors.Is(err, unix.ELOOP) {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	if r := readRecord(next); r.known && !r.fresh {
		return next, nil
	}
	if err := b.settleFolder(ctx, dir, next, key); err != nil {
		next.Close()
		return nil, err
	}
	return next, nil
}

// addFolder puts a new directory with that record in place, or returns EEXIST.
func (b *bucket) addFolder(dir *os.File, name string, r record) error {
	if !b.xattrs {
		return again(func() error { return unix.Mkdirat(int(dir.Fd()), name, 0o777) })
	}
	t, err := b.tempDir()
	if err != nil {
		return err
	}
	defer t.discard()
	if err := r.write(t.f); err != nil {
		return err
	}
	if err := t.f.Sync(); err != nil {
		return err
	}
	return t.publish(dir, name, true)
}

// settleFolder is for a directory whose name may not be on the disk yet, and
// for one of another tool, which becomes known: as a marker if it is empty,
// so that the first object in it does not make the marker go away.
func (b *bucket) settleFolder(ctx context.Context, dir, next *os.File, key string) error {
	unlock, err := b.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := dir.Sync(); err != nil {
		return err
	}
	o, err := stat(key, next)
	if err != nil || !b.xattrs {
		return err
	}
	r := o.record
	if r.fresh {
		// If this is lost in a crash, somebody syncs once more than needed.
		r.fresh = false
		return ignorePermission(r.write(next))
	}
	if r.known {
		return nil
	}
	if r.marker, err = o.isMarker(); err != nil {
		return err
	}
	r.nonce = "0" // which leaves its ETag as it is
	if err := ignorePermission(r.write(next)); err != nil {
		return err
	}
	return next.Sync()
}

// ignorePermission is for what is a help, and the store is right without: the
// records of directories that belong to others, and the owners of files.
func ignorePermission(err error) error {
	if err != nil && kind(err) == backend.ErrPermission {
		return nil
	}
	return err
}

// leaveFolder removes the directory, and those above it, as far as they are
// empty and no markers. It is done after the fact and for tidiness: what it
// cannot remove is not an object, and so not seen.
func (b *bucket) leaveFolder(ctx context.Context, folder string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for folder != "" {
		if !b.removeFolder(ctx, folder) {
			return
		}
		folder, _ = split(folder)
	}
}

func (b *bucket) removeFolder(ctx context.Context, folder string) bool {
	above, name := split(folder)
	dir, err := b.openFolder(above)
	if err != nil {
		return false
	}
	defer dir.Close()
	unlock, err := b.lock(ctx, folder)
	if err != nil {
		return false
	}
	defer unlock()
	f, err := openDir(dir, name)
	if err != nil {
		return false
	}
	defer f.Close()
	if readRecord(f).marker {
		return false
	}
	return unlinkAt(dir, name, unix.AT_REMOVEDIR) == nil
}

// pruneFolder removes a directory in which there is no object at any depth,
// left by a crash; it says whether it is gone.
func (b *bucket) pruneFolder(ctx context.Context, folder string) (bool, error) {
	dir, err := b.openFolder(folder)
	if notThere(err) {
		return errors.Is(err, unix.ENOENT), nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	entries, err := readNames(dir, 0)
	if err != nil {
		return false, err
	}
	if !readRecord(dir).known {
		return false, nil // made by another tool: not ours to remove
	}
	for _, e := range entries {
		if e.kind != unix.DT_DIR {
			return false, nil
		}
	}
	for _, e := range entries {
		if gone, err := b.pruneFolder(ctx, folder+e.name+"/"); err != nil || !gone {
			return false, err
		}
	}
	return b.removeFolder(ctx, folder), nil
}
