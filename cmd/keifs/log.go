package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/commit"
)

func logCommand(sh *shared) *cobra.Command {
	var asJSON, oneline bool
	var most int
	cmd := &cobra.Command{
		Use:   "log [REV]",
		Short: "Show the commits of a branch, the newest first",
		Long: `Show a commit and those before it, the newest first. REV is a branch, a tag, the
beginning of a commit's id, BRANCH~2, or BRANCH@TIME (2h, 3d, yesterday,
2026-11-20, 2026-11-20T10:00); without it, the branch.`,
		Args: between(0, 1),
	}
	cmd.Flags().IntVarP(&most, "number", "n", 0, "show so many `commits` at most")
	cmd.Flags().BoolVar(&oneline, "oneline", false, "a line each")
	cmd.Flags().BoolVar(&asJSON, "json", false, "a line of JSON each")
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		m, err := r.revision(ctx, args, 0)
		if err != nil {
			return err
		}
		n := 0
		for m, err := range r.Log(ctx, m) {
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				err = json.NewEncoder(r.out).Encode(described(m))
			case oneline:
				fmt.Fprintln(r.out, short(m.ID), firstLine(m.Message))
			default:
				if n > 0 {
					fmt.Fprintln(r.out)
				}
				printCommit(r.out, m)
			}
			if err != nil {
				return err
			}
			if n++; n == most {
				break
			}
		}
		return nil
	})
}

// revision is the commit that an argument names, or the branch's last one.
func (r *repository) revision(ctx context.Context, args []string, i int) (*commit.Manifest, error) {
	if i < len(args) {
		return r.Find(ctx, args[i])
	}
	if r.branch == "" {
		return nil, usageError("which branch? Go into its directory, or name a revision")
	}
	return r.Find(ctx, r.branch)
}

func printCommit(w io.Writer, m *commit.Manifest) {
	fmt.Fprintf(w, "commit %s\n", m.ID)
	if len(m.Parents) > 1 {
		parents := make([]string, len(m.Parents))
		for i, p := range m.Parents {
			parents[i] = short(p)
		}
		fmt.Fprintf(w, "merge  %s\n", strings.Join(parents, " "))
	}
	fmt.Fprintf(w, "branch %s\nauthor %s\ndate   %s\ntree   %d objects, %s\n\n",
		m.Branch, m.Author, m.Time.Local().Format(time.RFC1123Z), m.Entries, formatSize(m.Bytes))
	for line := range strings.SplitSeq(strings.TrimSpace(m.Message), "\n") {
		fmt.Fprintln(w, "    "+line)
	}
}

// describedCommit is a commit for programs.
type describedCommit struct {
	ID      string    `json:"id"`
	Branch  string    `json:"branch"`
	Parents []string  `json:"parents"`
	Message string    `json:"message"`
	Author  string    `json:"author"`
	Time    time.Time `json:"time"`
	Entries int64     `json:"entries"`
	Bytes   int64     `json:"bytes"`
}

func described(m *commit.Manifest) describedCommit {
	return describedCommit{m.ID, m.Branch, m.Parents, m.Message, m.Author, m.Time, m.Entries, m.Bytes}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return cmp.Or(line, "(no message)")
}
