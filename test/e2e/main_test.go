// Package e2e holds the end-to-end tests: the keifs command as a user runs it,
// real mounts, real programs, a real S3 server.
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keifs/keifs/test/versitygw"
)

// keifs is the path of the command under test, built once.
var keifs string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keifs-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		keifs = filepath.Join(dir, "keifs")
		args := []string{"build", "-o", keifs}
		if raceEnabled {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "github.com/keifs/keifs/cmd/keifs")...)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build keifs:", err)
			return 1
		}
		return m.Run()
	}())
}

// lookAtSources stats every source of the command, which the tests do not
// import: "go test" notes what a test (not TestMain) looks at, and so does not
// take an old result for a new one.
var lookAtSources = sync.OnceValue(func() error {
	return filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case filepath.Ext(path) == ".go" || d.Name() == "go.mod" || d.Name() == "go.sum":
			_, err = os.Stat(path)
		}
		return err
	})
})

// host is one machine as far as keifs can see: a home, caches and credentials
// of its own. Two hosts on one bucket share nothing but the bucket.
type host struct {
	t   testing.TB
	dir string
	env []string
}

func newHost(t testing.TB, env ...string) *host {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := &host{t: t, dir: dir, env: append(os.Environ(),
		"HOME="+dir,
		"XDG_CONFIG_HOME="+filepath.Join(dir, "config"),
		"XDG_CACHE_HOME="+filepath.Join(dir, "cache"),
		"XDG_DATA_HOME="+filepath.Join(dir, "data"),
		"XDG_STATE_HOME="+filepath.Join(dir, "state"),
		"XDG_RUNTIME_DIR="+filepath.Join(dir, "run"),
		"GOFLAGS=-mod=mod", "GOPATH="+goPath(), "GOCACHE="+goCache(),
		"AWS_EC2_METADATA_DISABLED=true",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost",
		"LC_ALL=C.UTF-8",
		"GORACE=atexit_sleep_ms=0", // else each command of a race build sleeps 1 s at its end
	)}
	h.env = append(h.env, env...)
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return h
}

// s3Host is a host with the credentials of a server.
func s3Host(t testing.TB, srv *versitygw.Server) *host {
	return newHost(t, "KEIFS_ENDPOINT="+srv.Endpoint, "AWS_ACCESS_KEY_ID="+srv.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+srv.SecretKey, "AWS_REGION=us-east-1")
}

// mount is one running mount.
type mount struct {
	h   *host
	dir string
	pid int
}

// mount runs "keifs mount" as a user would and unmounts at the end of the test.
func (h *host) mount(storeURL string, flags ...string) *mount {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.dir, "mnt-")
	if err != nil {
		h.t.Fatal(err)
	}
	m := &mount{h: h, dir: dir}
	m.start(storeURL, flags...)
	h.t.Cleanup(func() {
		if m.pid != 0 {
			m.umount()
		}
	})
	return m
}

func (m *mount) start(storeURL string, flags ...string) {
	m.h.t.Helper()
	m.h.run(keifs, append([]string{"mount", storeURL, m.dir}, flags...)...)
	var status struct {
		Mounts []struct {
			Dir string `json:"dir"`
			PID int    `json:"pid"`
		} `json:"mounts"`
	}
	out := m.h.run(keifs, "status", "--json", m.dir)
	if err := json.Unmarshal([]byte(out), &status); err != nil || len(status.Mounts) != 1 {
		m.h.t.Fatalf("keifs status --json: %v\n%s", err, out)
	}
	m.pid = status.Mounts[0].PID
}

// umount runs "keifs umount", which waits until everything is in the bucket.
func (m *mount) umount() {
	m.h.t.Helper()
	m.pid = 0
	m.h.run(keifs, "umount", m.dir)
}

// path is a path below the mount.
func (m *mount) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

// run runs a command on the host, fails the test when it fails, and returns
// its standard output.
func (h *host) run(name string, args ...string) string {
	h.t.Helper()
	out, err := h.try("", name, args...)
	if err != nil {
		h.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// sh runs a shell script in a folder of the mount and returns what it printed.
func (m *mount) sh(dir, script string) string {
	m.h.t.Helper()
	start := time.Now()
	out, err := m.h.try(m.path(dir), "bash", "-euo", "pipefail", "-c", script)
	if err != nil {
		m.h.t.Fatalf("in %s: %s\n%v\n%s", dir, script, err, out)
	}
	if d := time.Since(start); d > 10*time.Second {
		m.h.t.Logf("took %v: %s", d.Round(time.Second), script)
	}
	return out
}

// try runs a command and returns what it printed, standard error behind
// standard output when it failed.
func (h *host) try(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = h.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

func goPath() string  { return goEnv("GOPATH") }
func goCache() string { return goEnv("GOCACHE") }

func goEnv(name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
