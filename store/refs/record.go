package refs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

const (
	refFormat = 1
	maxRecord = 64 << 10 // bytes
	maxText   = 4 << 10
)

// Parse reads the record of a ref, strictly. backend.ErrCorrupt.
func Parse(data []byte) (*Ref, error) {
	var ref Ref
	if err := decode(data, &ref); err != nil {
		return nil, err
	}
	if err := ref.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrCorrupt, err)
	}
	return &ref, nil
}

func (ref *Ref) check() error {
	switch {
	case ref.Format != refFormat:
		return fmt.Errorf("format %d", ref.Format)
	case CheckName(ref.Branch) != nil:
		return CheckName(ref.Branch)
	case ref.Generation == 0 || ref.Generation > 1<<62:
		return errors.New("generation")
	case ref.Nonce == "" || len(ref.Nonce) > 100:
		return errors.New("nonce")
	case ref.Head != "" && !validID(ref.Head), ref.Base != "" && !validID(ref.Base):
		return errors.New("head or base")
	case !sensible(ref.Time, ref.Host, ref.Why, ref.Committing):
		return errors.New("time or text")
	}
	return nil
}

func sensible(t time.Time, texts ...string) bool {
	for _, s := range texts {
		if len(s) > maxText || !utf8.ValidString(s) {
			return false
		}
	}
	return t.Year() >= 1 && t.Year() <= 9999
}

func validID(id string) bool { return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" }

// decode reads one JSON value without unknown fields.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", backend.ErrCorrupt, err)
	}
	return nil
}

// shorten cuts a text to what fits a record, at a rune.
func shorten(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for len(s) > 200 {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
