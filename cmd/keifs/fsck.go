package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/history"
)

func fsckCommand(sh *shared) *cobra.Command {
	var opts history.FsckOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check that everything that any commit names is there",
		Long: `Check every ref, tag, commit and range of the store, and that the content of every
entry is in the bucket still. What other tools destroyed is named. Exit status 1
where something is wrong and was not repaired.

A commit that was killed leaves a mark, which keeps more than is needed and makes
keifs gc wait for a day: --repair takes away those older than --dead-after.`,
		Args: between(0, 0),
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "repair what can be derived: refs and logs from each other, lost whiteouts, marks of commits that died")
	cmd.Flags().DurationVar(&opts.DeadAfter, "dead-after", time.Hour, "with --repair: how old the mark of a commit that died is; one that still runs does not finish then")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, _ []string) error {
		show, done := r.progress("entries checked")
		opts.Progress = show
		report, err := r.Fsck(ctx, opts)
		done()
		if err != nil {
			return err
		}
		left := 0
		for _, p := range report.Problems {
			if !p.Repaired {
				left++
			}
		}
		if asJSON {
			out := json.NewEncoder(r.out)
			out.SetIndent("", "  ")
			if err := out.Encode(report); err != nil {
				return err
			}
		} else {
			for _, p := range report.Problems {
				state := ""
				if p.Repaired {
					state = " (repaired)"
				}
				fmt.Fprintf(r.out, "%s %s: %s%s\n", p.Kind, p.Name, p.Text, state)
			}
			fmt.Fprintf(r.out, "%d branches, %d tags, %d commits, %d ranges, %d entries: %d problems\n",
				report.Branches, report.Tags, report.Commits, report.Ranges, report.Entries, len(report.Problems))
		}
		if left > 0 {
			return fmt.Errorf("%d problems", left)
		}
		return nil
	})
}
