package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// again repeats a system call that a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func retry[T any](call func() (T, error)) (out T, err error) {
	err = again(func() error { out, err = call(); return err })
	return out, err
}

// openAt opens name in dir, and never through a symbolic link.
func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := openFd(int(dir.Fd()), name, flags, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openFd(dir int, name string, flags int, mode uint32) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode) })
}

func openDir(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// makeDir opens the directory of that name, and makes it where there is none.
func makeDir(dir *os.File, name string) (*os.File, error) {
	f, err := openDir(dir, name)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	err = again(func() error { return unix.Mkdirat(int(dir.Fd()), name, 0o777) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return openDir(dir, name)
}

// openFile opens a regular file for reading. Of anything else it opens, the
// caller sees by its mode what it is; it never waits for a pipe's other end.
func openFile(dir *os.File, name string) (*os.File, error) {
	fd, err := openFileFd(dir, name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openFileFd(dir *os.File, name string) (int, error) {
	fd, err := openFd(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		err = unix.ENOENT
	}
	return fd, err
}

func statAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	err = again(func() error { return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

func unlinkAt(dir *os.File, name string, flags int) error {
	return again(func() error { return unix.Unlinkat(int(dir.Fd()), name, flags) })
}

func renameAt(from *os.File, name string, to *os.File, target string, flags uint) error {
	return again(func() error { return unix.Renameat2(int(from.Fd()), name, int(to.Fd()), target, flags) })
}

func removed(f *os.File) bool {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstat(int(f.Fd()), &st) })
	return err == nil && st.Nlink == 0
}

// dirent is a name in a directory. Kind is DT_REG, DT_DIR, or anything else.
type dirent struct {
	name string
	kind byte
}

// readNames reads the directory from its start: all names, or at least limit
// (where limit is not 0 and there are as many).
func readNames(dir *os.File, limit int) ([]dirent, error) {
	if _, err := unix.Seek(int(dir.Fd()), 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	size := 64 << 10
	if limit > 0 {
		size = 4 << 10
	}
	buf := make([]byte, size)
	var entries []dirent
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(int(dir.Fd()), buf) })
		if err != nil || n == 0 {
			return entries, err
		}
		for p := buf[:n]; len(p) > 0; {
			// struct linux_dirent64: inode, offset (8 bytes each), length of
			// the record (2), type (1), name up to a NUL.
			length := binary.NativeEndian.Uint16(p[16:])
			kind, name := p[18], p[19:length]
			p = p[length:]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			e := dirent{name: string(name), kind: kind}
			if e.name == "." || e.name == ".." {
				continue
			}
			if e.kind == unix.DT_UNKNOWN {
				if st, err := statAt(dir, e.name); err == nil {
					e.kind = byte(st.Mode & unix.S_IFMT >> 12) // DT_ values are made so
				}
			}
			entries = append(entries, e)
		}
		if limit > 0 && len(entries) >= limit {
			return entries, nil
		}
	}
}

// notThere says that there is no such file, or no such directory on the way.
func notThere(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// fail makes the error of a request of what went wrong in it.
func (b *bucket) fail(op, key string, err error) error {
	var already *backend.Error
	if err == nil || errors.As(err, &already) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	k := kind(err)
	if k == backend.ErrNotExist {
		switch {
		case removed(b.root):
			k = backend.ErrNoBucket
		case op != "stat" && op != "get" && op != "delete":
			k = backend.ErrTransient // somebody has removed the reserved folder
		}
	}
	return backend.Fail(op, key, k, err)
}

// kind chooses the sentinel for an error of the operating system.
func kind(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return backend.ErrInvalid
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return backend.ErrIO
	}
	switch errno {
	case unix.ENOENT:
		return backend.ErrNotExist
	case unix.ENOTDIR, unix.ELOOP, unix.EISDIR, unix.ENOTEMPTY, unix.EEXIST, unix.ENAMETOOLONG, unix.EILSEQ:
		return backend.ErrBadKey // the name, or one on the way, is taken or impossible
	case unix.EACCES, unix.EPERM, unix.EROFS:
		return backend.ErrPermission
	case unix.ENOSPC, unix.EDQUOT:
		return backend.ErrNoSpace
	case unix.EFBIG, unix.E2BIG, unix.ERANGE:
		return backend.ErrTooLarge
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.ESTALE, unix.ETIMEDOUT, unix.ENOBUFS:
		return backend.ErrTransient
	}
	return backend.ErrIO
}

// reserved is the folder for what is not an object.
const reserved = ".keifs-store"

// checkKey refuses what can never be a path below the directory.
func (b *bucket) checkKey(op, key string) error {
	if err := b.Caps().CheckKey(op, key); err != nil {
		return err
	}
	if reason := badPath(key); reason != "" {
		return backend.Fail(op, key, backend.ErrBadKey, errors.New(reason))
	}
	return nil
}

func badPath(key string) string {
	if strings.IndexByte(key, 0) >= 0 {
		return "NUL in it"
	}
	first := true
	for part := range strings.SplitSeq(strings.TrimSuffix(key, "/"), "/") {
		switch {
		case part == "":
			return "an empty component"
		case part == "." || part == "..":
			return "a component " + part
		case len(part) > unix.NAME_MAX:
			return "a component over 255 bytes"
		case first && part == reserved:
			return "reserved"
		}
		first = false
	}
	return ""
}
