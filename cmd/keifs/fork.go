package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/history"
	"github.com/keifs/keifs/store/refs"
)

// fork makes a branch of a revision. Nothing is copied.
func fork(ctx context.Context, st *store.Store, back backend.Backend, name, from string) error {
	if !component(name) {
		return usageError("%q is no name for a branch", name)
	}
	host, _ := os.Hostname() // without one, records do without
	h := history.New(back, st, history.Options{Host: host})
	m, held, err := h.FindHeld(ctx, from)
	switch {
	case errors.Is(err, refs.ErrBadName):
		return usageError("%w", err)
	case errors.Is(err, backend.ErrNotExist):
		return fmt.Errorf("there is no commit %q to make a branch of", from)
	case err != nil:
		return err
	}
	return branchError(name, h.Fork(ctx, name, m, held))
}

// branchError says what was wrong with a name.
func branchError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrBadName), errors.Is(err, refs.ErrBadName):
		return usageError("%q is no name for a branch", name)
	case errors.Is(err, store.ErrExist):
		return fmt.Errorf("branch %s exists already", name)
	case errors.Is(err, store.ErrNotExist):
		return fmt.Errorf("there is no branch %s", name)
	}
	return fmt.Errorf("branch %s: %w", name, err)
}

// dropBranch deletes a branch and all that is in it. What commits name stays.
// Where committed is the id of a commit, it is deleted only if it has nothing
// else.
func dropBranch(ctx context.Context, st *store.Store, back backend.Backend, name, committed string) error {
	if err := store.ValidateBranch(name); err != nil {
		return branchError(name, err)
	}
	there, err := st.BranchExists(ctx, name)
	if err == nil && !there {
		err = store.ErrNotExist
	}
	if err != nil {
		return branchError(name, err)
	}
	if _, err := st.Prober(ctx); err != nil {
		return branchError(name, err)
	}
	host, _ := os.Hostname()
	if committed != "" {
		if err := history.New(back, st, history.Options{Host: host}).Unchanged(ctx, name, committed); err != nil {
			return branchError(name, err)
		}
	}
	if err := st.Bucket().Drop(ctx, name, committed); err != nil {
		return branchError(name, err)
	}
	r := refs.New(back, refs.Options{Host: host, Caps: st.Prober})
	ref, err := r.Load(ctx, name)
	if err == nil {
		err = r.Delete(ctx, ref, "branch deleted")
	}
	st.Bucket().Forget()
	if errors.Is(err, backend.ErrNotExist) {
		err = nil // a branch without history
	}
	return branchError(name, err)
}

// materializeBranch gives a branch objects of its own for those of its base.
func materializeBranch(ctx context.Context, st *store.Store, back backend.Backend, name string) error {
	there, err := st.BranchExists(ctx, name)
	if err == nil && !there {
		err = store.ErrNotExist
	}
	if err != nil {
		return branchError(name, err)
	}
	host, _ := os.Hostname()
	_, err = history.New(back, st, history.Options{Host: host}).Materialize(ctx, name, nil)
	return branchError(name, err)
}

// fork makes a branch, which the mount shows at once.
func (s *session) fork(ctx context.Context, name, from string) error {
	if err := fork(ctx, s.store, s.back, name, from); err != nil {
		return err
	}
	return s.server.Refresh(name)
}

// drop deletes a branch of the mount that has nothing which is only here.
func (s *session) drop(ctx context.Context, name, committed string) error {
	for _, p := range s.vol.Pending() {
		if p.Branch == name {
			return fmt.Errorf("branch %s: %s is not in the bucket yet", name, p.Path)
		}
	}
	if err := dropBranch(ctx, s.store, s.back, name, committed); err != nil {
		return err
	}
	return s.server.Refresh(name)
}

// terminal says whether there is somebody to answer.
func terminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		ok = err == nil
	}
	return ok
}

// confirm asks whether to go on, of somebody who can answer.
func confirm(in io.Reader, out io.Writer, question string) error {
	fmt.Fprintf(out, "%s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return usageError("not confirmed: --force asks nothing")
	}
	return nil
}
