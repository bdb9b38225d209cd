package store

import (
	"context"
	"iter"
	"time"
)

// Volume is what a mount shows: the branches of one bucket. The uncached
// volume of this package ([NewDirect]) is the reference; package cache has the
// fast one. The suite in store/storetest holds both to the same behaviour.
//
// All methods of Volume, Tree and File are safe for concurrent use. Errors
// wrap the sentinels of this package and of package backend.
type Volume interface {
	// Root is the tree above the branches, one level deep: each branch is a
	// directory, each object outside every branch a plain file. Mkdir makes a
	// branch, Rmdir removes an empty one; files can be read, and nothing else
	// changed (ErrOutsideBranch).
	Root() Tree

	// Branch returns the tree of an existing branch; ErrNotExist otherwise.
	Branch(ctx context.Context, name string) (Tree, error)

	// Pending lists what was written here and is not in the bucket yet.
	Pending() []Pending

	// Sync returns when everything written before it is in the bucket, or
	// with the first error that prevents it.
	Sync(ctx context.Context) error

	// Close publishes what is pending, as Sync, and releases everything else
	// even when that fails: what could not be published is kept on the local
	// disk where the volume has one, and the error says where. Files still
	// open fail from then on.
	Close(ctx context.Context) error
}

// Tree is the working tree of one branch. A path of the root itself is the
// zero Path. What one method changed is seen by every call that begins after
// it returned; what another host changed is seen after the volume's time to
// live at the latest, and by Open at once.
type Tree interface {
	// Name is the branch; empty for the root above the branches.
	Name() string

	// Lookup returns the entry at p, complete. ErrNotExist, or ErrNotDir
	// where a parent is known to be a file.
	Lookup(ctx context.Context, p Path) (Entry, error)

	// List yields the entries of the directory, in the order of ListPage, each
	// name once. Entries may be Partial. An error is yielded last:
	// ErrNotExist, ErrNotDir.
	List(ctx context.Context, dir Path) iter.Seq2[Entry, error]

	// ListPage returns the entries behind a place, as many as are at hand, and
	// the place to go on from. The order is that of [Order]: by bytes, where a
	// directory counts with a '/' behind its name. What is removed or made
	// between two pages neither hides nor repeats another name. A page may be
	// empty without being the last. Errors as List.
	ListPage(ctx context.Context, dir Path, from Cursor) (Page, error)

	// Open opens a file. It asks the bucket for the current version
	// (close-to-open). ErrNotExist, ErrIsDir.
	Open(ctx context.Context, p Path, flags OpenFlags) (File, error)

	// Create makes a regular file and opens it for reading and writing. With
	// exclusive, the empty file is published before Create returns and
	// ErrExist is returned where anything has the name, on any host (where
	// the store has conditional create). Without, an existing file is opened
	// and truncated, and a new one is in the bucket from the first Flush on;
	// in this volume it is visible at once.
	Create(ctx context.Context, p Path, attr Attr, exclusive bool) (File, error)

	// Mkdir makes a directory. ErrExist, ErrNotExist (no parent).
	Mkdir(ctx context.Context, p Path, attr Attr) (Entry, error)

	// Mknod makes an entry without content of its own: a symbolic link (its
	// target given), FIFO, socket or empty regular file, by attr.Mode.
	// Exclusive as Mkdir. Devices are ErrUnsupported.
	Mknod(ctx context.Context, p Path, attr Attr, target string) (Entry, error)

	// Readlink returns the target of a symbolic link.
	Readlink(ctx context.Context, p Path) (string, error)

	// Remove removes what is not a directory. Handles open in this volume
	// keep the content. A volume may promise it on its own disk, and have the
	// bucket do it later: not to a version that it has not seen. ErrNotExist,
	// ErrIsDir.
	Remove(ctx context.Context, p Path) error

	// Rmdir removes an empty directory. ErrNotEmpty, ErrNotDir, ErrNotExist.
	Rmdir(ctx context.Context, p Path) error

	// Rename moves a file or a directory, replacing what is at to (a
	// non-directory, or an empty directory, of the same kind). Handles open
	// in this volume follow; those of a replaced file keep its content.
	// ErrNotExist, ErrExist (NoReplace), ErrNotEmpty, ErrIsDir, ErrNotDir,
	// ErrInvalid (a directory into itself), ErrUnsupported.
	Rename(ctx context.Context, from, to Path, mode RenameMode) error

	// SetAttr changes attributes of what is at p and returns the entry after
	// it. Size is only for regular files.
	SetAttr(ctx context.Context, p Path, change AttrChange) (Entry, error)

	// Sync is Volume.Sync for what is at p and below it.
	Sync(ctx context.Context, p Path) error
}

