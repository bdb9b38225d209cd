package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/history"
)

func commitCommand(sh *shared) *cobra.Command {
	var opts history.CommitOptions
	cmd := &cobra.Command{
		Use:   "commit -m MESSAGE",
		Short: "Keep what a branch has now, for ever",
		Long: `Make a commit of what the branch has now. Nothing is copied: from then on keifs
keeps an object that the commit names before it overwrites or deletes it. Of a
mounted branch, what the mount has not uploaded yet is waited for. Where nothing
changed since the last commit there is none, and that is said.`,
		Args: between(0, 0),
	}
	cmd.Flags().StringVarP(&opts.Message, "message", "m", "", "what the commit is")
	cmd.Flags().StringVar(&opts.Author, "author", author(), "who made it")
	cmd.Flags().BoolVar(&opts.Pin, "pin", false, "copy all content now, so that no other tool can destroy what the commit names")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, _ []string) error {
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		if opts.Message == "" {
			return usageError("a commit needs a message: -m MESSAGE")
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		show, done := r.progress("objects")
		opts.Progress = show
		skipped := 0
		opts.Skipped = func(string) { skipped++ }
		m, err := r.Commit(ctx, branch, opts)
		done()
		if skipped > 0 {
			fmt.Fprintf(r.err, "keifs: %d keys with the names . and .. are not in the commit\n", skipped)
		}
		if errors.Is(err, history.ErrNothing) {
			fmt.Fprintf(r.out, "%s: nothing changed since the last commit\n", branch)
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(r.out, "%s %s: %d objects, %s\n", branch, short(m.ID), m.Entries, formatSize(m.Bytes))
		return nil
	})
}
