// Package need finds the programs that tests of the whole run: rsync, git,
// sqlite3 and the like. A test never skips because one is missing. In a
// container, as root on a Debian system, the package is installed; elsewhere
// the test fails with the line that installs it.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Tool returns the path of the program. Where it is missing, it is installed
// from the Debian package, or the test ends.
func Tool(t testing.TB, program, debianPackage string) string {
	t.Helper()
	path, err := find(program, debianPackage, os.Geteuid() == 0)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func find(program, debianPackage string, root bool) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	missing := fmt.Errorf("%s is missing: sudo apt-get install -y %s", program, debianPackage)
	if _, err := exec.LookPath("apt-get"); err != nil || !root {
		return "", missing
	}
	// go test runs packages in parallel, and apt-get bears no company.
	unlock, err := lock(filepath.Join(os.TempDir(), "keifs-test-install.lock"))
	if err != nil {
		return "", fmt.Errorf("%w: %w", missing, err)
	}
	defer unlock()
	if path, err := exec.LookPath(program); err == nil { // by the one before us
		return path, nil
	}
	install := []string{"install", "-y", "--no-install-recommends", debianPackage}
	if _, err := aptGet(install...); err != nil {
		// Usually the lists of packages are not there, or old.
		if out, err := aptGet("update"); err != nil {
			return "", fmt.Errorf("%w: apt-get update: %w\n%s", missing, err, out)
		}
		if out, err := aptGet(install...); err != nil {
			return "", fmt.Errorf("%w: apt-get install: %w\n%s", missing, err, out)
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("package %s was installed, and still: %w", debianPackage, err)
	}
	return path, nil
}

func aptGet(args ...string) (output []byte, err error) {
	cmd := exec.Command("apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.CombinedOutput()
}

// lock waits for the lock that the processes of one go test share.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
