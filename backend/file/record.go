package file

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

// attribute holds the record of a file or directory: lines of name=value.
const attribute = "user.keifs"

// record is what an object has besides its content, and what keifs knows of a
// directory. One attribute holds all of it, so that it changes atomically.
type record struct {
	known bool // there is a record; a file or directory of another tool has none

	// nonce is random with every write of the content, so that two writes
	// never have the same ETag, however quick and alike they are.
	nonce string

	// replaced is when the metadata was replaced without a new content.
	replaced time.Time

	contentType string
	metadata    map[string]string

	marker bool // of a directory: it is an object
	fresh  bool // of a directory: its name may not be on the disk yet
}

func newNonce() string {
	var p [8]byte
	rand.Read(p[:])
	return hex.EncodeToString(p[:])
}

func newRecord(opts backend.PutOptions) record {
	return record{nonce: newNonce(), contentType: opts.ContentType, metadata: opts.Metadata}
}

func (r record) encode() []byte {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", name, value)
		}
	}
	line("nonce", r.nonce)
	if !r.replaced.IsZero() {
		line("replaced", strconv.FormatInt(r.replaced.UnixNano(), 10))
	}
	if r.marker {
		line("marker", "1")
	}
	if r.fresh {
		line("fresh", "1")
	}
	line("type", r.contentType)
	for name, value := range r.metadata {
		fmt.Fprintf(&b, "meta.%s=%s\n", name, value)
	}
	return []byte(b.String())
}

// parseRecord never fails: of what another tool has mangled, it keeps what it
// can read.
func parseRecord(data []byte) record {
	r := record{known: true}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			continue
		}
		meta, isMeta := strings.CutPrefix(name, "meta.")
		switch {
		case isMeta:
			if r.metadata == nil {
				r.metadata = map[string]string{}
			}
			r.metadata[meta] = value
		case name == "nonce":
			r.nonce = value
		case name == "replaced":
			if ns, err := strconv.ParseInt(value, 10, 64); err == nil {
				r.replaced = time.Unix(0, ns)
			}
		case name == "marker":
			r.marker = true
		case name == "fresh":
			r.fresh = true
		case name == "type":
			r.contentType = value
		}
	}
	return r
}

// readRecord reads the record of an open file or directory; where none can be
// had, it returns the zero record.
func readRecord(f *os.File) record { return readRecordFd(int(f.Fd())) }

func readRecordFd(fd int) record {
	buf := make([]byte, 512)
	for {
		n, err := retry(func() (int, error) { return unix.Fgetxattr(fd, attribute, buf) })
		switch {
		case err == nil:
			return parseRecord(buf[:n])
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<16:
			buf = make([]byte, 1<<16)
		default:
			return record{}
		}
	}
}

// write stores the record, which the next sync of f makes durable.
func (r record) write(f *os.File) error {
	return again(func() error { return unix.Fsetxattr(int(f.Fd()), attribute, r.encode(), 0) })
}

func hasXattrs(dir *os.File) bool {
	_, err := retry(func() (int, error) { return unix.Fgetxattr(int(dir.Fd()), attribute, nil) })
	return err == nil || errors.Is(err, unix.ENODATA)
}

// object is an open object: a regular file, or a directory that is a marker.
type object struct {
	key string
	f   *os.File
	st  unix.Stat_t
	record
}

// stat makes an object of an open file or directory.
func stat(key string, f *os.File) (*object, error) {
	o := &object{key: key, f: f}
	return o, o.stat(int(f.Fd()))
}

func (o *object) stat(fd int) error {
	if err := again(func() error { return unix.Fstat(fd, &o.st) }); err != nil {
		return err
	}
	o.record = readRecordFd(fd)
	return nil
}

func (o *object) isDir() bool { return o.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func (o *object) size() int64 {
	if o.isDir() {
		return 0
	}
	return o.st.Size
}

// etag tells versions apart: those that keifs wrote by their nonce, and what
// another tool did, in place or by a rename, by size, time and inode. The
// time and size of a directory are those of its list of names, so not in it.
func (o *object) etag() string {
	tag := make([]byte, 0, 64)
	if tag = append(tag, o.nonce...); o.nonce == "" {
		tag = append(tag, '0')
	}
	if !o.isDir() {
		tag = strconv.AppendInt(append(tag, '-'), o.st.Size, 16)
		tag = strconv.AppendInt(append(tag, '-'), o.st.Mtim.Nano(), 16)
	}
	return string(strconv.AppendUint(append(tag, '-'), o.st.Ino, 16))
}

// changed says whether the content was changed in place since stat.
func (o *object) changed() bool {
	var now unix.Stat_t
	err := again(func() error { return unix.Fstat(int(o.f.Fd()), &now) })
	return err != nil || !o.isDir() && (now.Size != o.st.Size || now.Mtim != o.st.Mtim)
}

// listed is what a listing tells of the object.
func (o *object) listed() backend.Info {
	mtime := time.Unix(o.st.Mtim.Unix())
	if o.replaced.After(mtime) {
		mtime = o.replaced
	}
	return backend.Info{Key: o.key, Size: o.size(), ETag: o.etag(), ModTime: mtime}
}

func (o *object) info() backend.Info {
	info := o.listed()
	info.Date = time.Now()
	if info.Metadata = o.metadata; info.Metadata == nil {
		info.Metadata = map[string]string{}
	}
	if info.ContentType = o.contentType; info.ContentType == "" {
		info.ContentType = "application/octet-stream"
	}
	return info
}

// isMarker says whether the directory is an object: it is marked so, or
// another tool has made it and nothing is in it.
func (o *object) isMarker() (bool, error) {
	if o.known {
		return o.marker, nil
	}
	names, err := readNames(o.f, 1)
	return len(names) == 0, err
}
