package cache

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

func TestChecksumsOfPartsAreThoseOfWhatWasWritten(t *testing.T) {
	b, opts := newStreams(t)
	_, tr := b.open(opts)
	up, err := tr.(*tree).store.BeginUpload(t.Context(), path(t, "f"), kib, store.PublishOptions{Attr: newAttr})
	ok(t, err)
	defer up.Discard(t.Context())
	table := crc32.MakeTable(crc32.Castagnoli)
	random := rand.New(rand.NewPCG(1, 2))
	all := 0
	for range 300 {
		s := newStreamSums()
		file := make([]byte, 9*kib+100)
		at := random.Int64N(2 * kib) // what is written before the upload is begun
		steady := random.IntN(2) == 0
		begin := at
		for at < int64(len(file)) {
			n := min(1+random.Int64N(700), int64(len(file))-at)
			off := at
			switch kind := random.IntN(13); {
			case steady || kind > 2:
				at += n
			case kind == 2: // cut, and longer again
				at = random.Int64N(at + 1)
				clear(file[at:])
				s.cut(up, at)
				continue
			case kind == 0:
				off = random.Int64N(int64(len(file)) - n + 1) // it may be behind the end
			default:
				off = random.Int64N(at + 1)
				n = min(n, at-off)
				clear(file[off : off+n])
				s.drop(up, store.Range{Off: off, Len: n})
				continue
			}
			p := file[off : off+n]
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			s.wrote(up, off, p)
		}
		for n := 0; up.Part(n).Off < int64(len(file)); n++ {
			r := up.Part(n)
			r.Len = min(r.Len, int64(len(file))-r.Off)
			src, known := s.of(n, r, backend.Bytes(nil)).(backend.Summed)
			if !known {
				if steady && r.Off >= begin {
					t.Errorf("part %d, written from begin to end, has no checksum", n)
				}
				continue
			}
			all++
			if sum, _ := src.CRC32C(); sum != crc32.Checksum(file[r.Off:r.End()], table) {
				t.Errorf("part %d has another checksum", n)
			}
		}
	}
	if all < 1000 {
		t.Errorf("%d checksums", all)
	}
}
