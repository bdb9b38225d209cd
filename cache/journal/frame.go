package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
)

// A file begins with magic, and then has frames only, the first one of tagHead:
//
//	length  4 bytes, of what follows the checksum
//	CRC-32C 4 bytes, of what follows it
//	tag     1 byte: the kind of a record, or one of the tags below
//	id      8 bytes: of the record; of a mark, the last record it covers
//	count   4 bytes, and as many ids of 8 bytes: the records that it ends
//	data    the rest
//
// All numbers are little-endian. An all-zero frame does not decode.
const magic = "keijrnl\n"

const format = 1

// Tags that are not of records, which are below tagsFrom.
const (
	tagHead  = 0xff // data is a head
	tagDone  = 0xfe // ends records, and nothing else
	tagMark  = 0xfd // everything up to id was synced before this was written
	tagDoubt = 0xfc // names records that no later mark covers
	tagsFrom = 0x80
)

const (
	prefixLen = 8
	fixedLen  = 13
	maxIDs    = 1 << 16
	maxLength = fixedLen + 8*maxIDs + MaxRecord
)

// head is the data of the first frame.
type head struct {
	Format int    `json:"format"`
	Store  string `json:"store"`
	Boot   string `json:"boot"`
}

type frame struct {
	tag  byte
	id   ID
	ids  []ID
	data []byte
}

var errTorn = errors.New("a frame that was not written as a whole")

func appendFrame(buf []byte, f frame) []byte {
	start := len(buf)
	le := binary.LittleEndian
	buf = le.AppendUint32(buf, uint32(fixedLen+8*len(f.ids)+len(f.data)))
	buf = append(buf, 0, 0, 0, 0, f.tag)
	buf = le.AppendUint64(buf, uint64(f.id))
	buf = le.AppendUint32(buf, uint32(len(f.ids)))
	for _, id := range f.ids {
		buf = le.AppendUint64(buf, uint64(id))
	}
	buf = append(buf, f.data...)
	le.PutUint32(buf[start+4:], checksum(buf[start+prefixLen:]))
	return buf
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// frameLength is the length of the frame that begins so, its prefix included.
func frameLength(prefix []byte) (int64, error) {
	if len(prefix) < prefixLen {
		return 0, errTorn
	}
	n := int64(binary.LittleEndian.Uint32(prefix))
	if n < fixedLen || n > maxLength {
		return 0, errTorn
	}
	return prefixLen + n, nil
}

// decodeFrame decodes a whole frame; errTorn for anything that is not one. The
// result refers to p.
func decodeFrame(p []byte) (frame, error) {
	n, err := frameLength(p)
	if err != nil || n != int64(len(p)) {
		return frame{}, errTorn
	}
	le := binary.LittleEndian
	body := p[prefixLen:]
	if checksum(body) != le.Uint32(p[4:]) {
		return frame{}, errTorn
	}
	f := frame{tag: body[0], id: ID(le.Uint64(body[1:]))}
	count := int64(le.Uint32(body[9:]))
	body = body[fixedLen:]
	if count > maxIDs || 8*count > int64(len(body)) {
		return frame{}, errTorn
	}
	for range count {
		f.ids = append(f.ids, ID(le.Uint64(body)))
		body = body[8:]
	}
	f.data = body
	return f, nil
}

func (h head) frame() frame {
	data, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return frame{tag: tagHead, data: data}
}
