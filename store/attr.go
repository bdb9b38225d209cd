package store

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// Attributes in object metadata. keifs writes the first group, which s3fs and
// rclone read, and only what differs from the store's defaults. It understands
// the others, and replaces them with its own when it writes.
const (
	metaMode  = "mode" // decimal st_mode; rclone writes it in octal
	metaUID   = "uid"
	metaGID   = "gid"
	metaMtime = "mtime" // seconds, a point, nine digits; with rclone --metadata RFC 3339
	metaAtime = "atime"
	metaCtime = "ctime" // as mtime: the time of the object is in whole seconds, and of the store's clock
	metaXattr = "xattr" // percent-encoded JSON, {"name": "base64"}

	// metaNonce tells who won an exclusive create whose answer got lost. It
	// is gone with the first change of the file.
	metaNonce = "keifs-nonce"

	gcsfuseMtime = "gcsfuse_mtime" // RFC 3339
	googMode     = "goog-reserved-posix-mode"
	googUID      = "goog-reserved-posix-uid"
	googGID      = "goog-reserved-posix-gid"
	googMtime    = "goog-reserved-file-mtime"
	googAtime    = "goog-reserved-file-atime"
)

// Metadata by which other tools make a symbolic link. It stays as long as it
// is one, since the target is in it.
const (
	gcsfuseTarget = "gcsfuse_symlink_target"
	geesefsTarget = "--symlink-target" // percent-encoded
	googSymlink   = "goog-reserved-file-is-symlink"
)

// plainType is the content type of an object that was given none.
const plainType = "application/octet-stream"

// isOwn says whether the metadata is replaced when attributes are written.
func isOwn(name string) bool {
	switch name {
	case metaMode, metaUID, metaGID, metaMtime, metaAtime, metaXattr, metaCtime, metaNonce,
		gcsfuseMtime, googMode, googUID, googGID, googMtime, googAtime:
		return true
	}
	return false
}

// isDigest says whether the metadata of another tool describes the content,
// and so is wrong after a change: of rclone and of s3cmd.
func isDigest(name string) bool { return name == "md5chksum" || name == "s3cmd-attrs" }

func isLink(name string) bool {
	return name == gcsfuseTarget || name == geesefsTarget || name == googSymlink
}

// decode reads the attributes of an object. What makes no sense is ignored.
func (o *Options) decode(info backend.Info, dir bool) Attr {
	m := info.Metadata
	a := Attr{
		Mode: ModeRegular | o.FileMode, UID: o.UID, GID: o.GID,
		Mtime: info.ModTime, Ctime: info.ModTime,
	}
	if info.ContentType != plainType {
		a.ContentType = info.ContentType
	}
	if dir {
		a.Mode = ModeDir | o.DirMode
	} else if _, ok := linkTarget(m); ok || m[googSymlink] == "true" {
		a.Mode = ModeSymlink | 0o777
	}
	if mode, ok := parseMode(m[metaMode], dir); ok {
		a.Mode = withType(mode, a.Mode)
	} else if mode, err := strconv.ParseUint(m[googMode], 8, 32); err == nil && mode <= 0o7777 {
		a.Mode = withType(uint32(mode), a.Mode)
	}
	a.UID = parseID(a.UID, m[googUID], m[metaUID])
	a.GID = parseID(a.GID, m[googGID], m[metaGID])
	a.Mtime = parseTimes(a.Mtime, m[googMtime], m[gcsfuseMtime], m[metaMtime])
	a.Atime = parseTimes(a.Atime, m[googAtime], m[metaAtime])
	a.Ctime = parseTimes(a.Ctime, m[metaCtime])
	a.Xattrs = parseXattrs(m[metaXattr])
	for name, value := range m {
		if isOwn(name) {
			continue
		}
		if a.Foreign == nil {
			a.Foreign = map[string]string{}
		}
		a.Foreign[name] = value
	}
	return a
}

// withType gives mode the type bits of another where it has none.
func withType(mode, other uint32) uint32 {
	if mode&ModeType == 0 {
		mode |= other & ModeType
	}
	return mode
}

