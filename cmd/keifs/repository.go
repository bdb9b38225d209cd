package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/history"
)

// where says which store and branch a history command is about.
type where struct {
	*settings
	url, in, branch string
	singleWriter    bool
}

// historyCommand completes a command that works on the history of a branch.
func historyCommand(sh *shared, cmd *cobra.Command, run func(ctx context.Context, r *repository, args []string) error) *cobra.Command {
	w := &where{settings: newSettings(sh)}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVarP(&w.in, "directory", "C", ".", "act as if started in `DIR`")
	cmd.Flags().StringVar(&w.url, "store", "", "`URL` of a store, mounted or not")
	cmd.Flags().StringVar(&w.branch, "branch", "", "`NAME` of the branch (default: the one the directory is in, or main with --store)")
	cmd.Flags().BoolVar(&w.singleWriter, "single-writer", false, "this is the only client that commits, on a store without conditional writes")
	cmd.Flags().AddFlagSet(w.storeFlags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		r, err := w.open(ctx, cmd)
		if err != nil {
			return err
		}
		defer r.remote.close()
		return run(ctx, r, args)
	}
	return cmd
}

// repository is the history of a store, and the place in it that a command is about.
type repository struct {
	*history.Repo
	st     *store.Store
	remote *remote
	url    string // of the store
	branch string // empty above the branches
	rel    string // path within the branch, as the mount shows it
	mount  *controlClient
	root   string // directory of the mount
	out    io.Writer
	err    io.Writer
}

// reach are the options by which a mount reaches its store.
func (s *settings) reach() map[string]string {
	set := map[string]string{}
	add := func(f *pflag.Flag) {
		if f.Changed && f.Name != "config" {
			set[f.Name] = f.Value.String()
		}
	}
	s.storeFlags().VisitAll(add)
	for _, name := range []string{"uid", "gid", "umask"} {
		add(s.flags.Lookup(name))
	}
	return set
}

func (w *where) open(ctx context.Context, cmd *cobra.Command) (*repository, error) {
	r := &repository{branch: w.branch, out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
	url, options := w.url, map[string]string(nil)
	if url == "" {
		var err error
		if url, options, err = w.mounted(ctx, r); err != nil {
			return nil, err
		}
	} else if r.branch == "" {
		r.branch = "main"
	}
	if err := checkURL(url); err != nil {
		return nil, err
	}
	if err := w.resolve(url, options, os.Getenv); err != nil {
		return nil, err
	}
	st, remote, err := w.openStore(ctx, url, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if r.branch != "" {
		if st, err = st.Branch(r.branch); err != nil {
			remote.close()
			return nil, usageError("%w", err)
		}
	}
	r.st, r.remote, r.url = st, remote, url
	host, _ := os.Hostname() // without one, records do without
	r.Repo = history.New(remote.back, st, history.Options{Host: host, SingleWriter: w.singleWriter})
	return r, nil
}

// mounted finds the store of the mount that the directory lies in, and the branch.
func (w *where) mounted(ctx context.Context, r *repository) (url string, options map[string]string, err error) {
	dir, err := existingDir(w.in)
	if err != nil {
		return "", nil, err
	}
	e, ok, err := mountContaining(dir)
	if err != nil {
		return "", nil, err
	}
	if !ok {
		return "", nil, usageError("%s is not in a mount of keifs: name one with -C DIR, or a store with --store URL", dir)
	}
	c, alive := findControl(e.dir, e.uid)
	if !alive {
		return "", nil, fail(exitDir, "the daemon of %s cannot be asked: name the store with --store URL", e.dir)
	}
	st, err := c.status(ctx, false)
	if err != nil {
		return "", nil, err
	}
	if rel, err := filepath.Rel(e.dir, dir); err == nil && rel != "." {
		branch, below, _ := strings.Cut(rel, "/")
		if r.branch == "" {
			r.branch = branch
		}
		if r.branch == branch {
			r.rel = below
		}
	}
	r.mount, r.root = &c, e.dir
	url, _, _ = strings.Cut(st.Store, "?") // the endpoint is among the options
	return url, st.Options, nil
}

// onBranch returns the branch, which the command needs.
func (r *repository) onBranch() (string, error) {
	switch {
	case r.branch == "":
		return "", usageError("which branch? Go into its directory, or name it with --branch NAME")
	case store.IsRevision(r.branch):
		return "", usageError("%s is what a branch was: it cannot be changed", r.branch)
	}
	return r.branch, nil
}

// drain has the mount bring to the bucket what it has of the branch.
func (r *repository) drain(ctx context.Context) error {
	if r.mount == nil {
		return nil
	}
	st, err := r.mount.status(ctx, false)
	if err != nil {
		return err
	}
	for _, p := range st.Pending {
		if p.Branch == r.branch {
			return r.mount.syncShown(ctx, r.branch, r.err)
		}
	}
	return nil
}

// refresh has the mount show what was changed in the branch past it.
func (r *repository) refresh(ctx context.Context) error {
	if r.mount == nil {
		return nil
	}
	return r.mount.refresh(ctx, r.branch)
}

// keyPath is where a path that somebody gave is below the branch, in the bucket.
func (r *repository) keyPath(arg string) (string, error) {
	rel := path.Join(r.rel, filepath.ToSlash(arg))
	if path.IsAbs(arg) || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", usageError("%s is not in branch %s", arg, r.branch)
	}
	if rel == "." || rel == "" {
		return "", nil
	}
	key, err := r.st.Key(rel)
	if err != nil {
		return "", usageError("%w", err)
	}
	_, key, _ = strings.Cut(key, "/")
	return key, nil
}

// progress returns what shows on a terminal how far something is; done takes
// it away.
func (r *repository) progress(what string) (show func(int64), done func()) {
	line, done := onTerminal(r.err)
	if line == nil {
		return nil, done
	}
	return func(n int64) { line(fmt.Sprintf("%d %s", n, what)) }, done
}

// author is who commits: name@host.
func author() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return name + "@" + host
}

func short(id string) string { return id[:12] }
