package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/backend"
)

func probeCommand(sh *shared) *cobra.Command {
	s := newSettings(sh)
	cmd := &cobra.Command{
		Use:   "probe STORE",
		Short: "Find out what a bucket can and cannot do",
		Long: `Find out what a bucket can and cannot do, by trying it below .kei/ in the
bucket. What was written for that is deleted again.`,
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkURL(args[0]); err != nil {
				return err
			}
			if err := s.resolve(args[0], nil, os.Getenv); err != nil {
				return err
			}
			st, r, err := s.openStore(cmd.Context(), args[0], slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer r.close()
			caps, err := st.Probe(cmd.Context())
			if err != nil {
				return err
			}
			return printCaps(cmd.OutOrStdout(), r.name, caps)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(s.storeFlags())
	return cmd
}

func printCaps(w io.Writer, name string, caps backend.Caps) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, name)
	for _, c := range []struct {
		what string
		can  bool
		loss string
	}{
		{"conditional create", caps.CondCreate, "O_EXCL, mkdir and rename without replacing do not exclude other hosts"},
		{"conditional overwrite", caps.CondOverwrite, "two hosts that change one file at once may lose a change"},
		{"conditional delete", caps.CondDelete, "a delete may take a version that nobody here has seen"},
		{"conditional deletes in batches", caps.CondBatch, "many deletes at once are compared with a listing just before"},
		{"conditional copy", caps.CondCopy, "a rename checks its target first, and may race with other hosts"},
		{"conditional multipart completion", caps.CondAssemble, "large files are published without the check"},
		{"server-side copy", caps.Copy, "a rename reads and writes the whole content"},
		{"user metadata", caps.Metadata, "modes, owners and times are not kept"},
		{"consistent listings", caps.StrongList, "a listing may lack what was just written"},
		{"object and prefix of one name", caps.ObjectPrefix, ""},
		{"versions", caps.Versions, ""},
	} {
		can := "yes"
		if !c.can {
			can = "no"
			if c.loss != "" {
				can += ": " + c.loss
			}
		}
		fmt.Fprintf(t, "  %s\t%s\n", c.what, can)
	}
	for _, l := range []struct {
		what  string
		limit int64
	}{{"largest single write", caps.MaxPut}, {"largest single copy", caps.MaxCopy}, {"longest key", int64(caps.MaxKey)}} {
		if l.limit > 0 {
			fmt.Fprintf(t, "  %s\t%s\n", l.what, formatSize(l.limit))
		}
	}
	if caps.ChangeEvery > 0 {
		fmt.Fprintf(t, "  %s\tevery %s; what comes sooner is repeated\n", "changes of one object", caps.ChangeEvery)
	}
	return t.Flush()
}
