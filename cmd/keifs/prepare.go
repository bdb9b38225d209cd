package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// checkSystem looks for what any mount on this machine needs.
func checkSystem(allowOther bool) error {
	return system{
		uid: os.Geteuid(), device: "/dev/fuse", conf: "/etc/fuse.conf", lookPath: exec.LookPath,
	}.check(allowOther)
}

// system is the machine as far as a mount needs it.
type system struct {
	uid          int
	device, conf string
	lookPath     func(string) (string, error)
}

func (s system) check(allowOther bool) error {
	f, err := os.OpenFile(s.device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(exitSystem, "%s is missing: load the module (modprobe fuse), or hand the device to the container (--device /dev/fuse --cap-add SYS_ADMIN)", s.device)
	case err != nil:
		return fail(exitSystem, "FUSE cannot be used: %w (as root: chmod 666 %s, as most systems have it)", err, s.device)
	}
	f.Close()
	if s.uid == 0 {
		return nil
	}
	if s.fusermount() == "" {
		return fail(exitSystem, "fusermount3 is missing, which lets users mount: install Debian's package fuse3 (apt-get install fuse3)")
	}
	if allowOther {
		conf, _ := os.ReadFile(s.conf)
		for line := range strings.Lines(string(conf)) {
			if strings.TrimSpace(line) == "user_allow_other" {
				return nil
			}
		}
		return fail(exitSystem, "--allow-other needs the line user_allow_other in %s", s.conf)
	}
	return nil
}

// fusermount is the path of the setuid program that mounts for users; empty
// where there is none.
func (s system) fusermount() string {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if path, err := s.lookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// claim checks the directory and takes it: the control socket of its name
// belongs to one daemon at a time, from before the mount until its very end.
func (m *mounting) claim() (*net.UnixListener, error) {
	folder, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	// Two commands for one directory take turns; who waits for a directory
	// that hangs must not hold up the mounts of others.
	abs, err := filepath.Abs(m.dir)
	if err != nil {
		return nil, fail(exitDir, "%w", err)
	}
	unlock, err := lock(folder, shortName(abs)+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m.dir, err = prepareDir(m.dir, m.embedded); err != nil {
		return nil, err
	}
	if err := m.checkPaths(); err != nil {
		return nil, err
	}
	return listenControl(socketPath(folder, m.dir))
}

// prepareDir returns the resolved path of a directory that can be mounted on:
// there, empty, and no mount of keifs. With create, it makes the last
// component where it is missing. The mount of a dead daemon is cleaned away.
func prepareDir(dir string, create bool) (string, error) {
	if create {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fail(exitDir, "%w", err)
		}
	}
	real, err := resolveDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fail(exitDir, "%s does not exist: make the directory first", dir)
	}
	if err != nil {
		return "", fail(exitDir, "%w", err)
	}
	for {
		e, ok, err := mountedAt(real)
		if err != nil {
			return "", err
		}
		if !ok || e.kind != fsType {
			break
		}
		if _, alive := findControl(real, e.uid); alive || !dead(real) {
			return "", fail(exitDir, "%s is mounted already, with %s", real, e.source)
		}
		if err := detach(real); err != nil {
			return "", fail(exitDir, "%s is the mount of a keifs that is dead, and cannot be cleaned: %w", real, err)
		}
	}
	if os.Geteuid() != 0 && unix.Access(real, unix.W_OK) != nil {
		return "", fail(exitDir, "%s: users can only mount on directories that they may write to", real)
	}
	f, err := os.Open(real)
	if err != nil {
		return "", fail(exitDir, "%w", err)
	}
	defer f.Close()
	switch _, err := f.ReadDir(1); {
	case err == nil:
		return "", fail(exitDir, "%s is not empty", real)
	case !errors.Is(err, io.EOF):
		return "", fail(exitDir, "%s is not a directory that can be mounted on: %w", real, err)
	}
	return real, nil
}

// lock keeps other commands of this user from doing the same at the same time.
func lock(folder, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fail(exitSystem, "%w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fail(exitSystem, "%s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// unmount asks the kernel to end the mount at dir: unix.EBUSY while it is in use.
func unmount(dir string) error { return umount(dir, 0, "-u") }

// detach takes the mount at dir out of the tree at once; it ends with its
// last user.
func detach(dir string) error { return umount(dir, unix.MNT_DETACH, "-uz") }

func umount(dir string, flags int, fusermountFlag string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, flags)
	}
	path := system{lookPath: exec.LookPath}.fusermount()
	if path == "" {
		return fail(exitSystem, "fusermount3 is missing: install Debian's package fuse3 (apt-get install fuse3)")
	}
	out, err := exec.Command(path, fusermountFlag, "--", dir).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, "busy") {
		return unix.EBUSY
	}
	return fmt.Errorf("%s: %w", text, err)
}
