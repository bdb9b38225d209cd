package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func umountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "Unmount, after everything written is in the bucket",
		Long: `Unmount a directory. Returns when everything that was written is in the bucket
and the daemon has ended. A mount that is in use, or whose store does not take
what was written, stays mounted, and the exit status says so. What the daemon
of a mount that died left behind is cleaned away.`,
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			dir, err := existingDir(args[0])
			if err != nil {
				return err
			}
			if err := os.Chdir("/"); err != nil { // not to keep it busy ourselves
				return err
			}
			e, is, err := mountedAt(dir)
			if err != nil {
				return err
			}
			if is = is && e.kind == fsType; !is {
				e.uid = os.Geteuid()
			}
			c, alive := findControl(dir, e.uid)
			switch {
			case !alive && !is:
				return fail(exitDir, "%s is not a mount of keifs", dir)
			case !alive && dead(dir):
				return clean(dir, cmd.ErrOrStderr())
			case !alive:
				return plainUnmount(dir)
			}
			// Where it is no mount any more, this waits for what its daemon
			// is still publishing.
			if st, err := c.status(ctx, false); err == nil {
				st.announce(cmd.ErrOrStderr())
			}
			ended := c.progress(ctx, cmd.ErrOrStderr())
			err = c.unmount(ctx)
			ended()
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted; %s stays mounted unless it was unmounted already", dir)
			}
			_, told := errors.AsType[*failure](err)
			switch {
			case err == nil || told:
				return err
			case dead(dir): // it died under our hands
				return clean(dir, cmd.ErrOrStderr())
			}
			return fmt.Errorf("the daemon of %s ended without an answer; its log says why (%w)", dir, err)
		},
	}
}

// clean takes away the mount of a dead daemon.
func clean(dir string, w io.Writer) error {
	if err := detach(dir); err != nil {
		return fail(exitDir, "%s is the mount of a keifs that is dead, and cannot be cleaned: %w", dir, err)
	}
	fmt.Fprintf(w, "keifs: %s: cleaned, its daemon was dead\n", dir)
	return nil
}

// plainUnmount is for a mount whose control socket cannot be found: its daemon
// publishes what is pending by itself, and cannot be waited for.
func plainUnmount(dir string) error {
	switch err := unmount(dir); {
	case errors.Is(err, unix.EBUSY):
		return fail(exitDir, "%s is busy", dir)
	case errors.Is(err, os.ErrPermission):
		return fail(exitDir, "%s is the mount of another user", dir)
	case err != nil:
		return fail(exitDir, "%s: %w", dir, err)
	}
	return nil
}

// announce says what an unmount has to wait for.
func (st mountStatus) announce(w io.Writer) {
	if len(st.Pending) > 0 {
		fmt.Fprintf(w, "keifs: waiting for %s to reach the bucket\n", st.pending())
	}
}
