package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// workplace is the directory of a branch that a command runs in.
type workplace struct {
	dir string
	// leave returns when all that was written is in the bucket. A mount of its
	// own has ended then.
	leave func(context.Context) error
}

// lookAgain is how often something is looked for that nobody announces.
const lookAgain = 50 * time.Millisecond

// makeBranch makes the branch of the job, by the mount where there is one: it
// knows it then.
func (j *job) makeBranch(ctx context.Context) error {
	if j.mount != nil {
		return j.mount.ask(ctx, "/branch?name="+query(j.name)+"&from="+query(j.start.ID))
	}
	return fork(ctx, j.st, j.remote.back, j.name, j.start.ID)
}

// drop deletes the branch of the job.
func (j *job) drop(ctx context.Context) error {
	if j.mount != nil {
		return j.mount.ask(ctx, "/drop?name="+query(j.name))
	}
	return dropBranch(ctx, j.st, j.remote.back, j.name)
}

// openPlace returns the directory of the branch: in the mount that the command
// was called in, else in one of its own.
func (j *job) openPlace(ctx context.Context) (*workplace, error) {
	if j.mount == nil {
		return j.ownMount()
	}
	dir := filepath.Join(j.root, j.name)
	// The mount may believe for a while that there is nothing of that name.
	for tick := time.NewTicker(lookAgain); ; {
		_, err := os.Stat(dir)
		if err == nil {
			tick.Stop()
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return &workplace{dir, func(ctx context.Context) error { return j.mount.sync(ctx, j.name) }}, nil
}

// ownMount mounts the store for this command alone.
func (j *job) ownMount() (*workplace, error) {
	folder, err := os.MkdirTemp("", "keifs-run-*")
	if err != nil {
		return nil, fail(exitSystem, "%w", err)
	}
	root := filepath.Join(folder, "mount")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, errors.Join(fail(exitSystem, "%w", err), os.Remove(folder))
	}
	args := []string{"mount", "--cache-dir=" + filepath.Join(folder, "cache"), "--log-file=" + filepath.Join(folder, "log")}
	for name, value := range j.reach() {
		args = append(args, "--"+name+"="+value)
	}
	m := mounting{settings: newSettings(j.shared), url: j.repository.url, dir: root}
	m.logFile = filepath.Join(folder, "log")
	if err := m.background(io.Discard, append(args, m.url, root)); err != nil {
		return nil, fmt.Errorf("mount for the command: %w", errors.Join(err, os.RemoveAll(folder)))
	}
	leave := func(ctx context.Context) error {
		if err := leaveMount(ctx, root); err != nil {
			return fmt.Errorf("%w; see %s", err, m.logFile)
		}
		return os.RemoveAll(folder)
	}
	return &workplace{filepath.Join(root, j.name), leave}, nil
}

// leaveMount ends the mount at dir when everything is in the bucket. Who is
// still in there has no mount any more.
func leaveMount(ctx context.Context, dir string) error {
	c, alive := findControl(dir, os.Geteuid())
	if !alive {
		return fmt.Errorf("the daemon of %s has ended", dir)
	}
	err := c.unmount(ctx)
	if f, ok := errors.AsType[*failure](err); !ok || f.status != exitDir {
		return err
	}
	pid, pidErr := c.pid()
	if pidErr != nil {
		return err
	}
	process, pidErr := unix.PidfdOpen(pid, 0)
	if pidErr != nil {
		return err
	}
	defer unix.Close(process)
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil {
		return err
	}
	return waitProcess(ctx, process)
}

// waitLock is lock for what may take long.
func waitLock(ctx context.Context, folder, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fail(exitSystem, "%w", err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fail(exitSystem, "%s: %w", f.Name(), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
