package azure

import (
	"fmt"
	"strings"

	"github.com/keifs/keifs/backend"
)

const (
	// maxMetadata is how many bytes of names and values a blob has, at most.
	maxMetadata = 8 << 10

	// noMetadata stands for none where Azure would take that as "as before".
	noMetadata = "keifs_none"
)

// Names of metadata are identifiers on Azure: letters, digits and '_', the
// first no digit. What is none is written as '_' and two hex digits, and so is
// a '_' that would be read as one of those.

// metadataName is the name on Azure. Those that are identifiers stay.
func metadataName(name string) string {
	var s strings.Builder
	for i := range len(name) {
		c := name[i]
		_, ambiguous := escaped(name[i:], i == 0)
		if c == '-' || ambiguous || i == 0 && c >= '0' && c <= '9' {
			fmt.Fprintf(&s, "_%02x", c)
		} else {
			s.WriteByte(c)
		}
	}
	return s.String()
}

// originalName is the name that was given.
func originalName(name string) string {
	name = strings.ToLower(name) // Azure and HTTP do not tell cases apart
	var s strings.Builder
	for i := 0; i < len(name); i++ {
		c, ok := escaped(name[i:], i == 0)
		if ok {
			i += 2
		} else {
			c = name[i]
		}
		s.WriteByte(c)
	}
	return s.String()
}

// escaped is the character that s begins with in its written form.
func escaped(s string, first bool) (c byte, ok bool) {
	if len(s) < 3 || s[0] != '_' {
		return 0, false
	}
	switch code := s[1:3]; {
	case code == "2d":
		return '-', true
	case code == "5f":
		return '_', true
	case first && code[0] == '3' && code[1] >= '0' && code[1] <= '9':
		return code[1], true
	}
	return 0, false
}

// written is metadata as Azure takes it; ErrTooLarge where that is too much.
func written(op, key string, metadata map[string]string) (map[string]*string, error) {
	out, total := make(map[string]*string, len(metadata)), 0
	for name, value := range metadata {
		name = metadataName(name)
		total += len(name) + len(value)
		out[name] = &value
	}
	if total > maxMetadata {
		return nil, backend.Fail(op, key, backend.ErrTooLarge, fmt.Errorf("%d bytes of metadata, at most %d", total, maxMetadata))
	}
	return out, nil
}

// original is metadata as it was given.
func original(metadata map[string]*string) map[string]string {
	out := make(map[string]string, len(metadata))
	for name, v := range metadata {
		if name = strings.ToLower(name); name != noMetadata {
			out[originalName(name)] = value(v)
		}
	}
	return out
}
