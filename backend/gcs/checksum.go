package gcs

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"strings"
)

// castagnoli is the table of the store's checksums.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeChecksum(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// checksumOf is the checksum that the headers of a read tell of the whole object.
func checksumOf(header http.Header) (sum uint32, ok bool) {
	for _, line := range header.Values("X-Goog-Hash") {
		for part := range strings.SplitSeq(line, ",") {
			text, found := strings.CutPrefix(strings.TrimSpace(part), "crc32c=")
			if !found {
				continue
			}
			if raw, err := base64.StdEncoding.DecodeString(text); err == nil && len(raw) == 4 {
				return binary.BigEndian.Uint32(raw), true
			}
		}
	}
	return 0, false
}
