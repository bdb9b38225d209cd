package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/history"
)

const forceUsage = "go over changes that are in no commit, which are lost"

func restoreCommand(sh *shared) *cobra.Command {
	var opts history.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore REV [PATH…]",
		Short: "Make files, or a whole branch, what they were in a commit",
		Long: `Make paths of the branch, or all of it, what they were in revision REV, by copies
on the server; what REV does not have is removed. The history stays as it is:
commit what came of it, or not. Changes that are in no commit are not gone over
unless with --force.`,
		Args: between(1, 1<<20),
	}
	cmd.Flags().BoolVar(&opts.Force, "force", false, forceUsage)
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		var paths []string
		for _, arg := range args[1:] {
			p, err := r.keyPath(arg)
			if err != nil {
				return err
			}
			paths = append(paths, p)
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		m, err := r.Find(ctx, args[0])
		if err != nil {
			return err
		}
		show, done := r.progress("objects restored")
		opts.Progress = show
		n, err := r.Restore(ctx, m, branch, paths, opts)
		done()
		if err = errors.Join(err, r.refresh(ctx)); err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s: %d objects as in %s\n", branch, n, short(m.ID))
		return nil
	})
}

func resetCommand(sh *shared) *cobra.Command {
	var opts history.RestoreOptions
	var to string
	cmd := &cobra.Command{
		Use:   "reset BRANCH --to REV",
		Short: "Set a branch, its files and its history, back to a commit",
		Long: `Set a branch back to a commit: its files are what they were then, and its history
ends there. What it was before stays in keifs reflog. Changes that are in no
commit are not gone over unless with --force.`,
		Args: between(1, 1),
	}
	cmd.Flags().StringVar(&to, "to", "", "`REV` to set it to")
	cmd.Flags().BoolVar(&opts.Force, "force", false, forceUsage)
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		if to == "" {
			return usageError("to what? --to REV")
		}
		r.branch = args[0]
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		m, err := r.Find(ctx, to)
		if err != nil {
			return err
		}
		show, done := r.progress("objects set back")
		opts.Progress = show
		err = r.Reset(ctx, branch, m, "reset to "+short(m.ID), opts)
		done()
		if err = errors.Join(err, r.refresh(ctx)); err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s is at %s\n", branch, short(m.ID))
		return nil
	})
}

func undoCommand(sh *shared) *cobra.Command {
	var opts history.RestoreOptions
	cmd := &cobra.Command{
		Use:   "undo",
		Short: "Take back the last commit, merge or reset of a branch",
		Long: `Take back what advanced the branch last. Of a commit, its changes stay in the
files and are in no commit again; a merge or a reset is taken back in the files,
too. To undo once more takes back the undo of a merge or a reset.`,
		Args: between(0, 0),
	}
	cmd.Flags().BoolVar(&opts.Force, "force", false, forceUsage)
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, _ []string) error {
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		last, err := r.Undo(ctx, branch, opts)
		if err = errors.Join(err, r.refresh(ctx)); err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s: undone: %s\n", branch, last.Why)
		return nil
	})
}
