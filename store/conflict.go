package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keifs/keifs/backend"
)

// ConflictError says where the losing content is. It wraps ErrStale.
type ConflictError struct {
	Path Path // what both wanted
	Kept Path // where the loser is; the root where it was not kept
}

func (e *ConflictError) Error() string {
	if e.Kept.IsRoot() {
		return fmt.Sprintf("%q: %v", e.Path, ErrStale)
	}
	return fmt.Sprintf("%q: %v; this version is kept as %q", e.Path, ErrStale, e.Kept)
}

// Unwrap gives ErrStale.
func (e *ConflictError) Unwrap() error { return ErrStale }

// conflict settles a lost race by the policy. Its error is a *ConflictError,
// unless not even that could be done.
func (s *Store) conflict(ctx context.Context, pub publication) error {
	if s.opts.Policy == Fail {
		return &ConflictError{Path: pub.path}
	}
	now := time.Now().UTC()
	for n := range attempts {
		pl, err := s.conflictPlace(pub.place, now, n)
		if err != nil {
			return err
		}
		_, err = pub.put(ctx, pl.key, pub.putOptions(backend.Cond{IfAbsent: true}))
		if errors.Is(err, backend.ErrPrecondition) && !errors.Is(err, errSource) {
			current, statErr := s.b.Stat(ctx, pl.key)
			if statErr != nil {
				continue
			}
			var won bool
			if won, err = s.alreadyThere(ctx, pub, current, true); err == nil && !won {
				continue
			}
		}
		if err != nil {
			return fail("keep beside", pub.path, err)
		}
		s.mu.Lock()
		s.conflicts++
		s.mu.Unlock()
		return &ConflictError{Path: pub.path, Kept: pl.path}
	}
	return fmt.Errorf("no name for the conflicting version of %q: %w", pub.path, ErrExist)
}

// conflictPlace is beside pl, as NAME.conflict-HOST-TIME, with NAME shortened
// as far as the length of names and keys needs it. n tells attempts apart.
func (s *Store) conflictPlace(pl place, now time.Time, n int) (place, error) {
	suffix := ".conflict-"
	if host := plainHost(s.opts.Host); host != "" {
		suffix += host + "-"
	}
	suffix += now.Format("20060102T150405Z")
	if n > 0 {
		suffix += fmt.Sprintf("-%d", n+1)
	}
	return s.beside(pl, suffix)
}

// beside is the place of a sibling whose name ends in suffix.
func (s *Store) beside(pl place, suffix string) (place, error) {
	name := pl.path.Name()
	for strings.HasPrefix(name, escapeMark) { // as it is not escaped any more
		name = name[len(escapeMark):]
	}
	for {
		name = shorten(name, MaxName-len(suffix))
		kept, err := s.place(pl.path.Dir().join(name + suffix))
		if name == "" || !errors.Is(err, ErrNameTooLong) {
			return kept, err
		}
		name = shorten(name, len(name)-1)
	}
}

// plainHost is a host's name as it can be in every file's.
func plainHost(host string) string {
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, host)
	return strings.Trim(shorten(host, 63), "-")
}

// shorten cuts s to at most n bytes, not within a character.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n = max(n, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
