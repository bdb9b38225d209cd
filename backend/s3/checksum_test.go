package s3

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func TestSumsOfPartsJoinToThatOfTheWhole(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	random := rand.NewChaCha8([32]byte{})
	for range 200 {
		data := make([]byte, random.Uint64()%5000)
		_, _ = random.Read(data)
		cut := random.Uint64() % uint64(len(data)+1)
		first, second := crc32.Checksum(data[:cut], table), crc32.Checksum(data[cut:], table)
		if got, want := joinSums(first, second, int64(len(data[cut:]))), crc32.Checksum(data, table); got != want {
			t.Fatalf("%d and %d bytes: %08x, want %08x", cut, len(data)-int(cut), got, want)
		}
	}
}
