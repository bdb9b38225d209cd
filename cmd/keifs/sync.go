package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync [PATH]",
		Short: "Wait until everything written is in the bucket",
		Long: `Wait until what was written to PATH, a file or everything below a directory in a
mount, is in the bucket; without PATH, to any of this user's mounts. It matters
with --write-back, and for files that are still open.`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return inMounts(args, func(c controlClient, path string) error {
				return c.syncShown(ctx, path, cmd.ErrOrStderr())
			})
		},
	}
}

// inMounts calls fn for the mount that the one argument lies in, and its path
// there; without one for each of this user's mounts, and its root.
func inMounts(args []string, fn func(c controlClient, path string) error) error {
	if len(args) == 0 {
		var errs []error
		for _, c := range sockets() {
			errs = append(errs, fn(c, ""))
		}
		return errors.Join(errs...)
	}
	c, path, err := mountOf(args[0])
	if err != nil {
		return err
	}
	return fn(c, path)
}

// mountOf is the control socket of the mount that name lies in, and the path in
// the mount; that of its root is empty.
func mountOf(name string) (c controlClient, path string, err error) {
	path, err = filepath.Abs(name)
	if err != nil {
		return c, "", err
	}
	dir, err := existingDir(filepath.Dir(path)) // a link is a file of its own
	if _, is, _ := mountedAt(path); is || filepath.Dir(path) == path {
		dir, err = existingDir(path)
	} else {
		dir = filepath.Join(dir, filepath.Base(path))
	}
	if err != nil {
		return c, "", err
	}
	e, ok, err := mountContaining(dir)
	if err != nil {
		return c, "", err
	}
	c, alive := findControl(e.dir, e.uid)
	switch {
	case !ok:
		return c, "", fail(exitDir, "%s is not in a mount of keifs", name)
	case !alive:
		return c, "", fail(exitDir, "the daemon of %s cannot be asked", e.dir)
	}
	path, err = filepath.Rel(e.dir, dir)
	if path == "." {
		path = ""
	}
	return c, path, err
}

// syncShown is sync, with its progress.
func (c controlClient) syncShown(ctx context.Context, path string, w io.Writer) error {
	ended := c.progress(ctx, w)
	defer ended()
	return c.sync(ctx, path)
}

// progress shows on a terminal how much is not in the bucket yet, until the
// result is called.
func (c controlClient) progress(ctx context.Context, w io.Writer) (ended func()) {
	show, done := onTerminal(w)
	if show == nil {
		return done
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		var most int64
		for ctx.Err() == nil {
			if st, err := c.status(ctx, false); err == nil && len(st.Pending) > 0 {
				left := st.pendingBytes()
				most = max(most, left)
				show(fmt.Sprintf("%s to go %s", st.pending(), bar(most-left, most)))
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
		done()
	})
	return func() { cancel(); group.Wait() }
}

// onTerminal returns what shows a line on a terminal, in place of the one
// before, and what takes it away. show is nil where w is none.
func onTerminal(w io.Writer) (show func(line string), done func()) {
	f, ok := w.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		ok = err == nil
	}
	if !ok {
		return nil, func() {}
	}
	return func(line string) { fmt.Fprintf(f, "\rkeifs: %s\x1b[K", line) }, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// bar shows how much of something is done.
func bar(done, all int64) string {
	const width = 30
	text := [width + 2]byte{0: '[', width + 1: ']'}
	for i := range int64(width) {
		text[i+1] = '.'
		if all > 0 && i < done*width/all {
			text[i+1] = '#'
		}
	}
	return string(text[:])
}
