package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/test/azurite"
	"github.com/keifs/keifs/test/bunnystub"
	"github.com/keifs/keifs/test/fakegcs"
	"github.com/keifs/keifs/test/minio"
	"github.com/keifs/keifs/test/need"
	"github.com/keifs/keifs/test/versitygw"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keifs": main})
}

// TestStories runs the scripts in testdata: the command as people use it, with
// real mounts of local stores and of a real S3 server. Beside the commands of
// testscript they have those of storyCommands.
func TestStories(t *testing.T) {
	need.Tool(t, "fusermount3", "fuse3")
	srv, google, emulator := versitygw.Shared(t), fakegcs.Shared(t), azurite.Shared(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                storyCommands,
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			for name, dir := range map[string]string{
				"HOME": "home", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data",
				"XDG_STATE_HOME": "state", "XDG_RUNTIME_DIR": "run",
			} {
				dir = filepath.Join(env.WorkDir, dir)
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
				env.Setenv(name, dir)
			}
			env.Setenv("ENDPOINT", srv.Endpoint)
			// With -race: no second of sleep at each end, and what a daemon
			// finds must not stay in its log.
			env.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(env.WorkDir, "race"))
			proxy, err := newStoryProxy(srv.Endpoint)
			if err != nil {
				return err
			}
			env.Values[proxyKey{}] = proxy
			env.Setenv("PROXY", proxy.URL)
			env.Setenv("BUCKET", srv.NewBucket(t))
			env.Values[versionedKey{}] = func() (endpoint, bucket string) {
				srv := minio.Shared(t) // versitygw tells of a version when it was replaced
				bucket = srv.MakeBucket(t)
				srv.EnableVersioning(t, bucket)
				return srv.Endpoint, bucket
			}
			env.Setenv("SECRET", srv.SecretKey)
			env.Setenv("AWS_ACCESS_KEY_ID", srv.AccessKey)
			env.Setenv("AWS_SECRET_ACCESS_KEY", srv.SecretKey)
			env.Setenv("AWS_REGION", srv.Region)
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			env.Setenv("GS_ENDPOINT", google.Endpoint)
			env.Setenv("GS_BARE", google.Bare)
			env.Setenv("GS_BUCKET", google.NewBucket(t))
			env.Setenv("ZONE_ENDPOINT", bunnystub.Start(t).Endpoint)
			env.Setenv("AZURE_ENDPOINT", emulator.Endpoint)
			env.Setenv("CONTAINER", emulator.NewContainer(t))
			env.Defer(func() {
				if err := endMounts(env.WorkDir); err != nil {
					t.Error(err)
				}
				races, _ := filepath.Glob(filepath.Join(env.WorkDir, "race.*"))
				for _, path := range races {
					text, _ := os.ReadFile(path)
					t.Errorf("%s", text)
				}
				proxy.set("refuse", "") // what still hangs
				proxy.Close()
			})
			return nil
		},
	})
}

type versionedKey struct{}

var storyCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits STATUS COMMAND…: the command ends with that exit status, after
	// one line on standard error that begins with its name.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec(args[1], args[2:]...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
			ts.Fatalf("%v, want exit status %s", err, args[0])
		}
		if text := ts.ReadFile("stderr"); !strings.HasPrefix(text, "keifs: ") || strings.Count(text, "\n") != 1 {
			ts.Fatalf("not one line: %q", text)
		}
	},
	// daemon DIR: $PID is the process behind the mount.
	"daemon": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(ts.Exec("keifs", "status", "--json", args[0]))
		var out struct{ Mounts []mountStatus }
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &out))
		if len(out.Mounts) != 1 || out.Mounts[0].PID == 0 {
			ts.Fatalf("no daemon: %+v", out)
		}
		ts.Setenv("PID", strconv.Itoa(out.Mounts[0].PID))
	},
	"proxy": proxyCommand,
	// versioned: $BUCKET is a bucket of another server that keeps versions.
	"versioned": func(ts *testscript.TestScript, neg bool, args []string) {
		endpoint, bucket := ts.Value(versionedKey{}).(func() (string, string))()
		ts.Setenv("KEIFS_ENDPOINT", endpoint)
		ts.Setenv("BUCKET", bucket)
	},
	// signal NAME: sends it to $PID.
	"signal": func(ts *testscript.TestScript, neg bool, args []string) {
		pid, err := strconv.Atoi(ts.Getenv("PID"))
		ts.Check(err)
		ts.Check(unix.Kill(pid, unix.SignalNum(args[0])))
	},
	// ended: waits until $PID is gone.
	"ended": func(ts *testscript.TestScript, neg bool, args []string) {
		pid, err := strconv.Atoi(ts.Getenv("PID"))
		ts.Check(err)
		ts.Check(waitEnd(pid))
	},
	// mounted DIR: waits until it is a mount; ! mounted DIR: it is none.
	"mounted": func(ts *testscript.TestScript, neg bool, args []string) {
		dir := ts.MkAbs(args[0])
		if !neg {
			ts.Check(waitMounted(dir))
		} else if e, ok, err := mountedAt(dir); err != nil || ok {
			ts.Fatalf("mounted at %s: %+v, %v", dir, e, err)
		}
	},
}

// waitEnd waits for the end of a process that need not be ours.
func waitEnd(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return waitProcess(ctx, fd)
}

// waitMounted waits until there is a mount of keifs at dir. The kernel tells
// when its mount table has changed.
func waitMounted(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if e, ok, err := mountedAt(dir); err != nil || ok && e.kind == fsType {
			return err
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, 1000); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return fmt.Errorf("%s is not mounted after 30 s", dir)
}

// endMounts takes away what a story that failed half-way has left: mounts
// below dir, and the daemons behind them.
func endMounts(dir string) error {
	pids := map[int]bool{}
	paths, _ := filepath.Glob(filepath.Join(dir, "run", "keifs", "*.sock"))
	for _, path := range paths {
		if pid, err := dialControl(path).pid(); err == nil && pid != os.Getpid() {
			pids[pid] = true
		}
	}
	for pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if err := waitEnd(pid); err != nil {
			return err
		}
	}
	table, err := mountTable()
	for _, e := range table {
		if within(e.dir, dir) {
			err = errors.Join(err, detach(e.dir))
		}
	}
	return err
}
