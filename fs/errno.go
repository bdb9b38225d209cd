package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// errno is what the kernel is told; 0 is success.
type errno = syscall.Errno

// The errors of this package itself. This file is the only one that knows
// errno values: everything else returns errors.
var (
	// errGone: the node has no name any more. The kernel answers ESTALE by
	// walking the path once more, and so finds what has the name now.
	errGone         = errors.New("the name is gone")
	errCross        = errors.New("crosses branches")
	errNotPermitted = errors.New("operation not permitted")
	errRange        = errors.New("buffer too small")
	errXattrSpace   = errors.New("no space for the extended attribute")
)

// notTold leaves out an entry's attributes, where they may be left out.
const notTold = syscall.ENODATA

// errnos says what the kernel is told of an error. The first row that fits
// counts; what fits none is EIO.
var errnos = []struct {
	err   error
	errno errno
}{
	{errGone, syscall.ESTALE},
	{errCross, syscall.EXDEV},
	{errNotPermitted, syscall.EPERM},
	{errRange, syscall.ERANGE},
	{errXattrSpace, syscall.ENOSPC},

	{store.ErrNotExist, syscall.ENOENT},
	{store.ErrExist, syscall.EEXIST},
	{store.ErrNotDir, syscall.ENOTDIR},
	{store.ErrIsDir, syscall.EISDIR},
	{store.ErrNotEmpty, syscall.ENOTEMPTY},
	{store.ErrStale, syscall.ESTALE},
	{store.ErrBadName, syscall.EINVAL},
	{store.ErrNameTooLong, syscall.ENAMETOOLONG},
	{store.ErrOutsideBranch, syscall.EPERM},
	{store.ErrReadOnly, syscall.EROFS},
	{store.ErrUnsupported, syscall.ENOTSUP},
	{store.ErrInvalid, syscall.EINVAL},
	{store.ErrNoXattr, syscall.ENODATA},
	{store.ErrTooBig, syscall.EFBIG},
	{store.ErrNoData, syscall.ENXIO},
	{store.ErrClosed, syscall.EIO},
	{store.ErrFormat, syscall.EROFS},
	{store.ErrCacheFull, syscall.ENOSPC},
	{store.ErrCache, syscall.EIO},

	{backend.ErrNotExist, syscall.ENOENT},
	{backend.ErrNoBucket, syscall.EIO},
	{backend.ErrPrecondition, syscall.ESTALE},
	{backend.ErrPermission, syscall.EACCES},
	{backend.ErrCredentials, syscall.EACCES},
	{backend.ErrThrottled, syscall.EIO},
	{backend.ErrTransient, syscall.EIO},
	{backend.ErrUnreachable, syscall.EIO},
	{backend.ErrBadKey, syscall.EINVAL},
	{backend.ErrTooLarge, syscall.EFBIG},
	{backend.ErrNoSpace, syscall.ENOSPC},
	{backend.ErrUnsupported, syscall.ENOTSUP},
	{backend.ErrInvalid, syscall.EIO},
	{backend.ErrCorrupt, syscall.EIO},
	{backend.ErrIO, syscall.EIO},

	// Only a request that was interrupted seconds ago has a context that ends.
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
}

// errnoOf translates; nil is 0.
func errnoOf(err error) errno {
	if err == nil {
		return 0
	}
	for _, row := range errnos {
		if errors.Is(err, row.err) {
			return row.errno
		}
	}
	return syscall.EIO
}

// errno translates the error of an operation on n. An error leaves the program
// here as a mere number, so what the number does not tell is logged.
func (n *node) errno(op string, err error) errno {
	return n.m.errno(op, n, err)
}

func (m *mounted) errno(op string, n *node, err error) errno {
	code := errnoOf(err)
	switch code {
	case 0:
		return 0
	case syscall.EIO, syscall.EACCES, syscall.ENOSPC, syscall.ETIMEDOUT:
		m.log.Warn("request failed", "op", op, "path", m.places.name(n), "errno", code.Error(), "err", err)
	default:
		if m.log.Enabled(context.Background(), slog.LevelDebug) {
			m.log.Debug("request failed", "op", op, "path", m.places.name(n), "errno", code.Error(), "err", err)
		}
	}
	return code
}

// nodeErr is for operations on a node itself, where the store says that the
// name is not there, or something else: another host did that. ESTALE makes the
// kernel walk the path again, and so find out, or create what is to be created.
func nodeErr(err error) error {
	if errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrIsDir) || errors.Is(err, store.ErrNotDir) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

// kindErr is nodeErr for what is only possible with a node of its kind: to open
// a file, to read a link.
func kindErr(err error) error {
	if errors.Is(err, store.ErrInvalid) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nodeErr(err)
}

// errPanicked is what a request answers whose code failed.
const errPanicked = syscall.EIO
