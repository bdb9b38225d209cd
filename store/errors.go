package store

import "errors"

// The sentinels of this package, beside those of package backend, which pass
// through. Package fs has the one table that makes errno values of them.
var (
	// ErrNotExist: there is no such file, directory or branch.
	ErrNotExist = errors.New("no such file or directory")
	// ErrExist: the name is taken.
	ErrExist = errors.New("file exists")
	// ErrNotDir: a directory was needed.
	ErrNotDir = errors.New("not a directory")
	// ErrIsDir: a directory was not expected.
	ErrIsDir = errors.New("is a directory")
	// ErrNotEmpty: the directory has entries.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrStale: the version this handle is about is gone: somebody else changed or removed the file.
	ErrStale = errors.New("file was changed by somebody else")
	// ErrBadName: a name or path that cannot be in any tree (empty, "..", NUL, a reserved or malformed escaped name).
	ErrBadName = errors.New("invalid name")
	// ErrNameTooLong: a component over 255 bytes, or a path whose key the store cannot hold.
	ErrNameTooLong = errors.New("name too long")
	// ErrOutsideBranch: files cannot be changed above the branches.
	ErrOutsideBranch = errors.New("files can only be changed within a branch")
	// ErrReadOnly: the volume, the bucket or the handle is read-only.
	ErrReadOnly = errors.New("read-only")
	// ErrUnsupported: what was asked for is not possible here.
	ErrUnsupported = errors.New("not supported")
	// ErrInvalid: an argument that makes no sense, as a directory renamed into itself.
	ErrInvalid = errors.New("invalid argument")
	// ErrNoXattr: no extended attribute of that name.
	ErrNoXattr = errors.New("no such extended attribute")
	// ErrTooBig: a file, attribute or list of attributes over what can be kept.
	ErrTooBig = errors.New("too big to store")
	// ErrNoData: no data or hole at or after the offset.
	ErrNoData = errors.New("no data at this offset")
	// ErrClosed: the volume or the handle is closed.
	ErrClosed = errors.New("closed")
	// ErrFormat: the bucket's format is newer than this program.
	ErrFormat = errors.New("bucket format not known to this version of keifs")
	// ErrCacheFull: the local disk that holds unpublished data is full.
	ErrCacheFull = errors.New("no space left on the cache disk")
	// ErrCache: the local cache disk failed.
	ErrCache = errors.New("input/output error of the cache disk")
)

// Sentinels lists all of the above, for exhaustive tables and their tests.
func Sentinels() []error {
	return []error{
		ErrNotExist, ErrExist, ErrNotDir, ErrIsDir, ErrNotEmpty, ErrStale, ErrBadName, ErrNameTooLong, ErrOutsideBranch,
		ErrReadOnly, ErrUnsupported, ErrInvalid, ErrNoXattr, ErrTooBig, ErrNoData, ErrClosed, ErrFormat, ErrCacheFull, ErrCache,
	}
}
