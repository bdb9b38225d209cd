// Command keifs mounts the branches of an object-store bucket as directories.
//
// One file is one subcommand; settings.go has every option there is; wire.go
// alone knows the packages and puts them together.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot(newShared())
	args = asMount(root, args)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(stderr, "keifs: "+oneLine(err))
		return exitStatus(err)
	}
	return 0
}

func newRoot(sh *shared) *cobra.Command {
	root := &cobra.Command{
		Use:   "keifs",
		Short: "Mount an object-store bucket as a directory; its branches are directories in it",
		Long: `keifs mounts an object-store bucket as a directory. Every branch of the bucket
is a directory in it, every file one plain object that any S3 tool can read.

  keifs mount ~/kei                  the embedded store: no account needed
  keifs mount s3://bucket ~/kei      a bucket
  keifs umount ~/kei                 waits until everything is in the bucket
  keifs commit -m "before it"        keeps what a branch has now, for ever

A store is one of these, of which the prefix can be left out:

` + storeForms() + `

Exit status: 0 done, 1 failed, 2 usage or configuration, 3 the directory, 4 the
store refused or is not there, 5 the store cannot be reached, 6 this machine
lacks something.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("; did you mean %q?", near[0])
			}
			return usageError("unknown command %q%s", args[0], hint)
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(mountCommand(sh), umountCommand(), syncCommand(), refreshCommand(), warmCommand(), branchCommand(sh), statusCommand(), probeCommand(sh), versionCommand())
	root.AddCommand(commitCommand(sh), logCommand(sh), showCommand(sh), diffCommand(sh), mergeCommand(sh), restoreCommand(sh),
		resetCommand(sh), undoCommand(sh), runCommand(sh), tagCommand(sh), reflogCommand(sh), fsckCommand(sh), gcCommand(sh))
	return root
}

// asMount makes "keifs SRC DIR -o OPTS", which mount(8) runs for the type
// fuse.keifs, the mount command that it means.
func asMount(root *cobra.Command, args []string) []string {
	if len(args) < 2 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[1], "-") {
		return args
	}
	known := []string{"help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}
	for _, c := range root.Commands() {
		known = append(known, c.Name())
	}
	if slices.Contains(known, args[0]) {
		return args
	}
	if !strings.Contains(args[0], ":") && len(root.SuggestionsFor(args[0])) > 0 {
		return args[:1] // no store, but a command with a typing error
	}
	return append([]string{"mount"}, args...)
}

// between checks the number of arguments.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError("usage: %s", cmd.UseLine())
		}
		return nil
	}
}
