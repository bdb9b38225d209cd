package store

// Path names something within one branch, as the mount shows it. It is opaque:
// strings enter only through ParsePath and Join, so that no Path can leave its
// branch. The zero Path is the branch's root. Paths are comparable.
type Path struct{ s string }

// ParsePath checks a slash-separated relative path. "" and "." are the root.
// ErrBadName: absolute, "..", an empty component, NUL, a malformed escaped
// name. ErrNameTooLong: a component over 255 bytes.
func ParsePath(rel string) (Path, error) { panic("TODO") }

// Join is the path of name within p; errors as ParsePath.
func (p Path) Join(name string) (Path, error) { panic("TODO") }

// Dir is the parent; that of the root is the root.
func (p Path) Dir() Path { panic("TODO") }

// Name is the last component; empty for the root.
func (p Path) Name() string { panic("TODO") }

// IsRoot says whether p is the root of its branch.
func (p Path) IsRoot() bool { return p.s == "" }

// Contains says whether q is p or lies below it.
func (p Path) Contains(q Path) bool { panic("TODO") }

// Rebase moves p, which from contains, to the same place below to.
func (p Path) Rebase(from, to Path) Path { panic("TODO") }

// String is the path without a leading slash; empty for the root.
func (p Path) String() string { return p.s }
