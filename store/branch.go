package store

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
)

// maxBranch is the length of a branch's name in bytes, at most.
const maxBranch = 200

// IsRevision says whether a name of the root means a revision, as "main@2h" does.
// No branch has such a name.
func IsRevision(name string) bool { return strings.Contains(name, "@") }

// ValidateBranch returns ErrBadName or ErrNameTooLong for what a new branch
// cannot be called. A top-level prefix that other tools made is a branch
// whatever its name.
func ValidateBranch(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("branch: %w", err)
	}
	special := func(r rune) bool { return r < ' ' || r == 0x7f || r == '@' || r == ':' }
	switch {
	case displayName(name) != name || strings.HasPrefix(name, reserved) || strings.ContainsFunc(name, special):
		return fmt.Errorf("branch %q: %w", name, ErrBadName)
	case len(name) > maxBranch:
		return fmt.Errorf("branch of %d bytes: %w", len(name), ErrNameTooLong)
	}
	return nil
}

// BranchExists asks whether a branch has anything: an object, a marker, a ref.
func (s *Store) BranchExists(ctx context.Context, name string) (bool, error) {
	branch, err := s.Branch(name)
	if err != nil {
		return false, err
	}
	first, err := s.peek(ctx, branch.prefix, 1)
	if err != nil || len(first) > 0 {
		return err == nil, err
	}
	return s.hasRef(ctx, name)
}

// Open is Branch for who looks at one branch, or at one commit, from now on: a
// revision ("main@2h") becomes the commit that it is now. ErrNotExist.
func (s *Store) Open(ctx context.Context, name string) (*Store, error) {
	found, err := s.BranchExists(ctx, name)
	if err == nil && !found {
		err = fmt.Errorf("branch %s: %w", name, ErrNotExist)
	}
	if err == nil {
		name, err = s.b.Canonical(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	return s.Branch(name)
}

// Frozen says whether a branch that Open returned is a commit, which never changes.
func (s *Store) Frozen(name string) bool { return s.b.Frozen(name) }

// Branches yields the names of all branches, sorted. An error is yielded last.
func (s *Store) Branches(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range s.RootView().List(ctx, Path{}) {
			if err != nil {
				yield("", err)
				return
			}
			if e.IsDir() && !yield(e.Name, nil) {
				return
			}
		}
	}
}

// hasRef asks whether the branch has a ref, and so exists without any object.
func (s *Store) hasRef(ctx context.Context, name string) (bool, error) {
	if valid := ValidateBranch(name) == nil; !valid {
		return false, nil
	}
	return backend.Exists(ctx, s.b, branchDir+name+recordKind)
}

// refs yields the names of the branches that have a ref.
func (s *Store) refs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range backend.List(ctx, s.b, branchDir) {
			if err != nil {
				yield("", err)
				return
			}
			name, ok := strings.CutSuffix(strings.TrimPrefix(e.Key, branchDir), recordKind)
			if ok && !e.Prefix && ValidateBranch(name) == nil && !yield(name, nil) {
				return
			}
		}
	}
}

// Stats is a snapshot of what a Store has met.
type Stats struct {
	// Unnameable counts the keys that were listed and cannot be shown, each
	// once, up to 1000; Examples are a few of them, sorted.
	Unnameable int
	Examples   []string

	Conflicts int64         // conflict copies stored
	Caps      *backend.Caps // what the bucket can do; nil before the first change
}

// Stats is a snapshot.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.Sorted(maps.Keys(s.unnameable))
	st := Stats{Unnameable: len(keys), Examples: keys[:min(len(keys), 5)], Conflicts: s.conflicts}
	if caps := s.probed.Load(); caps != nil {
		c := *caps
		st.Caps = &c
	}
	return st
}

// notShown counts a key that the mount cannot show.
func (c *core) notShown(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unnameable) < 1000 {
		c.unnameable[key] = struct{}{}
	}
}
