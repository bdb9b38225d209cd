package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A component of a path and the component of the key that it stands for are
// the same, but where one of the two worlds cannot hold it. Then one side
// begins with "%!" and is percent-encoded:
//
//	name in the mount         key component
//	notes.txt                 notes.txt
//	\xff (not UTF-8)          %!%FF
//	%!                        (empty, as in a//b)
//	%!%2E%2E                  ..
//	%!%25!x                   %!x (any that begins so and is not of the second line)
//	%!a                       a, where it is an object and a prefix at once: the object
//
// Both directions are total on what they are given and inverse to each other.

// escapeMark begins every encoded component.
const escapeMark = "%!"

// escape encodes a component so that it can stand in the other world. It is injective,
// and [unescape] undoes it.
func escape(s string) string {
	dots := s == "." || s == ".."
	raw := !utf8.ValidString(s)
	var b strings.Builder
	b.WriteString(escapeMark)
	for i := range len(s) {
		c := s[i]
		if c == '%' || c < ' ' || c == 0x7f || dots || raw && c >= utf8.RuneSelf {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape decodes what escape made of a component; ok is false for anything
// else, so that no name can hide a '/'.
func unescape(s string) (decoded string, ok bool) {
	rest, ok := strings.CutPrefix(s, escapeMark)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			b.WriteByte(rest[i])
			continue
		}
		if len(rest) < i+3 {
			return "", false
		}
		c, err := hex.DecodeString(rest[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	decoded = b.String()
	return decoded, escape(decoded) == s && !strings.Contains(decoded, "/")
}

// impossible says whether POSIX has no such name, or not as text.
func impossible(s string) bool {
	return s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") || !utf8.ValidString(s)
}

// rawName returns the name of bytes that are not UTF-8 that a key component
// stands for; ok is false where it does not.
func rawName(key string) (name string, ok bool) {
	name, ok = unescape(key)
	ok = ok && !utf8.ValidString(name) && !strings.ContainsAny(name, "/\x00") && !strings.HasPrefix(name, escapeMark)
	return name, ok
}

// displayName is how the mount shows a component of a key. It may be longer
// than a name can be.
func displayName(key string) string {
	if strings.HasPrefix(key, escapeMark) {
		if name, ok := rawName(key); ok {
			return name
		}
		return escape(key)
	}
	if impossible(key) {
		return escape(key)
	}
	return key
}

// shadowName is the name of an object whose key component is also a prefix;
// ok is false where it has none.
func shadowName(key string) (name string, ok bool) {
	if displayName(key) != key {
		return "", false // its own name is escaped already
	}
	name = escape(key)
	return name, len(name) <= MaxName
}

// keyComponent is the component of a key that a name stands for. shadow: it is
// the object of a key that is also a prefix, and nothing where it is not.
func keyComponent(name string) (key string, shadow bool, err error) {
	if !strings.HasPrefix(name, escapeMark) {
		if !utf8.ValidString(name) {
			return escape(name), false, nil
		}
		return name, false, nil
	}
	key, ok := unescape(name)
	if !ok {
		return "", false, fmt.Errorf("%q: malformed escaped name: %w", name, ErrBadName)
	}
	switch {
	case displayName(key) == name:
		return key, false, nil
	case displayName(key) == key:
		return key, true, nil
	}
	return "", false, fmt.Errorf("%q: escaped without need: %w", name, ErrBadName)
}

// keyOf is the key of a path below prefix, which is empty or ends in '/'.
// shadow is that of the last component; one in the middle names nothing, and
// gives ErrNotDir.
func keyOf(prefix string, p Path) (key string, shadow bool, err error) {
	if p.IsRoot() {
		return strings.TrimSuffix(prefix, "/"), false, nil
	}
	var b strings.Builder
	b.WriteString(prefix)
	first := true
	for name := range strings.SplitSeq(p.s, "/") {
		if shadow {
			return "", false, fmt.Errorf("%s: %w", p, ErrNotDir)
		}
		var component string
		if component, shadow, err = keyComponent(name); err != nil {
			return "", false, err
		}
		if !first {
			b.WriteByte('/')
		}
		first = false
		b.WriteString(component)
	}
	return b.String(), shadow, nil
}

// ShortHash is a short name for data: the same bytes give the same 12
// hexadecimal digits, on every machine.
func ShortHash[T ~string | ~[]byte](data T) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:6])
}

// The prefixes and records that are reserved in a bucket.
const (
	reserved   = ".kei" // what begins so at the root is not shown
	formatKey  = ".kei/format.json"
	probeDir   = ".kei/probe/"
	attrDir    = ".kei/attributes/"
	branchDir  = ".kei/branches/"
	commitDir  = ".kei/commits/"
	recordKind = ".json"
)

// IsManifestKey says whether key is that of a commit:
// ".kei/commits/manifest-<id>.json", the id in hexadecimal digits.
func IsManifestKey(key string) bool {
	id, ok := strings.CutPrefix(key, commitDir+"manifest-")
	if !ok {
		return false
	}
	id, ok = strings.CutSuffix(id, recordKind)
	return ok && id != "" && strings.Trim(id, "0123456789abcdef") == ""
}