// Recaller is a Tree that remembers. Recall is what Lookup would return, where
// that takes no request and is an entry.
type Recaller interface {
	Recall(p Path) (Entry, bool)
}

// Refresher is a Volume that remembers.
type Refresher interface {
	// Refresh forgets what the bucket said about p and all below it; of all
	// branches, and of the root, for the branch "". What is not in the bucket
	// yet stays as it is. It sends no request.
	Refresh(branch string, p Path)

	// Notice has fn called for each name that the bucket turns out to have
	// changed, by somebody else, since it was asked last, with what it is now;
	// nil is nothing. It is to be called before anything else. fn must not
	// wait, nor call the volume.
	Notice(fn func(branch string, p Path, e *Entry))
}

// File is an open file. Handles of one file in one volume share its content:
// what one wrote the others read at once.
type File interface {
	// Stat returns the entry as the handle sees it, also after the name is
	// gone or belongs to another file.
	Stat(ctx context.Context) (Entry, error)

	// ReadAt fills p from offset off as far as the file reaches, and returns
	// io.EOF only together with 0 bytes. One handle reads one version, never
	// a mix: ErrStale where the version it opened is gone from the bucket.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)

	// WriteAt writes all of p, or returns an error. ErrReadOnly on a handle
	// opened without Write. An offset below 0 appends, atomically among the
	// handles of this volume.
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)

	// Punch makes the range read as zeros, within the current size.
	Punch(ctx context.Context, off, n int64) error

	// Seek finds data or a hole at or after off; ErrNoData beyond the last.
	// A file without known holes is one run of data.
	Seek(ctx context.Context, off int64, hole bool) (int64, error)

	// CopyFrom copies n bytes of src, at the store where it can (a whole,
	// unchanged file onto an empty one). ErrUnsupported tells the caller to
	// copy by ReadAt and WriteAt.
	CopyFrom(ctx context.Context, src File, srcOff, off, n int64) (int64, error)

	// SetAttr is Tree.SetAttr for the open file, also after its name is gone.
	// On a file with unpublished changes it is published with them.
	SetAttr(ctx context.Context, change AttrChange) (Entry, error)

	// Flush is called at each close of a descriptor: after nil, everything
	// written is as safe as the volume promises for close (the default: in
	// the bucket). ErrStale when somebody else changed the file since it was
	// opened, and the conflict policy kept theirs.
	Flush(ctx context.Context) error

	// Sync returns when everything written is in the bucket, whatever the
	// volume promises for close.
	Sync(ctx context.Context) error

	// Close releases the handle; with the last one, changes still
	// unpublished (written through a mapping after the last Flush) are
	// published. No other call may follow.
	Close(ctx context.Context) error
}

// OpenFlags says what a handle is for.
type OpenFlags struct {
	Write    bool
	Truncate bool // with Write: the content is dropped
}

// RenameMode is the flag of Rename.
type RenameMode int

// The modes of Rename.
const (
	Replace   RenameMode = iota
	NoReplace            // fail with ErrExist where the target exists
	Exchange             // swap two files; not atomic, but a crash loses neither
)

