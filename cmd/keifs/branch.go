package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

func branchCommand(sh *shared) *cobra.Command {
	s := newSettings(sh)
	var url, in, from string
	var remove, force, asJSON, materialize bool
	cmd := &cobra.Command{
		Use:   "branch [NAME]",
		Short: "List the branches, or make or delete one",
		Long: `List the branches of a store with their last commits, and how many commits each
is ahead of the branch that it was made of, and behind it; or make a branch: an
empty one, or with --from one of a commit, which copies nothing and takes the
same few requests whatever its size. The store is that of the mount which
contains the current directory, or -C DIR, or --store URL.`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := s.branches(cmd.Context(), url, in)
			if err != nil {
				return err
			}
			defer b.close()
			switch {
			case len(args) == 0 && materialize && b.current != "":
				return b.materialize(cmd.Context(), b.current)
			case len(args) == 0 && (from != "" || remove || materialize):
				return usageError("which branch? keifs branch NAME …")
			case from != "" && remove, materialize && (from != "" || remove):
				return usageError("--from, --delete and --materialize do not go together")
			case materialize:
				return b.materialize(cmd.Context(), args[0])
			case from != "":
				return b.fork(cmd.Context(), args[0], from)
			case remove:
				if !force && !terminal(cmd.InOrStdin()) {
					return usageError("--delete asks on a terminal; here it needs --force")
				}
				if !force {
					question := fmt.Sprintf("Delete branch %s, and all in it that is in no commit?", args[0])
					if err := confirm(cmd.InOrStdin(), cmd.ErrOrStderr(), question); err != nil {
						return err
					}
				}
				return b.drop(cmd.Context(), args[0])
			case len(args) > 0:
				return b.create(cmd.Context(), args[0])
			}
			return b.print(cmd.Context(), cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&in, "directory", "C", ".", "act as if started in `DIR`")
	cmd.Flags().StringVar(&url, "store", "", "`URL` of a store, mounted or not")
	cmd.Flags().StringVar(&from, "from", "", "make the branch of commit `REV`: a branch, tag, id, BRANCH~2 or BRANCH@TIME")
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the branch; what commits name stays")
	cmd.Flags().BoolVar(&force, "force", false, "with --delete: ask nothing")
	cmd.Flags().BoolVar(&materialize, "materialize", false, "make plain objects of what the branch shows of the commit it was made of, by copies on the server; a broken-off one is gone on with")
	cmd.Flags().BoolVar(&asJSON, "json", false, "list as JSON")
	cmd.Flags().AddFlagSet(s.storeFlags())
	return cmd
}

// branches are those of a mount or of a store.
type branches struct {
	current string // the one the working directory lies in
	list    func(context.Context) ([]string, error)
	stand   func(context.Context, []string) (standings, error)
	create  func(context.Context, string) error
	fork    func(ctx context.Context, name, from string) error
	drop    func(context.Context, string) error
	close   func()

	materialize func(context.Context, string) error
}

func (s *settings) branches(ctx context.Context, url, in string) (branches, error) {
	if url != "" {
		return s.storeBranches(ctx, url)
	}
	dir, err := existingDir(in)
	if err != nil {
		return branches{}, err
	}
	e, ok, err := mountContaining(dir)
	if err != nil {
		return branches{}, err
	}
	if !ok {
		return branches{}, usageError("%s is not in a mount of keifs: name one with -C DIR, or a store with --store URL", dir)
	}
	if dead(e.dir) {
		return branches{}, fail(exitDir, "the keifs that had mounted %s is dead: keifs umount or mount cleans it away", e.dir)
	}
	b := mountBranches(e.dir, dir)
	ask := func(ctx context.Context, what string) error {
		c, alive := findControl(e.dir, e.uid)
		if !alive {
			return fail(exitDir, "the daemon of %s cannot be asked: name the store with --store URL", e.dir)
		}
		return c.ask(ctx, what)
	}
	b.fork = func(ctx context.Context, name, from string) error {
		return ask(ctx, "/branch?name="+query(name)+"&from="+query(from))
	}
	b.drop = func(ctx context.Context, name string) error { return ask(ctx, "/drop?name="+query(name)) }
	b.materialize = func(ctx context.Context, name string) error { return ask(ctx, "/materialize?name="+query(name)) }
	b.stand = func(ctx context.Context, _ []string) (standings, error) {
		c, alive := findControl(e.dir, e.uid)
		if !alive {
			return nil, nil // the names are what can be told
		}
		return c.standings(ctx)
	}
	return b, nil
}

// mountBranches are the directories of a mount's root.
func mountBranches(root, dir string) branches {
	b := branches{close: func() {}}
	if rel, err := filepath.Rel(root, dir); err == nil && rel != "." {
		b.current = firstComponent(rel)
	}
	b.list = func(context.Context) ([]string, error) {
		entries, err := os.ReadDir(root)
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() })
		names := make([]string, len(entries))
		for i, e := range entries {
			names[i] = e.Name()
		}
		return names, err
	}
	b.create = func(_ context.Context, name string) error {
		if !component(name) {
			return usageError("%q is no name for a branch", name)
		}
		err := os.Mkdir(filepath.Join(root, name), 0o777)
		switch {
		case errors.Is(err, unix.EINVAL):
			return usageError("%q is no name for a branch", name)
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("branch %s exists already", name)
		case err != nil:
			return fmt.Errorf("branch %s: %w", name, errors.Unwrap(err))
		}
		return nil
	}
	return b
}

