package cache

import (
	"hash/crc32"
	"maps"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// streamSums is the checksums of the parts of a stream, taken from what is
// written while it passes, so that nobody has to read it for them. Parts that
// were not written from the beginning to the end have none here.
type streamSums struct {
	whole map[int]uint32
	part  int    // that is being written
	at    int64  // up to where it is; -1 where it is not written from its begin
	sum   uint32 // up to there
}

func newStreamSums() streamSums { return streamSums{whole: map[int]uint32{}, at: -1} }

// wrote takes what was written at off.
func (s *streamSums) wrote(up *store.Upload, off int64, p []byte) {
	if off != s.at {
		s.drop(up, store.Range{Off: off, Len: int64(len(p))})
		n := up.PartAt(off)
		if up.Part(n).Off < off {
			n++
		}
		start := up.Part(n).Off
		if start >= off+int64(len(p)) {
			return
		}
		s.part, s.at, s.sum = n, start, 0
		p = p[start-off:]
	}
	for len(p) > 0 {
		r := up.Part(s.part)
		if s.at == r.Off {
			delete(s.whole, s.part)
		}
		n := min(int64(len(p)), r.End()-s.at)
		s.sum = crc32.Update(s.sum, castagnoli, p[:n])
		s.at += n
		p = p[n:]
		if s.at == r.End() {
			s.whole[s.part] = s.sum
			s.part, s.sum = s.part+1, 0
		}
	}
}

// drop forgets the checksums of parts that the range is in.
func (s *streamSums) drop(up *store.Upload, r store.Range) {
	if r.Len <= 0 {
		return
	}
	for n, last := up.PartAt(r.Off), up.PartAt(r.End()-1); n <= last; n++ {
		delete(s.whole, n)
	}
	if s.at >= 0 && r.Off < s.at && up.Part(s.part).Off < r.End() {
		s.at = -1
	}
}

// cut forgets the checksums of parts that are not whole any more when the file
// ends there.
func (s *streamSums) cut(up *store.Upload, size int64) {
	maps.DeleteFunc(s.whole, func(n int, _ uint32) bool { return up.Part(n).End() > size })
	if s.at > size {
		s.at = -1
	}
}

// of is the source of a part with its checksum, if that is known.
func (s *streamSums) of(n int, r store.Range, src backend.Source) backend.Source {
	sum, known := s.whole[n]
	if !known && n == s.part && s.at == r.End() && s.at > r.Off {
		sum, known = s.sum, true
	}
	if !known {
		return src
	}
	return summedSource{src, sum}
}

type summedSource struct {
	backend.Source
	sum uint32
}

// CRC32C implements backend.Summed.
func (s summedSource) CRC32C() (sum uint32, known bool) { return s.sum, true }
