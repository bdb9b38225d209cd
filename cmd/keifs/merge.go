package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/history"
)

func mergeCommand(sh *shared) *cobra.Command {
	var opts history.MergeOptions
	var ours, theirs, both bool
	var into string
	cmd := &cobra.Command{
		Use:   "merge FROM",
		Short: "Bring what another branch changed into this one",
		Long: `Bring what FROM, a revision, changed since the last common commit into the
branch, by copies on the server, and commit that. Where both changed a path,
they are listed and nothing is touched, unless one of --ours, --theirs and
--keep-both says what to do; nor where the branch has a change that is in no
commit. A merge that was broken off is gone on with by the same command.`,
		Args: between(1, 1),
	}
	cmd.Flags().StringVar(&into, "into", "", "`BRANCH` to change (default: the one the directory is in)")
	cmd.Flags().BoolVar(&ours, "ours", false, "where both changed a path, keep what the branch has")
	cmd.Flags().BoolVar(&theirs, "theirs", false, "where both changed a path, take what FROM has")
	cmd.Flags().BoolVar(&both, "keep-both", false, "where both changed a path, add what FROM has as NAME.conflict-ID")
	cmd.Flags().StringVarP(&opts.Message, "message", "m", "", "what the commit says")
	cmd.Flags().StringVar(&opts.Author, "author", author(), "who made it")
	cmd.MarkFlagsMutuallyExclusive("ours", "theirs", "keep-both")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		if into != "" {
			r.branch = into
		}
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		switch {
		case ours:
			opts.Strategy = history.Ours
		case theirs:
			opts.Strategy = history.Theirs
		case both:
			opts.Strategy = history.KeepBoth
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		from, err := r.Find(ctx, args[0])
		if err != nil {
			return err
		}
		show, done := r.progress("objects merged")
		opts.Progress = show
		m, err := r.Merge(ctx, from, branch, opts)
		done()
		err = errors.Join(err, r.refresh(ctx))
		if errors.Is(err, history.ErrUpToDate) {
			fmt.Fprintf(r.out, "%s has all of %s already\n", branch, args[0])
			return nil
		}
		if e, ok := errors.AsType[*history.ConflictError](err); ok {
			for _, p := range e.Paths {
				fmt.Fprintln(r.out, "C", p)
			}
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s %s: %s\n", branch, short(m.ID), firstLine(m.Message))
		return nil
	})
}
