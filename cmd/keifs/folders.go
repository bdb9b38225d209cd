package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The user's folders, by the XDG base directory specification.

func configHome() string { return xdg("XDG_CONFIG_HOME", ".config") }
func cacheHome() string  { return xdg("XDG_CACHE_HOME", ".cache") }
func dataHome() string   { return xdg("XDG_DATA_HOME", ".local/share") }
func stateHome() string  { return xdg("XDG_STATE_HOME", ".local/state") }

func xdg(variable, below string) string {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil { // mount(8) at boot has no HOME
		if u, err := user.Current(); err == nil {
			home = u.HomeDir
		}
	}
	return filepath.Join(home, below)
}

// shortName is a file name for something with a long one: a hash of its parts.
func shortName(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(h[:8])
}

// runtimeDir returns the folder for this user's control sockets, and makes it.
func runtimeDir() (string, error) {
	dir := runtimeDirs(os.Geteuid())[0]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fail(exitSystem, "runtime folder: %w", err)
	}
	return dir, checkPrivate(dir, os.Geteuid())
}

// runtimeDirs are the folders in which mounts of a user may have their control
// sockets, the one for new mounts first.
func runtimeDirs(uid int) []string {
	var dirs []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && uid == os.Geteuid() {
		dirs = append(dirs, filepath.Join(dir, "keifs"))
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); isDir(dir) {
		dirs = append(dirs, filepath.Join(dir, "keifs"))
	}
	if uid == 0 {
		return append(dirs, "/run/keifs")
	}
	return append(dirs, fmt.Sprintf("/tmp/keifs-%d", uid))
}

// checkPrivate makes sure that nobody else can put a socket into dir.
func checkPrivate(dir string, uid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fail(exitSystem, "runtime folder %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid || st.Mode&0o077 != 0 {
		return fail(exitSystem, "runtime folder %s must be a folder of user %d with mode 0700", dir, uid)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// existingDir is resolveDir for the argument of a command.
func existingDir(arg string) (string, error) {
	dir, err := resolveDir(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fail(exitDir, "%s does not exist", arg)
	case err != nil:
		return "", fail(exitDir, "%w", err)
	}
	return dir, nil
}

// resolveDir is the absolute path of a directory without symbolic links, also
// where it is a mount that cannot be looked at: its daemon is dead or hangs, or
// it is another user's.
func resolveDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// The path of a mount is known without asking its daemon, which may hang.
	if above, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		real := filepath.Join(above, filepath.Base(abs))
		if e, ok, err := mountedAt(real); err == nil && ok && e.kind == fsType {
			return real, nil
		}
	}
	real, err := filepath.EvalSymlinks(abs)
	var at *os.PathError
	if (errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EACCES)) && errors.As(err, &at) {
		if _, ok, tableErr := mountedAt(at.Path); ok && tableErr == nil {
			if _, above := filepath.EvalSymlinks(filepath.Dir(abs)); above == nil {
				return at.Path, nil
			}
		}
	}
	return real, err
}
