package backend

import (
	"fmt"
)

// CheckPut says whether a Put or an assembly of that key and size could be
// meant for a store of these capabilities, before anything is sent: ErrBadKey,
// ErrTooLarge, or ErrInvalid. A size below 0 is not known yet.
func (c Caps) CheckPut(op, key string, size int64, opts PutOptions) error {
	if err := c.CheckKey(op, key); err != nil {
		return err
	}
	if c.MaxPut > 0 && size > c.MaxPut {
		return Fail(op, key, ErrTooLarge, fmt.Errorf("%d bytes, at most %d", size, c.MaxPut))
	}
	if opts.Cond.IfAbsent && opts.Cond.IfMatch != "" {
		return Fail(op, key, ErrInvalid, fmt.Errorf("two conditions"))
	}
	return c.CheckMetadata(op, key, opts.Metadata)
}

// CheckKey returns ErrBadKey for the empty key and one over MaxKey bytes.
func (c Caps) CheckKey(op, key string) error {
	switch {
	case key == "":
		return Fail(op, key, ErrBadKey, fmt.Errorf("empty"))
	case c.MaxKey > 0 && len(key) > c.MaxKey:
		return Fail(op, key, ErrBadKey, fmt.Errorf("%d bytes, at most %d", len(key), c.MaxKey))
	}
	return nil
}

// CheckMetadata returns ErrInvalid for names and values that are not those of
// [PutOptions], and ErrTooLarge for more than MaxMetadata bytes of them.
func (c Caps) CheckMetadata(op, key string, metadata map[string]string) error {
	total := 0
	for name, value := range metadata {
		total += len(name) + len(value)
		if !metadataName(name) || !metadataValue(value) {
			return Fail(op, key, ErrInvalid, fmt.Errorf("metadata %q: %q", name, value))
		}
	}
	if c.MaxMetadata > 0 && total > c.MaxMetadata {
		return Fail(op, key, ErrTooLarge, fmt.Errorf("%d bytes of metadata, at most %d", total, c.MaxMetadata))
	}
	return nil
}

func metadataName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// metadataValue accepts what every store carries unchanged in a header.
func metadataValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}
