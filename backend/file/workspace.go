package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What lies in the reserved folder:
//
//	.keifs-store/lock             held while owners come and go
//	.keifs-store/locks/00 … ff    held while a key of that shard changes
//	.keifs-store/tmp/OWNER/…      what one process prepares
//	.keifs-store/tmp/OWNER/lock   held while that process lives
//
// The locks are flock's: the kernel drops them when their process dies.
const shards = 256

// workspace is this bucket's part of the reserved folder.
type workspace struct {
	folder *os.File // reserved
	locks  *os.File // reserved/locks
	tmp    *os.File // reserved/tmp
	owner  *os.File // reserved/tmp/OWNER
	alive  *os.File // reserved/tmp/OWNER/lock, held
	name   string   // OWNER

	serial atomic.Int64
}

// workspace makes the reserved folder, at the first change or where somebody
// has removed it.
func (b *bucket) workspace() (*workspace, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ws != nil && !removed(b.ws.owner) && !removed(b.ws.locks) {
		return b.ws, nil
	}
	// Requests under way may still use the old one, which is not closed here.
	ws, err := newWorkspace(b.root)
	if err != nil {
		return nil, err
	}
	b.ws = ws
	return ws, nil
}

func newWorkspace(root *os.File) (_ *workspace, err error) {
	ws := &workspace{name: rand.Text()}
	defer func() {
		if err != nil {
			ws.close()
		}
	}()
	if ws.folder, err = makeDir(root, reserved); err != nil {
		return nil, err
	}
	if ws.locks, err = makeDir(ws.folder, "locks"); err != nil {
		return nil, err
	}
	if ws.tmp, err = makeDir(ws.folder, "tmp"); err != nil {
		return nil, err
	}
	unlock, err := lockOwners(ws.folder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if ws.owner, err = makeDir(ws.tmp, ws.name); err != nil {
		return nil, err
	}
	if ws.alive, err = openAt(ws.owner, "lock", unix.O_RDWR|unix.O_CREAT, 0o666); err != nil {
		return nil, err
	}
	return ws, again(func() error { return unix.Flock(int(ws.alive.Fd()), unix.LOCK_EX) })
}

// lockOwners keeps others from taking an owner that is just coming for dead.
func lockOwners(folder *os.File) (unlock func(), err error) {
	f, err := openAt(folder, "lock", unix.O_RDWR|unix.O_CREAT, 0o666)
	if err != nil {
		return nil, err
	}
	if err := again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) }); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// close removes what is left. The lock goes last, so that nobody removes it
// at the same time.
func (ws *workspace) close() {
	if ws.owner != nil {
		removeOwner(ws.tmp, ws.owner, ws.name)
	}
	for _, f := range []*os.File{ws.alive, ws.owner, ws.tmp, ws.locks, ws.folder} {
		if f != nil {
			f.Close()
		}
	}
}

// removeOwner removes an owner's folder, in which there are files and empty
// directories. What cannot be removed stays: it is garbage, and nobody's.
func removeOwner(tmp, owner *os.File, name string) {
	entries, err := readNames(owner, 0)
	if err != nil {
		return
	}
	for _, e := range entries {
		flags := 0
		if e.kind == unix.DT_DIR {
			flags = unix.AT_REMOVEDIR
		}
		_ = unlinkAt(owner, e.name, flags)
	}
	_ = unlinkAt(tmp, name, unix.AT_REMOVEDIR)
}

// removeStale removes what processes that are dead now were preparing.
func (b *bucket) removeStale() {
	folder, err := openDir(b.root, reserved)
	if err != nil {
		return
	}
	defer folder.Close()
	tmp, err := openDir(folder, "tmp")
	if err != nil {
		return
	}
	defer tmp.Close()
	owners, err := readNames(tmp, 0)
	if err != nil || len(owners) == 0 {
		return
	}
	unlock, err := lockOwners(folder)
	if err != nil {
		return // read-only: whoever writes cleans up
	}
	defer unlock()
	for _, e := range owners {
		owner, err := openDir(tmp, e.name)
		if err != nil {
			continue
		}
		if dead(owner) {
			removeOwner(tmp, owner, e.name)
		}
		owner.Close()
	}
}

