package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/fs"
	"github.com/keifs/keifs/store"
)

// session is one mount while it lasts.
type session struct {
	*stack
	server  *fs.Server
	control *control
	dir     string
	logPath string
	log     *slog.Logger
	started time.Time

	turn  chan struct{} // one unmount at a time
	gone  chan struct{} // closed when the mount has ended
	ended chan struct{} // closed when err is final
	err   error         // what could not be published
}

// serve returns when the mount has ended, however that came, and everything
// is in the bucket, or with what is not.
func (s *session) serve(signals <-chan os.Signal) error {
	go func() {
		s.server.Wait()
		close(s.gone)
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan struct{})
	go s.heed(signals, asked, cancel)
	select {
	case <-s.gone: // by the control socket, umount(8) or fusermount3
	case <-asked:
		s.leave(ctx)
	}
	if n := len(s.vol.Pending()); n > 0 {
		s.log.Info("waiting for what is not in the bucket yet", "files", n)
	}
	s.err = s.stack.close(ctx)
	close(s.ended)
	s.control.close()
	if s.err != nil {
		return fmt.Errorf("not everything is in the bucket: %w", s.err)
	}
	s.log.Info("unmounted", "dir", s.dir)
	return nil
}

// heed reads the signals: the first asks for the unmount, where it is not on
// its way already; the next ends the waiting for the bucket, and one more the
// process.
func (s *session) heed(signals <-chan os.Signal, asked chan<- struct{}, cancel context.CancelFunc) {
	next := func() bool {
		select {
		case sig := <-signals:
			s.log.Info("signal", "signal", sig.String())
			return true
		case <-s.ended:
			return false
		}
	}
	select {
	case <-s.gone:
	case sig := <-signals:
		s.log.Info("unmounting", "signal", sig.String())
		close(asked)
	}
	if next() {
		s.log.Warn("interrupted again: not waiting for the bucket")
		cancel()
	}
	if next() {
		os.Exit(exitFailed)
	}
}

// leave unmounts after a signal, which cannot be refused: a mount that is busy
// is detached, and ends for its users when this process does.
func (s *session) leave(ctx context.Context) {
	err := s.unmount(ctx)
	if err == nil {
		return
	}
	s.log.Warn("cannot unmount cleanly: detaching", "err", err)
	if err := detach(s.dir); err != nil && !errors.Is(err, unix.EINVAL) {
		s.log.Error("cannot detach", "dir", s.dir, "err", err)
	}
}

// unmount publishes what is pending and ends the mount. When the bucket does
// not take everything, or the mount is busy, it stays mounted.
func (s *session) unmount(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.gone:
		return nil
	default:
	}
	if err := s.vol.Sync(ctx); err != nil {
		return fmt.Errorf("%s stays mounted, not everything is in the bucket: %w", s.dir, err)
	}
	err := s.server.Unmount()
	if err == nil {
		return nil
	}
	if e, ok, tableErr := mountedAt(s.dir); tableErr == nil && (!ok || e.kind != fsType) {
		return nil // somebody else was faster
	}
	if who := users(s.dir); len(who) > 0 {
		return fail(exitDir, "%s is busy: in use by %s", s.dir, strings.Join(who, ", "))
	}
	return fail(exitDir, "%s cannot be unmounted: %w", s.dir, err)
}

// sync returns when what is at and below a path of the mount is in the bucket.
func (s *session) sync(ctx context.Context, path string) error {
	branch, p, err := store.SplitPath(path)
	switch {
	case err != nil:
		return err
	case branch == "":
		return s.vol.Sync(ctx)
	}
	tree, err := s.vol.Branch(ctx, branch)
	if errors.Is(err, store.ErrNotExist) {
		return nil // a file beside the branches, which nobody can have changed
	}
	if err != nil {
		return err
	}
	return tree.Sync(ctx, p)
}

// users names the processes that have files or their working directory below
// dir, as far as this user may see them: "bash (1234)".
func users(dir string) []string {
	var found []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		if !uses(proc, dir) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(proc, "comm"))
		found = append(found, fmt.Sprintf("%s (%s)", strings.TrimSpace(string(name)), filepath.Base(proc)))
		if len(found) == 5 {
			return append(found, "…")
		}
	}
	return found
}

func uses(proc, dir string) bool {
	if proc == "/proc/"+strconv.Itoa(os.Getpid()) {
		return false
	}
	links, _ := filepath.Glob(proc + "/fd/*")
	for _, link := range append(links, proc+"/cwd", proc+"/root", proc+"/exe") {
		if path, err := os.Readlink(link); err == nil && within(path, dir) {
			return true
		}
	}
	return false
}
