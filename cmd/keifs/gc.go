package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/history"
)

// leastGrace is the shortest for which gc can be asked to keep what is new:
// clients hold on to what they have read for a while.
const leastGrace = time.Hour

func gcCommand(sh *shared) *cobra.Command {
	var opts history.CollectOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete commits that nothing reaches any more, and what only they kept",
		Long: `Delete the commits of the store that no branch, no tag and no recent entry of a
reflog reaches, with the content that was kept for them alone. Files of branches
are not touched. It may run beside mounts and commits: it waits for commits that
are being made, and they for it, for seconds at a time.`,
		Args: between(0, 0),
	}
	cmd.Flags().BoolVarP(&opts.DryRun, "dry-run", "n", false, "only say what would be deleted; nothing is written")
	cmd.Flags().DurationVar(&opts.Grace, "grace", history.DefaultGrace, "`AGE` below which nothing is deleted, 1h at least")
	cmd.Flags().DurationVar(&opts.KeepLog, "keep-log", history.DefaultKeepLog, "`AGE` up to which what a branch was is kept (see keifs reflog), 24h at least")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, _ []string) error {
		if opts.Grace < leastGrace || opts.KeepLog < history.LeastKeepLog {
			return usageError("--grace is 1h at least, --keep-log 24h")
		}
		show, done := r.progress("records looked at")
		opts.Progress = show
		out, err := r.Collect(ctx, opts)
		done()
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(r.out)
			enc.SetIndent("", "  ")
			return enc.Encode(out)
		}
		verb := "deleted"
		if out.DryRun {
			verb = "would delete"
		}
		d, f := out.Deleted, out.Found
		fmt.Fprintf(r.out, "%s %d of %d commits, %d of %d ranges, %d of %d pins and %d entries of logs: %d bytes\n",
			verb, d.Commits, f.Commits, d.Ranges, f.Ranges, d.Pins, f.Pins, d.Log, d.Bytes)
		return nil
	})
}
