package refs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rev is a revision as people write it, not looked up yet:
//
//	main, v1.0, 3f2a91     a branch, a tag, the beginning of a commit's id
//	main~2                 two commits before it
//	main@2h, main@2026-11-20T10:00, main@yesterday
//	                       what the branch was then
//	main@3f2a91, main@v1.0, main@~2
//	                       as a name in a mount: a commit seen from the branch
type Rev struct {
	Name string    // branch, tag or the beginning of an id; empty after an '@' that nothing precedes
	At   string    // what follows '@', if it is a tag or the beginning of an id
	When time.Time // what follows '@', if it is a time
	Back int       // first parents to go back
}

// maxBack is how far a revision goes back, at most.
const maxBack = 100000

// ParseRev reads a revision. now is what times are relative to, and its zone
// that of times without one. ErrBadName.
func ParseRev(s string, now time.Time) (Rev, error) {
	bad := func() (Rev, error) {
		return Rev{}, fmt.Errorf("revision %.250q (a branch, tag, commit, BRANCH~2 or BRANCH@TIME): %w", s, ErrBadName)
	}
	var rev Rev
	rest := s
	if head, back, ok := cutLast(rest, "~"); ok {
		// Anything else is a name with a '~' in it.
		if n, err := strconv.ParseUint(back, 10, 32); err == nil && n <= maxBack {
			rest, rev.Back = head, int(n)
		}
	}
	name, at, isAt := strings.Cut(rest, "@")
	rev.Name = name
	if CheckName(name) != nil {
		return bad()
	}
	if !isAt || at == "" {
		if isAt && !strings.Contains(s, "@~") {
			return bad()
		}
		return rev, nil
	}
	if when, ok := ParseTime(at, now); ok {
		rev.When = when
		return rev, nil
	}
	if CheckName(at) != nil {
		return bad()
	}
	rev.At = at
	return rev, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// ParseTime reads a point in time: "90s", "30m", "2h", "3d", "1w" (ago),
// "yesterday" (24 hours ago), "2026-11-20" (its first moment),
// "2026-11-20T10:00", with seconds, with "Z" or "+01:00".
func ParseTime(s string, now time.Time) (time.Time, bool) {
	if s == "yesterday" {
		return now.Add(-24 * time.Hour), true
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", time.RFC3339Nano} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, t.Year() >= 1
		}
	}
	if len(s) < 2 {
		return time.Time{}, false
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 16)
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[s[len(s)-1]]
	if err != nil || unit == 0 {
		return time.Time{}, false
	}
	return now.Add(-time.Duration(n) * unit), true
}