// encode is the metadata of an object with these attributes. changed: its
// content is another than that which Foreign came with.
func (o *Options) encode(a Attr, changed bool) map[string]string {
	m := map[string]string{}
	for name, value := range a.Foreign {
		if isOwn(name) || changed && isDigest(name) || isLink(name) && a.Mode&ModeType != ModeSymlink {
			continue
		}
		// Of what a store hands out, not everything is accepted again.
		if (backend.Caps{}).CheckMetadata("", "", map[string]string{name: value}) == nil {
			m[name] = value
		}
	}
	standard := ModeRegular | o.FileMode
	if a.Mode&ModeType == ModeDir {
		standard = ModeDir | o.DirMode
	}
	if a.Mode != standard {
		m[metaMode] = strconv.FormatUint(uint64(a.Mode), 10)
	}
	if a.UID != o.UID {
		m[metaUID] = strconv.FormatUint(uint64(a.UID), 10)
	}
	if a.GID != o.GID {
		m[metaGID] = strconv.FormatUint(uint64(a.GID), 10)
	}
	m[metaMtime], m[metaCtime] = formatTime(a.Mtime), formatTime(a.Ctime)
	if !a.Atime.IsZero() && !a.Atime.Equal(a.Mtime) {
		m[metaAtime] = formatTime(a.Atime)
	}
	if len(a.Xattrs) > 0 {
		m[metaXattr] = formatXattrs(a.Xattrs)
	}
	return m
}

// normal completes attributes that a caller made up: the type is that of what
// is being made, and a symbolic link has the permissions that Linux shows.
func (a Attr) normal(kind uint32) Attr {
	a.Mode = kind | a.Mode&0o7777
	if kind == ModeSymlink {
		a.Mode = kind | 0o777
	}
	now := time.Now()
	if a.Mtime.IsZero() {
		a.Mtime = now
	}
	if a.Ctime.IsZero() {
		a.Ctime = now
	}
	return a
}

// sameAttributes says whether two objects have the same metadata, but for
// when they got it and who made them.
func sameAttributes(a, b map[string]string) bool {
	strip := func(m map[string]string) map[string]string {
		m = maps.Clone(m)
		delete(m, metaCtime)
		delete(m, metaNonce)
		return m
	}
	return maps.Equal(strip(a), strip(b))
}

// CheckAttr returns ErrTooBig for attributes that this bucket cannot keep.
func (s *Store) CheckAttr(a Attr) error {
	err := s.b.Caps().CheckMetadata("put", "", s.opts.encode(a, false))
	if err != nil {
		return fmt.Errorf("%w: %v", ErrTooBig, err)
	}
	return nil
}

// parseMode reads a mode. Tools write st_mode in decimal (s3fs, geesefs, this
// one) or in octal (rclone), with the type or, for a default of theirs,
// without. Where both readings are numbers, at most one has a type that fits
// what the key says: a directory or not.
func parseMode(s string, dir bool) (mode uint32, ok bool) {
	octal, err := strconv.ParseUint(s, 8, 32)
	isOctal := err == nil
	if decimal, err := strconv.ParseUint(s, 10, 32); err == nil && !strings.HasPrefix(s, "0") {
		if fitsType(decimal, dir) || decimal <= 0o7777 && !(isOctal && fitsType(octal, dir)) {
			return uint32(decimal), true
		}
	}
	if isOctal && (fitsType(octal, dir) || octal <= 0o7777) {
		return uint32(octal), true
	}
	return 0, false
}

// fitsType says whether the mode has a type, one that can be kept and that
// goes with a key.
func fitsType(mode uint64, dir bool) bool {
	if mode > math.MaxUint16 {
		return false
	}
	switch mode & ModeType {
	case ModeDir:
		return dir
	case ModeRegular, ModeSymlink, ModeFIFO, ModeSocket:
		return !dir
	}
	return false
}

