package commit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// Manifest is a commit: who made it, from what, and the ranges of its tree.
// Its id is the SHA-256 of its body, in hexadecimal digits.
type Manifest struct {
	ID string `json:"-"`

	Format  int       `json:"format"`
	Branch  string    `json:"branch"` // it was made on
	Parents []string  `json:"parents"`
	Message string    `json:"message"`
	Author  string    `json:"author"`
	Time    time.Time `json:"time"` // UTC

	Entries int64   `json:"entries"`
	Bytes   int64   `json:"bytes"` // of all objects
	Ranges  []Range `json:"ranges"`
}

// Range describes a run of entries; its id is the SHA-256 of them.
type Range struct {
	ID      string `json:"id"`
	First   string `json:"first"` // path
	Last    string `json:"last"`
	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"` // of its objects
}

const (
	manifestFormat = 1
	maxManifest    = 64 << 20 // bytes, about 200,000 ranges
	maxParents     = 16
	// MaxMessage is the length of a commit's message in bytes, at most.
	MaxMessage = 64 << 10
	maxAuthor  = 1 << 10
)

// SetRanges sets the ranges and what is summed up of them.
func (m *Manifest) SetRanges(ranges []Range) {
	m.Ranges, m.Entries, m.Bytes = ranges, 0, 0
	for _, r := range ranges {
		m.Entries += r.Entries
		m.Bytes += r.Bytes
	}
}

// encode is the canonical body. It completes what has one value only.
func (m *Manifest) encode() ([]byte, error) {
	m.Format = manifestFormat
	m.Time = m.Time.UTC().Round(0)
	if m.Parents == nil {
		m.Parents = []string{}
	}
	if m.Ranges == nil {
		m.Ranges = []Range{}
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("commit: %w: %w", backend.ErrInvalid, err)
	}
	data, err := json.Marshal(m)
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("commit of %d bytes: %w", len(data), backend.ErrTooLarge)
	}
	return data, err
}

// ParseManifest reads the body of a commit: backend.ErrCorrupt where it is not
// that of the id, or malformed.
func ParseManifest(id string, data []byte) (*Manifest, error) {
	m := &Manifest{ID: id}
	err := func() error {
		if sum(data) != id {
			return errors.New("not what the id names")
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(m); err != nil {
			return err
		}
		if _, err := d.Token(); err != io.EOF {
			return errors.New("more than one value")
		}
		return m.check()
	}()
	if err != nil {
		return nil, fmt.Errorf("commit %.12s: %w: %w", id, backend.ErrCorrupt, err)
	}
	return m, nil
}

// check says what is wrong with the manifest, if anything.
func (m *Manifest) check() error {
	switch {
	case m.Format != manifestFormat:
		return fmt.Errorf("format %d", m.Format)
	case len(m.Parents) > maxParents:
		return fmt.Errorf("%d parents", len(m.Parents))
	case len(m.Message) > MaxMessage || len(m.Author) > maxAuthor || len(m.Branch) > maxAuthor:
		return errors.New("message, author or branch too long")
	case !utf8.ValidString(m.Message) || !utf8.ValidString(m.Author) || !utf8.ValidString(m.Branch):
		return errors.New("text is not UTF-8")
	case m.Time.Year() < 1 || m.Time.Year() > 9999:
		return errors.New("time")
	}
	for _, p := range m.Parents {
		if !ValidID(p) {
			return fmt.Errorf("parent %.80q", p)
		}
	}
	var entries, size int64
	last := ""
	for _, r := range m.Ranges {
		if err := r.check(); err != nil {
			return err
		}
		if r.First <= last {
			return fmt.Errorf("range %.12s: not sorted", r.ID)
		}
		last = r.Last
		entries += r.Entries
		if size > math.MaxInt64-r.Bytes {
			return errors.New("bytes")
		}
		size += r.Bytes
	}
	if entries != m.Entries || size != m.Bytes {
		return errors.New("sums do not agree with the ranges")
	}
	return nil
}

func (r *Range) check() error {
	if !ValidID(r.ID) || !ValidPath(r.First) || !ValidPath(r.Last) || r.First > r.Last ||
		r.Entries < 1 || r.Entries > MaxRange || r.Bytes < 0 {
		return fmt.Errorf("malformed range %.80q", r.ID)
	}
	return nil
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
