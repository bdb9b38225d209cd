package main

import (
	"context"

	"github.com/spf13/cobra"
)

func refreshCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "refresh [PATH]",
		Short: "Ask the bucket again about names and attributes",
		Long: `Forget what the mount, and the kernel, remember of PATH, a file or everything below
a directory in a mount; without PATH, of all of this user's mounts. Whoever looks
next sees what is in the bucket now. It matters with a long --metadata-ttl. What is
not in the bucket yet stays as it is, and so do contents, which are never stale.`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inMounts(args, func(c controlClient, path string) error {
				return c.refresh(cmd.Context(), path)
			})
		},
	}
}

// refresh asks the daemon to forget what it knows of a path of its mount.
func (c controlClient) refresh(ctx context.Context, path string) error {
	return c.ask(ctx, "/refresh?path="+query(path))
}
