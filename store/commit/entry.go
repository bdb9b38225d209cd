package commit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Entry is one object of a branch as it was: a file, symbolic link, FIFO or
// socket, or the marker of a directory, whose path ends in '/'.
type Entry struct {
	// Path is the object's key below the prefix of its branch. It is valid
	// UTF-8, and no component is "." or "..": nothing can leave the branch.
	Path string

	Size  int64  // bytes of the object
	Mtime int64  // nanoseconds since 1970
	Mode  uint32 // st_mode, with the type
	UID   uint32
	GID   uint32

	// Key and ETag name the content: the object at that key of the bucket as
	// long as it has this ETag, VersionID on a versioned bucket, else its pin.
	ETag      string
	Key       string
	VersionID string

	Target string // of a symbolic link
	Xattr  string // as the metadata of the object has it

	// Modified is when the store took the object, in nanoseconds since 1970: a
	// listing that shows the same ETag and time shows an object whose
	// attributes are these as well.
	Modified int64
}

// The type bits of a mode, as in st_mode.
const (
	modeType    = 0o170000
	modeRegular = 0o100000
	modeDir     = 0o040000
	modeSymlink = 0o120000
	modeFIFO    = 0o010000
	modeSocket  = 0o140000
)

// The limits of an entry, in bytes.
const (
	maxPath  = 4096
	maxValue = 64 << 10
)

// errEntry is what is wrong with an entry; callers say whose fault it is.
var errEntry = errors.New("malformed entry")

// IsDir says whether the entry is the marker of a directory.
func (e *Entry) IsDir() bool { return strings.HasSuffix(e.Path, "/") }

// Kind is the type of the entry in words, as the column type has it.
func (e *Entry) Kind() string { return kindOf(e.Mode) }

func kindOf(mode uint32) string {
	switch mode & modeType {
	case modeRegular:
		return "file"
	case modeDir:
		return "dir"
	case modeSymlink:
		return "symlink"
	case modeFIFO:
		return "fifo"
	case modeSocket:
		return "socket"
	}
	return ""
}

// Same says whether both have the same content and attributes, wherever the
// content lies.
func (e *Entry) Same(o *Entry) bool {
	return e.SameContent(o) && e.Mtime == o.Mtime && e.Mode == o.Mode && e.UID == o.UID && e.GID == o.GID && e.Xattr == o.Xattr
}

// SameContent says whether both have the same content and type.
func (e *Entry) SameContent(o *Entry) bool {
	return e.ETag == o.ETag && e.Size == o.Size && e.Target == o.Target && e.Mode&modeType == o.Mode&modeType
}

// ValidPath says whether an entry can have the path.
func ValidPath(path string) bool {
	if path == "" || len(path) > maxPath || !utf8.ValidString(path) || strings.IndexByte(path, 0) >= 0 {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "." || name == ".." {
			return false
		}
	}
	return true
}

// check says what is wrong with the entry, if anything.
func (e *Entry) check() error {
	bad := func(what string) error { return fmt.Errorf("%.200q: %s: %w", e.Path, what, errEntry) }
	switch {
	case !ValidPath(e.Path):
		return bad("path")
	case kindOf(e.Mode) == "" || e.Mode > math.MaxUint16:
		return bad("mode")
	case e.IsDir() && e.Mode&modeType != modeDir && e.Size == 0, !e.IsDir() && e.Mode&modeType == modeDir:
		return bad("type")
	case e.Size < 0:
		return bad("size")
	case e.Target != "" && e.Mode&modeType != modeSymlink:
		return bad("target")
	case e.ETag == "" || len(e.ETag) > 1024 || len(e.VersionID) > 1024:
		return bad("version")
	case e.Key == "" || len(e.Key) > maxPath || strings.HasPrefix(e.Key, ".kei/"):
		return bad("key")
	case len(e.Target) > maxValue || len(e.Xattr) > maxValue:
		return bad("value")
	}
	for _, s := range []string{e.ETag, e.Key, e.VersionID, e.Target, e.Xattr} {
		if !utf8.ValidString(s) {
			return bad("not UTF-8")
		}
	}
	return nil
}

// append adds the canonical encoding, of which the id of a range is the hash:
// each field in order, strings after their length, numbers as varints.
func (e *Entry) append(b []byte) []byte {
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	str(e.Path)
	b = binary.AppendVarint(b, e.Size)
	b = binary.AppendVarint(b, e.Mtime)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.UID))
	b = binary.AppendUvarint(b, uint64(e.GID))
	str(e.ETag)
	str(e.Key)
	str(e.VersionID)
	str(e.Target)
	str(e.Xattr)
	return binary.AppendVarint(b, e.Modified)
}

// decodePath reads the path that an encoded entry begins with.
func decodePath(b []byte) []byte {
	n, w := binary.Uvarint(b)
	return b[w : w+int(n)]
}

// decodeEntry reads what append wrote, in memory: it is not for data from elsewhere.
func decodeEntry(b []byte) (e Entry, rest []byte) {
	str := func() string {
		n, w := binary.Uvarint(b)
		s := string(b[w : w+int(n)])
		b = b[w+int(n):]
		return s
	}
	num := func() int64 {
		n, w := binary.Varint(b)
		b = b[w:]
		return n
	}
	unsigned := func() uint32 {
		n, w := binary.Uvarint(b)
		b = b[w:]
		return uint32(n)
	}
	e.Path = str()
	e.Size, e.Mtime = num(), num()
	e.Mode, e.UID, e.GID = unsigned(), unsigned(), unsigned()
	e.ETag, e.Key, e.VersionID, e.Target, e.Xattr = str(), str(), str(), str(), str()
	e.Modified = num()
	return e, b
}
