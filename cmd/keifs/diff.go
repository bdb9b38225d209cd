package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/history"
)

// diffFormat is how differences are shown.
type diffFormat struct{ stat, nameOnly, asJSON bool }

func (f *diffFormat) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stat, "stat", false, "sizes as well, and a sum")
	cmd.Flags().BoolVar(&f.nameOnly, "name-only", false, "paths and nothing else")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "a line of JSON each")
}

func diffCommand(sh *shared) *cobra.Command {
	var f diffFormat
	cmd := &cobra.Command{
		Use:   "diff [A [B]]",
		Short: "Show what was added (A), modified (M) and deleted (D) between two revisions",
		Long: `Show what was added (A), modified (M) and deleted (D) from revision A to revision
B; without B to what the branch has now, without A from its last commit.`,
		Args: between(0, 2),
	}
	f.flags(cmd)
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		a, err := r.revision(ctx, args, 0)
		if err != nil {
			return err
		}
		if len(args) == 2 {
			b, err := r.Find(ctx, args[1])
			if err != nil {
				return err
			}
			return f.print(r, commit.Diff(ctx, r.Commits().Tree(a), r.Commits().Tree(b)))
		}
		branch, err := r.onBranch()
		if err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		now := r.Working(ctx, branch, "", []*commit.Manifest{a}, func(string) {})
		return f.print(r, history.Difference(r.Commits().Tree(a).Walk(ctx, "", ""), now))
	})
}

func showCommand(sh *shared) *cobra.Command {
	var f diffFormat
	cmd := &cobra.Command{
		Use:   "show [REV]",
		Short: "Show a commit and what it changed",
		Long:  `Show a commit, and what it changed from its first parent.`,
		Args:  between(0, 1),
	}
	f.flags(cmd)
	return historyCommand(sh, cmd, func(ctx context.Context, r *repository, args []string) error {
		m, err := r.revision(ctx, args, 0)
		if err != nil {
			return err
		}
		var parent *commit.Manifest
		if len(m.Parents) > 0 {
			if parent, err = r.Commits().Manifest(ctx, m.Parents[0]); err != nil {
				return err
			}
		}
		if f.asJSON {
			if err := json.NewEncoder(r.out).Encode(described(m)); err != nil {
				return err
			}
		} else if !f.nameOnly {
			printCommit(r.out, m)
			fmt.Fprintln(r.out)
		}
		return f.print(r, commit.Diff(ctx, r.Commits().Tree(parent), r.Commits().Tree(m)))
	})
}

// side is one entry of a difference, for programs.
type side struct {
	Type  string    `json:"type"`
	Size  int64     `json:"size"`
	ETag  string    `json:"etag"`
	Mode  uint32    `json:"mode"`
	Mtime time.Time `json:"mtime"`
}

func sideOf(e *commit.Entry) *side {
	if e == nil {
		return nil
	}
	return &side{e.Kind(), e.Size, e.ETag, e.Mode, time.Unix(0, e.Mtime).UTC()}
}

func (f *diffFormat) print(r *repository, changes iter.Seq2[commit.Change, error]) error {
	counts := map[byte]int{}
	var grown int64
	for c, err := range changes {
		if err != nil {
			return err
		}
		kind, size := byte('M'), int64(0)
		if c.Old == nil {
			kind = 'A'
		} else {
			size -= c.Old.Size
		}
		if c.New == nil {
			kind = 'D'
		} else {
			size += c.New.Size
		}
		counts[kind]++
		grown += size
		switch {
		case f.asJSON:
			err := json.NewEncoder(r.out).Encode(struct {
				Path   string `json:"path"`
				Change string `json:"change"`
				Old    *side  `json:"old"`
				New    *side  `json:"new"`
			}{c.Path, string(kind), sideOf(c.Old), sideOf(c.New)})
			if err != nil {
				return err
			}
		case f.nameOnly:
			fmt.Fprintln(r.out, c.Path)
		case f.stat:
			fmt.Fprintf(r.out, "%c %s (%+d bytes)\n", kind, c.Path, size)
		default:
			fmt.Fprintf(r.out, "%c %s\n", kind, c.Path)
		}
	}
	if f.stat && !f.asJSON {
		fmt.Fprintf(r.out, "%d added, %d modified, %d deleted, %+d bytes\n", counts['A'], counts['M'], counts['D'], grown)
	}
	return nil
}