// component says whether name is one component of a path.
func component(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.Contains(name, "/")
}

func firstComponent(rel string) string {
	for {
		dir := filepath.Dir(rel)
		if dir == "." {
			return rel
		}
		rel = dir
	}
}

// storeBranches are those of a store that need not be mounted.
func (s *settings) storeBranches(ctx context.Context, url string) (b branches, err error) {
	if err := checkURL(url); err != nil {
		return b, err
	}
	if err := s.resolve(url, nil, os.Getenv); err != nil {
		return b, err
	}
	st, r, err := s.openStore(ctx, url, slog.New(slog.DiscardHandler))
	if err != nil {
		return b, err
	}
	b.list = func(ctx context.Context) ([]string, error) { return branchNames(st.RootView().List(ctx, store.Path{})) }
	b.create = func(ctx context.Context, name string) error {
		if !component(name) {
			return usageError("%q is no name for a branch", name)
		}
		err := s.makeBranch(ctx, st, name)
		if errors.Is(err, store.ErrExist) {
			return fmt.Errorf("branch %s exists already", name)
		}
		return err
	}
	b.fork = func(ctx context.Context, name, from string) error { return fork(ctx, st, r.back, name, from) }
	b.drop = func(ctx context.Context, name string) error { return dropBranch(ctx, st, r.back, name, "") }
	b.materialize = func(ctx context.Context, name string) error { return materializeBranch(ctx, st, r.back, name) }
	b.stand = func(ctx context.Context, names []string) (standings, error) {
		return standingsOf(ctx, st, r.back, names)
	}
	b.close = r.close
	return b, nil
}

// branchNames are the directories among the entries of a root.
func branchNames(root iter.Seq2[store.Entry, error]) ([]string, error) {
	var names []string
	for e, err := range root {
		if err != nil {
			return names, err
		}
		if e.IsDir() {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// makeBranch makes an empty branch.
func (s *settings) makeBranch(ctx context.Context, st *store.Store, name string) error {
	p, err := store.ParsePath(name)
	if err == nil {
		_, err = st.RootView().Mkdir(ctx, p, store.Attr{
			Mode: store.ModeDir | s.dirMode(), UID: s.uid.or(os.Getuid()), GID: s.gid.or(os.Getgid()), Mtime: time.Now(),
		})
	}
	switch {
	case errors.Is(err, store.ErrBadName):
		return usageError("%q is no name for a branch", name)
	case err != nil:
		return fmt.Errorf("branch %s: %w", name, err)
	}
	return nil
}

// firstBranch makes the branch "main" in a store that has nothing yet.
func (s *settings) firstBranch(ctx context.Context, st *store.Store) error {
	for _, err := range st.RootView().List(ctx, store.Path{}) {
		return err // something, or the reason why nothing can be seen
	}
	if err := s.makeBranch(ctx, st, "main"); !errors.Is(err, store.ErrExist) {
		return err
	}
	return nil // another first mount was faster
}
