package versitygw

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

const (
	pkg     = "github.com/versity/versitygw/cmd/versitygw"
	version = "v1.8.0"

	// binaryEnv names a binary to use instead of building one.
	binaryEnv = "KEIFS_TEST_VERSITYGW"
)

// binary returns the path of the server, which it builds when this machine
// does not have it yet. Any number of processes may call it at once.
func binary(ctx context.Context) (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", binaryEnv, err)
		}
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "keifs-test", "versitygw-"+version)
	path := filepath.Join(dir, "versitygw")
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
	return path, install(ctx, dir)
}

// install builds the server into dir. The module around the tests has no part
// in it: the server's dependencies stay out of the project's go.mod.
func install(ctx context.Context, dir string) error {
	empty, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(empty)
	fmt.Fprintf(os.Stderr, "building %s@%s, once on this machine; it takes a minute or two\n", pkg, version)
	cmd := exec.CommandContext(ctx, "go", "install", pkg+"@"+version)
	cmd.Dir = empty
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOBIN="+empty, "CGO_ENABLED=0", "PWD="+empty)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s\nWithout a module proxy, build it elsewhere and set %s to its path",
			strings.Join(cmd.Args, " "), err, out, binaryEnv)
	}
	// The name appears only with the whole file behind it.
	return os.Rename(filepath.Join(empty, "versitygw"), filepath.Join(dir, "versitygw"))
}
