package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/history"
	"github.com/keifs/keifs/store/refs"
)

func runCommand(sh *shared) *cobra.Command {
	j := job{where: &where{settings: newSettings(sh)}, keep: oneOf("failed", "always", "never")}
	cmd := &cobra.Command{
		Use:   "run --branch NAME [flags] -- COMMAND [ARGUMENT…]",
		Short: "Run a command in a branch of its own, and merge what it did",
		Long: `Make branch NAME of the last commit of another one, run COMMAND in its directory,
commit what it did, and merge that into the branch it came from. Any number of
runs work side by side: none sees the files of another, and their merges wait for
each other. The exit status is that of COMMAND.

Where COMMAND fails or is interrupted, nothing is merged; where both changed a
path, neither. Then the branch stays, to be looked at and merged by hand. Else it
is deleted after the merge, unless something still wrote to it: its commits stay
part of the history. --keep changes that. Called in a mount, COMMAND runs in that; with --store, in a mount of its own
which ends with it. The exit status is 1 too where the merge fails, 126 and 127
where COMMAND cannot be run or is not there, and 128 and the signal where one
ended it.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return j.run(cmd, args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	f.StringVar(&j.name, "branch", "", "`NAME` of the branch to make")
	f.StringVar(&j.from, "from", "", "`REV` to make it of (default: the branch the directory is in, or main with --store)")
	f.StringVar(&j.into, "into", "", "`BRANCH` to merge into (default: the one that --from names)")
	f.BoolVar(&j.noMerge, "no-merge", false, "merge nothing: the branch stays, with its commit")
	f.Var(&j.keep, "keep", "keep the branch where it `failed`, always, or never; one that could not be merged is always kept")
	f.StringVarP(&j.message, "message", "m", "", "what the commit says (default: the command)")
	f.StringVar(&j.author, "author", author(), "who made it")
	f.StringVarP(&j.where.in, "directory", "C", ".", "act as if started in `DIR`")
	f.StringVar(&j.where.url, "store", "", "`URL` of a store, mounted or not")
	f.BoolVar(&j.singleWriter, "single-writer", false, "this is the only client that commits, on a store without conditional writes")
	f.AddFlagSet(j.storeFlags())
	cmd.MarkFlagsMutuallyExclusive("into", "no-merge")
	return cmd
}

// job is one run of a command in a branch of its own.
type job struct {
	*where
	name, from, into string
	noMerge          bool
	keep             choice
	message, author  string

	*repository
	start  *commit.Manifest // what the branch is made of
	place  *workplace
	signal chan os.Signal
}

func (j *job) run(cmd *cobra.Command, args []string) error {
	switch {
	case j.name == "":
		return usageError("which branch is to be made? --branch NAME")
	case len(args) == 0:
		return usageError("which command? keifs run --branch NAME -- COMMAND")
	}
	if err := findProgram(args[0]); err != nil {
		return err
	}
	if j.message == "" {
		j.message = "run: " + strings.Join(args, " ")
	}
	j.signal = make(chan os.Signal, 4)
	signal.Notify(j.signal, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(j.signal)
	err := j.until(func(ctx context.Context) error { return j.prepare(ctx, cmd) })
	if j.repository != nil {
		defer j.remote.close()
	}
	if err != nil {
		return err
	}
	ended := runProgram(cmd, j.place.dir, args, j.signal)
	return j.until(func(ctx context.Context) error { return j.finish(ctx, ended) })
}

// until runs something that ends with the first signal. One that came too late
// for it is for what comes next.
func (j *job) until(fn func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done, heard := make(chan struct{}), make(chan os.Signal, 1)
	go func() {
		defer close(heard)
		select {
		case sig := <-j.signal:
			cancel(fmt.Errorf("interrupted (%v)", sig))
			heard <- sig
		case <-done:
		}
	}()
	err := fn(ctx)
	close(done)
	sig, interrupted := <-heard
	switch {
	case interrupted && err == nil:
		select {
		case j.signal <- sig:
		default: // there are others
		}
	case interrupted:
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// prepare makes the branch, and a directory of it. Where that fails, nothing is left.
func (j *job) prepare(ctx context.Context, cmd *cobra.Command) (err error) {
	if j.repository, err = j.open(ctx, cmd); err != nil {
		return err
	}
	if j.from == "" {
		j.from = j.repository.branch
	}
	if j.from == "" {
		return usageError("of which branch? Go into its directory, or name it with --from REV")
	}
	if err := j.target(ctx); err != nil {
		return err
	}
	if j.start, err = j.Find(ctx, j.from); errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("there is no commit %q to make a branch of", j.from)
	} else if err != nil {
		return err
	}
	if err := j.makeBranch(ctx); err != nil {
		return err
	}
	if j.place, err = j.openPlace(ctx); err != nil {
		return errors.Join(err, j.drop(context.WithoutCancel(ctx), ""))
	}
	return nil
}

// target finds out which branch to merge into.
func (j *job) target(ctx context.Context) error {
	if j.noMerge {
		return nil
	}
	named := j.into
	if named == "" {
		rev, err := refs.ParseRev(j.from, time.Now())
		if err != nil {
			return usageError("%w", err)
		}
		named = rev.Name
	}
	_, err := j.Refs().Load(ctx, named)
	if errors.Is(err, backend.ErrNotExist) {
		there, lookErr := j.st.BranchExists(ctx, named)
		switch {
		case lookErr != nil:
			return lookErr
		case there || j.into != "":
			return fmt.Errorf("branch %s has no commit: keifs commit makes the first", named)
		}
		return usageError("%s names no branch: say which one to merge into with --into BRANCH, or merge nothing with --no-merge", j.from)
	}
	if err != nil {
		return err
	}
	j.into = named
	return nil
}

// finish commits what the command did, and merges it.
func (j *job) finish(ctx context.Context, ended ending) error {
	if err := j.place.leave(ctx); err != nil {
		return j.kept(err)
	}
	if ended.never || ended.failed() && j.keep.value == "never" {
		return errors.Join(ended.failure("nothing of it is kept"), j.drop(ctx, ""))
	}
	message := j.message
	if ended.failed() {
		message = fmt.Sprintf("%s (%s)", message, ended)
	}
	m, err := j.Commit(ctx, j.name, history.CommitOptions{Message: message, Author: j.author})
	if errors.Is(err, history.ErrNothing) { // beyond what the command committed by itself
		m, err = j.Find(ctx, j.name)
	}
	switch {
	case err != nil:
		return j.kept(err)
	case m.ID == j.start.ID && j.keep.value != "always" && !j.noMerge:
		fmt.Fprintf(j.err, "keifs: %s changed nothing\n", j.name)
		return errors.Join(ended.failure("it changed nothing"), j.forget(ctx, m))
	}
	if ended.failed() {
		return ended.failure(fmt.Sprintf("what it did is on branch %s", j.name))
	}
	if j.noMerge {
		fmt.Fprintf(j.err, "keifs: %s is at %s\n", j.name, short(m.ID))
		return nil
	}
	merged, err := j.merge(ctx, m)
	switch {
	case errors.Is(err, history.ErrUpToDate):
	case err != nil:
		return j.kept(err)
	default:
		fmt.Fprintf(j.err, "keifs: %s is merged: %s %s\n", j.name, j.into, short(merged.ID))
	}
	if j.keep.value == "always" {
		return nil
	}
	return j.forget(ctx, m)
}

// forget deletes the branch, which is at m, unless something that the command
// left running has written to it since.
func (j *job) forget(ctx context.Context, m *commit.Manifest) error {
	if err := j.drop(ctx, m.ID); err != nil {
		return fmt.Errorf("%s was written to after the command had ended, or cannot be deleted, and is kept: %w", j.name, err)
	}
	return nil
}

// merge waits for the merges of other runs, one at a time.
func (j *job) merge(ctx context.Context, m *commit.Manifest) (*commit.Manifest, error) {
	folder, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	unlock, err := waitLock(ctx, folder, shortName(j.repository.url, j.into)+".merge")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if j.mount != nil { // what the branch has, and the bucket does not yet
		if err := j.mount.sync(ctx, j.into); err != nil {
			return nil, err
		}
	}
	opts := history.MergeOptions{Message: fmt.Sprintf("merge %s: %s", j.name, firstLine(m.Message)), Author: j.author}
	for {
		merged, err := j.Merge(ctx, m, j.into, opts)
		if e, ok := errors.AsType[*history.ConflictError](err); ok {
			for _, p := range e.Paths {
				fmt.Fprintln(j.err, "C", p)
			}
		}
		if !errors.Is(err, refs.ErrLost) { // which says that somebody else, on another host, got on
			return merged, err
		}
	}
}

// kept is an error after which the branch is still there.
func (j *job) kept(err error) error {
	if j.noMerge {
		return fmt.Errorf("branch %s is kept: %w", j.name, err)
	}
	return fmt.Errorf("branch %s is kept, merge it with keifs merge %s --into %s: %w", j.name, j.name, j.into, err)
}
