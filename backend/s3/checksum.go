package s3

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/keifs/keifs/backend"
)

// Parts have a CRC-32C, which processors compute by themselves: the server
// refuses one that arrives as something else, and keeps that of the object.

// sumOf is the CRC-32C of a source: the source's own, or by reading it.
func sumOf(src backend.Source) (uint32, error) {
	if s, ok := src.(backend.Summed); ok {
		if sum, known := s.CRC32C(); known {
			return sum, nil
		}
	}
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := make([]byte, min(src.Size(), 256<<10))
	n, err := io.CopyBuffer(h, io.NewSectionReader(src, 0, src.Size()), buf)
	if err == nil && n < src.Size() {
		err = fmt.Errorf("%d bytes of %d: %w", n, src.Size(), io.ErrUnexpectedEOF)
	}
	return h.Sum32(), err
}

// sumText is how a header has it.
func sumText(sum uint32) *string {
	return aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)))
}

// joinSums is the CRC-32C of what has the first sum, with n bytes behind it that
// have the second: appending n bytes multiplies the polynomial of what is
// before them by x to the 8n, modulo that of the checksum.
func joinSums(first, second uint32, n int64) uint32 {
	power := uint32(1) << 30 // x, as bits are in reverse order
	for range 3 {
		power = timesSums(power, power)
	}
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			first = timesSums(first, power)
		}
		power = timesSums(power, power)
	}
	return first ^ second
}

// timesSums multiplies polynomials modulo that of the checksum.
func timesSums(a, b uint32) (product uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if odd := b & 1; odd != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
