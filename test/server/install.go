package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Program is a server that is not part of this module: what it depends on
// stays out of its go.mod.
type Program struct {
	Name string // of the executable
	// Package and Version are of the Go module proxy, or of npm where NPM is set.
	Package string
	Version string
	NPM     bool
	// Env names a variable with the path of an executable to use instead.
	Env string
}

// path returns where the executable is, and installs it when this machine does
// not have it yet. Any number of processes may call it at once.
func (p Program) path(ctx context.Context) (string, error) {
	if path := os.Getenv(p.Env); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", p.Env, err)
		}
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "keifs-test", p.Name+"-"+p.Version)
	path := filepath.Join(dir, p.Name)
	if p.NPM {
		path = filepath.Join(dir, "npm", "node_modules", ".bin", p.Name)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // and unlocks
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil // another process was first
	}
	return path, p.install(ctx, dir)
}

// install makes the executable in a folder beside, whose name appears only
// with all that belongs to it.
func (p Program) install(ctx context.Context, dir string) error {
	empty, err := os.MkdirTemp(dir, "install-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	fmt.Fprintf(os.Stderr, "installing %s@%s, once on this machine; it takes a minute or two\n", p.Package, p.Version)
	cmd := exec.CommandContext(ctx, "go", "install", p.Package+"@"+p.Version)
	made, name := filepath.Join(empty, filepath.Base(p.Package)), p.Name
	if p.NPM {
		cmd = exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", empty, p.Package+"@"+p.Version)
		made, name = empty, "npm"
	}
	cmd.Dir = empty
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOBIN="+empty, "CGO_ENABLED=0", "PWD="+empty)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\nWithout a proxy, install it elsewhere and set %s to its path",
			strings.Join(cmd.Args, " "), err, out, p.Env)
	}
	return os.Rename(made, filepath.Join(dir, name))
}
