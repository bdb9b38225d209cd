package store

import (
	"fmt"
	"strings"
)

// Path names something within one branch, as the mount shows it. It is opaque:
// strings enter only through ParsePath and Join, so that no Path can leave its
// branch. The zero Path is the branch's root. Paths are comparable.
type Path struct{ s string }

// MaxName is the length of a component in bytes, at most.
const MaxName = 255

// ParsePath checks a slash-separated relative path. "" and "." are the root.
// ErrBadName: absolute, "..", an empty component, NUL, a malformed escaped
// name. ErrNameTooLong: a component over 255 bytes.
func ParsePath(rel string) (Path, error) {
	if rel == "" || rel == "." {
		return Path{}, nil
	}
	for name := range strings.SplitSeq(rel, "/") {
		if err := checkName(name); err != nil {
			return Path{}, fmt.Errorf("path %q: %w", rel, err)
		}
	}
	return Path{rel}, nil
}

// SplitPath splits a path of a mount into the branch, which is empty for the root
// above the branches, and the path in that. Errors as ParsePath.
func SplitPath(path string) (branch string, p Path, err error) {
	branch, below, _ := strings.Cut(path, "/")
	p, err = ParsePath(below)
	return branch, p, err
}

// ValidateRel returns the error that ParsePath would.
func ValidateRel(rel string) error {
	_, err := ParsePath(rel)
	return err
}

// checkName says whether name can be a component of a Path.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%q: %w", name, ErrBadName)
	case len(name) > MaxName:
		return fmt.Errorf("%d bytes: %w", len(name), ErrNameTooLong)
	}
	_, _, err := keyComponent(name)
	return err
}

// Join is the path of name within p; errors as ParsePath.
func (p Path) Join(name string) (Path, error) {
	if err := checkName(name); err != nil {
		return Path{}, err
	}
	return p.join(name), nil
}

// join is Join for a name that is known to be good.
func (p Path) join(name string) Path {
	if p.IsRoot() {
		return Path{name}
	}
	return Path{p.s + "/" + name}
}

// Dir is the parent; that of the root is the root.
func (p Path) Dir() Path {
	return Path{p.s[:max(strings.LastIndexByte(p.s, '/'), 0)]}
}

// Name is the last component; empty for the root.
func (p Path) Name() string {
	return p.s[strings.LastIndexByte(p.s, '/')+1:]
}

// IsRoot says whether p is the root of its branch.
func (p Path) IsRoot() bool { return p.s == "" }

// Contains says whether q is p or lies below it.
func (p Path) Contains(q Path) bool {
	rest, ok := strings.CutPrefix(q.s, p.s)
	return ok && (p.IsRoot() || rest == "" || rest[0] == '/')
}

// Rebase moves p, which from contains, to the same place below to.
func (p Path) Rebase(from, to Path) Path {
	rest := strings.TrimPrefix(p.s[len(from.s):], "/")
	if rest == "" {
		return to
	}
	return to.join(rest)
}

// String is the path without a leading slash; empty for the root.
func (p Path) String() string { return p.s }