// dead says whether nobody holds the owner's lock.
func dead(owner *os.File) bool {
	f, err := openAt(owner, "lock", unix.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, unix.ENOENT) // killed before it had one
	}
	defer f.Close()
	return again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }) == nil
}

// temp is a file or directory that is being prepared.
type temp struct {
	ws   *workspace
	name string
	f    *os.File
}

func (b *bucket) tempFile() (*temp, error) {
	return b.temp(func(dir *os.File, name string) (*os.File, error) {
		return openAt(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o666)
	})
}

func (b *bucket) tempDir() (*temp, error) { return b.temp(makeDir) }

func (b *bucket) temp(create func(dir *os.File, name string) (*os.File, error)) (*temp, error) {
	ws, err := b.workspace()
	if err != nil {
		return nil, err
	}
	name := strconv.FormatInt(ws.serial.Add(1), 10)
	f, err := create(ws.owner, name)
	if err != nil {
		return nil, err
	}
	return &temp{ws: ws, name: name, f: f}, nil
}

// publish puts it in place: over what is there, or, when exclusive, only
// where nothing is (else EEXIST).
func (t *temp) publish(dir *os.File, name string, exclusive bool) error {
	err := publish(t.ws.owner, t.name, dir, name, exclusive)
	if err == nil {
		t.name = ""
	}
	return err
}

func publish(from *os.File, name string, dir *os.File, target string, exclusive bool) error {
	if exclusive {
		err := renameAt(from, name, dir, target, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
		// A file system without the flag; our own locks still hold.
		if _, err := statAt(dir, target); err == nil {
			return unix.EEXIST
		}
	}
	err := renameAt(from, name, dir, target, 0)
	if errors.Is(err, unix.EINVAL) {
		err = unix.EILSEQ // a name that this file system cannot have
	}
	return err
}

// adopt gives it the permissions of the file it is about to replace, so that
// what somebody has made private stays so.
func (t *temp) adopt(dir *os.File, name string) error {
	old, err := statAt(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 { // others can only write as themselves
		err = ignorePermission(again(func() error { return unix.Fchown(int(t.f.Fd()), int(old.Uid), int(old.Gid)) }))
	}
	if err == nil {
		err = ignorePermission(again(func() error { return unix.Fchmod(int(t.f.Fd()), old.Mode&0o777) }))
	}
	return err
}

// discard closes it, and removes it unless it was published.
func (t *temp) discard() {
	if t.name != "" {
		if unlinkAt(t.ws.owner, t.name, 0) != nil {
			_ = unlinkAt(t.ws.owner, t.name, unix.AT_REMOVEDIR)
		}
	}
	t.f.Close()
}

// lock makes the caller the only one, in this process and others, who changes
// what is at these keys. Who holds locks takes no others.
func (b *bucket) lock(ctx context.Context, keys ...string) (unlock func(), err error) {
	var held []uint32 // ascending, so that two never wait for each other
	for _, key := range keys {
		h := fnv.New32a()
		h.Write([]byte(key))
		held = append(held, h.Sum32()%shards)
	}
	slices.Sort(held)
	unlock = func() {}
	for _, shard := range slices.Compact(held) {
		before := unlock
		one, err := b.lockShard(ctx, shard)
		if err != nil {
			before()
			return nil, err
		}
		unlock = func() { one(); before() }
	}
	return unlock, nil
}

func (b *bucket) lockShard(ctx context.Context, shard uint32) (unlock func(), err error) {
	select {
	case b.shards[shard] <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, err := b.lockFile(ctx, fmt.Sprintf("%02x", shard))
	if err != nil {
		<-b.shards[shard]
		return nil, err
	}
	return func() {
		f.Close()
		<-b.shards[shard]
	}, nil
}

// lockFile takes the lock of a shard from other processes. Waiting is by
// asking again, so that it ends with the context; conflicts are rare.
func (b *bucket) lockFile(ctx context.Context, name string) (*os.File, error) {
	const longest = 10 * time.Millisecond
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, longest) {
		ws, err := b.workspace()
		if err != nil {
			return nil, err
		}
		f, err := openAt(ws.locks, name, unix.O_RDWR|unix.O_CREAT, 0o666)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		if err == nil {
			err = again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
			if err == nil && !removed(f) {
				return f, nil
			}
			f.Close()
			if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, err
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