// parseID returns the last of values that is an id, or else.
func parseID(other uint32, values ...string) uint32 {
	for _, s := range values {
		// All ones is "no id" to chown.
		if id, err := strconv.ParseUint(s, 10, 32); err == nil && id != math.MaxUint32 {
			other = uint32(id)
		}
	}
	return other
}

// parseTimes returns the last of values that is a time, or else.
func parseTimes(other time.Time, values ...string) time.Time {
	for _, s := range values {
		if t, ok := parseTime(s); ok {
			other = t
		}
	}
	return other
}

// Times beyond these years are another unit, or no times.
const (
	firstSecond = -62135596800 // year 1
	lastSecond  = 253402300799 // year 9999
)

// parseTime reads decimal seconds, with or without a fraction, or RFC 3339.
func parseTime(s string) (time.Time, bool) {
	if strings.ContainsAny(s, "T:") {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || t.Unix() <= firstSecond || t.Unix() > lastSecond {
			return time.Time{}, false
		}
		return time.Unix(t.Unix(), int64(t.Nanosecond())), true
	}
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if strings.Trim(whole+fraction, "0123456789") != "" {
		return time.Time{}, false
	}
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	nsec, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if negative {
		sec, nsec = -sec, -nsec
	}
	if sec <= firstSecond || sec > lastSecond {
		return time.Time{}, false
	}
	return time.Unix(sec, nsec), true
}

// formatTime writes what parseTime reads.
func formatTime(t time.Time) string {
	sec, nsec := t.Unix(), t.Nanosecond()
	sign := ""
	if sec < 0 {
		sign = "-"
		sec = -sec
		if nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return fmt.Sprintf("%s%d.%09d", sign, sec, nsec)
}

// Apply returns attr with change (without Size) made to it, checked; Ctime is
// set to now. ErrExist, ErrNoXattr, ErrTooBig.
func (c AttrChange) Apply(attr Attr) (Attr, error) {
	if c.Mode != nil && attr.Mode&ModeType != ModeSymlink {
		attr.Mode = attr.Mode&ModeType | *c.Mode&0o7777
	}
	if c.UID != nil {
		attr.UID = *c.UID
	}
	if c.GID != nil {
		attr.GID = *c.GID
	}
	if c.Mtime != nil {
		if attr.Atime.IsZero() {
			attr.Atime = attr.Mtime // which was the access time till now
		}
		attr.Mtime = *c.Mtime
	}
	if c.Atime != nil {
		attr.Atime = *c.Atime
	}
	if attr.Atime.Equal(attr.Mtime) {
		attr.Atime = time.Time{}
	}
	if c.Xattr != nil {
		xattrs, err := c.Xattr.apply(attr.Xattrs)
		if err != nil {
			return Attr{}, err
		}
		attr.Xattrs = xattrs
	}
	attr.Ctime = time.Now()
	return attr, nil
}

// The limits that Linux has.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
)

func (c *XattrChange) apply(xattrs map[string][]byte) (map[string][]byte, error) {
	_, found := xattrs[c.Name]
	switch {
	case c.Name == "" || !utf8.ValidString(c.Name) || strings.Contains(c.Name, "\x00"):
		return nil, fmt.Errorf("attribute %q: %w", c.Name, ErrInvalid)
	case len(c.Name) > maxXattrName || len(c.Value) > maxXattrValue:
		return nil, fmt.Errorf("attribute %.20q of %d bytes: %w", c.Name, len(c.Value), ErrTooBig)
	case c.Value == nil && !found, c.Replace && !found:
		return nil, fmt.Errorf("attribute %q: %w", c.Name, ErrNoXattr)
	case c.Value != nil && c.Create && found:
		return nil, fmt.Errorf("attribute %q: %w", c.Name, ErrExist)
	}
	xattrs = maps.Clone(xattrs)
	if c.Value == nil {
		delete(xattrs, c.Name)
		if len(xattrs) == 0 {
			return nil, nil
		}
		return xattrs, nil
	}
	if xattrs == nil {
		xattrs = map[string][]byte{}
	}
	xattrs[c.Name] = c.Value
	return xattrs, nil
}
