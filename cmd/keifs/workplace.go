package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
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

// drop deletes the branch of the job. Where committed is a commit, what came
// since stays, and the branch with it.
func (j *job) drop(ctx context.Context, committed string) error {
	if j.mount != nil {
		return j.mount.ask(ctx, "/drop?name="+query(j.name)+"&committed="+committed)
	}
	return dropBranch(ctx, j.st, j.remote.back, j.name, committed)
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
	root, cache := filepath.Join(folder, "mount"), filepath.Join(folder, "cache")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, errors.Join(fail(exitSystem, "%w", err), os.Remove(folder))
	}
	args := []string{"mount", "--cache-dir=" + cache, "--log-file=" + filepath.Join(folder, "log")}
	for name, value := range j.reach() {
		args = append(args, "--"+name+"="+value)
	}
	m := mounting{settings: newSettings(j.shared), url: j.repository.url, dir: root}
	m.logFile = filepath.Join(folder, "log")
	daemon, _, err := m.start(append(args, m.url, root))
	if err != nil {
		return nil, fmt.Errorf("mount for the command: %w", errors.Join(err, os.RemoveAll(folder)))
	}
	leave := func(ctx context.Context) error {
		if err := endMount(ctx, root, daemon); err != nil {
			return fmt.Errorf("%w; what is missing there is in %s, see %s", err, cache, m.logFile)
		}
		// By itself: where it still is a mount, it must not be emptied.
		if err := os.Remove(root); err != nil {
			return err
		}
		return os.RemoveAll(folder)
	}
	return &workplace{filepath.Join(root, j.name), leave}, nil
}

// unanswered is how long a daemon may take that was told not to wait for the
// bucket any more.
const unanswered = 30 * time.Second

// endMount ends the mount at dir, whoever is in there, and returns when its
// daemon, a child of this process, has ended. Nil: everything is in the bucket.
// From the end of ctx on, the bucket is not waited for.
func endMount(ctx context.Context, dir string, daemon *exec.Cmd) error {
	process, err := unix.PidfdOpen(daemon.Process.Pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	var said error
	if c, alive := findControl(dir, os.Geteuid()); alive { // else it is ending by itself
		said = c.ask(ctx, "/unmount")
	}
	asked := ctx
	if said != nil { // it is in use, or the bucket does not take everything
		_ = daemon.Process.Signal(unix.SIGTERM) // it may have ended
		if asked.Err() != nil {
			var cancel context.CancelFunc
			asked, cancel = context.WithTimeout(context.WithoutCancel(ctx), lookAgain)
			defer cancel()
		}
	}
	if waitProcess(asked, process) != nil {
		_ = daemon.Process.Signal(unix.SIGTERM)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), unanswered)
		defer cancel()
		if err := waitProcess(last, process); err != nil {
			return fmt.Errorf("not everything is in the bucket: the daemon of %s does not end", dir)
		}
	}
	err = daemon.Wait()
	if dead(dir) {
		err = errors.Join(err, detach(dir))
	}
	if told, ok := errors.AsType[*failure](said); ok && err != nil {
		err = told
	}
	if err != nil {
		err = fmt.Errorf("not everything is in the bucket: %w", err)
	}
	return err
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
