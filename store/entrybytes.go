package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// errEntryBytes: not what AppendBytes made.
var errEntryBytes = errors.New("not the bytes of an entry")

// entryBytes is the version of the form.
const entryBytes = 1

const (
	isMarker = 1 << iota
	isStamped
)

// AppendBytes appends a form of the entry from which it can be had back, but
// for its name. It is for entries that are complete, and for the local disk:
// another version of this package may not read it.
func (e Entry) AppendBytes(buf []byte) []byte {
	flags := byte(0)
	if e.Marker {
		flags |= isMarker
	}
	if e.stamped {
		flags |= isStamped
	}
	buf = append(buf, entryBytes, flags)
	for _, n := range []uint64{uint64(e.Mode), uint64(e.UID), uint64(e.GID), uint64(e.Size)} {
		buf = binary.AppendUvarint(buf, n)
	}
	for _, n := range []int64{e.Holds.First, e.Holds.Last - e.Holds.First} {
		buf = binary.AppendVarint(buf, n)
	}
	for _, t := range []time.Time{e.Mtime, e.Atime, e.Ctime, e.Changed} {
		buf = appendTime(buf, t)
	}
	buf = appendString(appendString(buf, e.Version), e.ContentType)
	buf = appendMap(buf, e.Xattrs)
	return appendMap(buf, e.Foreign)
}

func appendTime(buf []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(buf, 0)
	}
	buf = append(buf, 1)
	return binary.AppendUvarint(binary.AppendVarint(buf, t.Unix()), uint64(t.Nanosecond()))
}

func appendString[T ~string | ~[]byte](buf []byte, s T) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func appendMap[T ~string | ~[]byte](buf []byte, m map[string]T) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(m)))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		buf = appendString(appendString(buf, name), m[name])
	}
	return buf
}

// EntryFrom is the entry of that name which AppendBytes made data of.
func EntryFrom(name string, data []byte) (Entry, error) {
	r := &entryReader{data: data}
	if r.byte() != entryBytes {
		return Entry{}, fmt.Errorf("%w of version %d", errEntryBytes, entryBytes)
	}
	flags := r.byte()
	e := Entry{Name: name, Marker: flags&isMarker != 0, stamped: flags&isStamped != 0}
	e.Mode, e.UID, e.GID, e.Size = uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint()), int64(r.uvarint())
	e.Holds.First = r.varint()
	e.Holds.Last = e.Holds.First + r.varint()
	e.Mtime, e.Atime, e.Ctime, e.Changed = r.time(), r.time(), r.time(), r.time()
	e.Version, e.ContentType = string(r.bytes()), string(r.bytes())
	if n := r.uvarint(); n > 0 {
		e.Xattrs = map[string][]byte{}
		for ; n > 0 && !r.bad; n-- {
			name := string(r.bytes())
			e.Xattrs[name] = slices.Clone(r.bytes())
		}
	}
	if n := r.uvarint(); n > 0 {
		e.Foreign = map[string]string{}
		for ; n > 0 && !r.bad; n-- {
			name := string(r.bytes())
			e.Foreign[name] = string(r.bytes())
		}
	}
	if r.bad || len(r.data) > 0 {
		return Entry{}, errEntryBytes
	}
	return e, nil
}

// entryReader takes values off data. From the first that is not there on, it
// is bad, and all are zero.
type entryReader struct {
	data []byte
	bad  bool
}

func (r *entryReader) take(n int) []byte {
	if n <= 0 || n > len(r.data) {
		r.bad, r.data = true, nil
		return nil
	}
	p := r.data[:n]
	r.data = r.data[n:]
	return p
}

func (r *entryReader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *entryReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	r.take(n)
	if r.bad {
		return 0
	}
	return v
}

func (r *entryReader) varint() int64 {
	v, n := binary.Varint(r.data)
	r.take(n)
	if r.bad {
		return 0
	}
	return v
}

func (r *entryReader) bytes() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return nil
	}
	return r.take(int(n))
}

func (r *entryReader) time() time.Time {
	if r.byte() == 0 {
		return time.Time{}
	}
	sec, nsec := r.varint(), r.uvarint()
	if nsec >= 1e9 {
		r.bad = true
	}
	return time.Unix(sec, int64(nsec))
}