// Attr are the POSIX attributes of an entry.
type Attr struct {
	Mode  uint32 // S_IFMT bits and permissions, as st_mode
	UID   uint32
	GID   uint32
	Mtime time.Time
	Atime time.Time // zero: same as Mtime
	Ctime time.Time // last change of content or attributes, as far as known; stored when a file is published

	// Xattrs are the user's extended attributes. The map is never changed
	// in place; nil is none.
	Xattrs map[string][]byte

	// ContentType and Foreign, the metadata that other tools gave the
	// object, mean nothing to a mount. They are kept when the file is
	// published again with the Attr it had. Foreign is never changed in place.
	ContentType string
	Foreign     map[string]string
}

// Entry is one name in a tree.
type Entry struct {
	Name string // the last component, as the mount shows it; empty for a root
	Attr
	Size int64 // bytes; of a symbolic link the length of its target

	// Version is the ETag of the object; empty for a directory, and for a
	// file that has never been published.
	Version string

	// Partial: from a listing. Only Name, whether it is a directory (Mode
	// has S_IFDIR) or anything else (Mode has S_IFREG), Size, Version and
	// Mtime (the store's) are known. Lookup tells the rest.
	Partial bool

	// Listed: from a listing, and complete, since it has no attributes of its
	// own that anybody here would know of. ContentType and Foreign are not
	// known: it is not what a file may be published again with.
	Listed bool

	// Changed is when the store took the object, by its own clock, as far as
	// that was told.
	Changed time.Time

	// Holds are times of an object of this name, version and size for which
	// it has these attributes, whatever happened since they were told.
	Holds Times

	// Marker: the directory has an object of its own, and so lives on
	// when it is empty.
	Marker bool

	// State is that of Pending where this volume has changes of the file that
	// the bucket does not have; else empty.
	State string

	// stamped: the object has its times in its own metadata, so that a copy
	// has them too.
	stamped bool
}

// IsDir says whether the entry is a directory.
func (e Entry) IsDir() bool { return e.Mode&ModeType == ModeDir }

// IsSymlink says whether the entry is a symbolic link.
func (e Entry) IsSymlink() bool { return e.Mode&ModeType == ModeSymlink }

// IsRegular says whether the entry is a regular file.
func (e Entry) IsRegular() bool { return e.Mode&ModeType == ModeRegular }

// The type bits of Attr.Mode, as in st_mode on Linux and in the bucket.
const (
	ModeType    = 0o170000
	ModeRegular = 0o100000
	ModeDir     = 0o040000
	ModeSymlink = 0o120000
	ModeFIFO    = 0o010000
	ModeSocket  = 0o140000
)

// AttrChange says which attributes to change; nil fields stay.
type AttrChange struct {
	Mode  *uint32 // permission bits; the type stays
	UID   *uint32
	GID   *uint32
	Mtime *time.Time
	Atime *time.Time
	Size  *int64 // truncate or extend; regular files only

	// Base, if set, is the version that must be current: ErrStale otherwise,
	// so that who holds the content of it knows that the version returned
	// has the same.
	Base string

	// Dir: a directory with an object of its own was there, which spares
	// requests where it still is.
	Dir bool

	// Xattr sets or, with a nil Value, removes one extended attribute.
	Xattr *XattrChange
}

// XattrChange changes one extended attribute.
type XattrChange struct {
	Name    string
	Value   []byte // nil removes
	Create  bool   // ErrExist where it is there
	Replace bool   // ErrNoXattr where it is not
}

// Pending is a file with changes that are not in the bucket, or what else is
// under way in a branch.
type Pending struct {
	Branch string
	Path   string
	State  string // "dirty", "uploading" or "failed"; "removing" or "renaming"
	Bytes  int64
	Names  int // of "removing": how many; of "renaming": how many are done
	Of     int // of "renaming": of how many
	Since  time.Time
	Err    string // of the last failed attempt
}
