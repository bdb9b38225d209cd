package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/history"
)

func tagCommand(sh *shared) *cobra.Command {
	var message string
	var remove bool
	cmd := &cobra.Command{
		Use:   "tag [NAME [REV]]",
		Short: "List the tags, or give a commit a name",
		Args:  between(0, 2),
	}
	cmd.Flags().StringVarP(&message, "message", "m", "", "what the tag is for")
	cmd.Flags().BoolVar(&remove, "delete", false, "remove the tag NAME")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		if len(args) == 0 {
			for name, err := range r.Refs().Tags(ctx) {
				if err != nil {
					return err
				}
				tag, err := r.Refs().LoadTag(ctx, name)
				if err != nil {
					return err
				}
				fmt.Fprintln(r.out, short(tag.Commit), name, tag.Message)
			}
			return nil
		}
		if remove {
			err := r.Refs().DeleteTag(ctx, args[0])
			if errors.Is(err, backend.ErrNotExist) {
				err = fmt.Errorf("there is no tag %q", args[0])
			}
			return err
		}
		m, err := r.revision(ctx, args, 1)
		if err != nil {
			return err
		}
		return r.Tag(ctx, args[0], m, message)
	})
}

func reflogCommand(sh *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reflog",
		Short: "Show where the branch stood, the newest first: the way back",
		Args:  between(0, 0),
	}
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, _ []string) error {
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		for ref, err := range r.Refs().Log(ctx, branch) {
			if err != nil {
				return err
			}
			if history.IsMark(ref) {
				continue
			}
			head := "-"
			if ref.Head != "" {
				head = short(ref.Head)
			}
			fmt.Fprintf(r.out, "%d %-12s %s %s %s\n", ref.Generation, head, ref.Time.Local().Format(time.DateTime), ref.Host, ref.Why)
		}
		return nil
	})
}
