package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/cache"
	"github.com/keifs/keifs/store"
)

// bucket is a fresh bucket in memory.
func bucket() backend.Backend { return mem.New("test", mem.Options{}) }

// newVolume makes a volume over a bucket, and closes it with the test.
type newVolume func(t *testing.T, b backend.Backend) store.Volume

func direct(t *testing.T, b backend.Backend) store.Volume {
	vol := store.NewDirect(openStore(t, b), store.DirectOptions{})
	t.Cleanup(func() { vol.Close(context.Background()) })
	return vol
}

func cached(t *testing.T, b backend.Backend) store.Volume { return cachedBy(cache.Options{})(t, b) }

// cachedBy is cached with options.
func cachedBy(opts cache.Options) newVolume {
	return func(t *testing.T, b backend.Backend) store.Volume {
		opts := opts
		opts.Dir = t.TempDir()
		vol, err := cache.Open(t.Context(), openStore(t, b), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { vol.Close(context.Background()) })
		return vol
	}
}

func openStore(t *testing.T, b backend.Backend) *store.Store { return openKnown(t, b, nil) }

// openKnown is openStore of a bucket of which an earlier probe is remembered.
func openKnown(t *testing.T, b backend.Backend, caps *backend.Caps) *store.Store {
	s, err := store.Open(t.Context(), b, store.Options{Host: "here", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Caps: caps})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// onVolumes runs a test on every volume there is.
func onVolumes(t *testing.T, test func(t *testing.T, open newVolume)) {
	onPatientVolumes(t, test)
	t.Run("write-back", func(t *testing.T) { test(t, cachedBy(cache.Options{WriteBack: true})) })
	t.Run("write-back, synced", func(t *testing.T) { test(t, cachedBy(cache.Options{WriteBack: true, JournalSync: true})) })
}

// onPatientVolumes runs a test on those whose close waits for the bucket, so
// that another mount, or a commit, has what was closed.
func onPatientVolumes(t *testing.T, test func(t *testing.T, open newVolume)) {
	for name, open := range map[string]newVolume{"direct": direct, "cache": cached} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// mountVolume mounts vol, and returns the mount's root.
func mountVolume(t *testing.T, vol store.Volume, opts Options) (root string, s *Server) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	// Other users walk through.
	for dir := filepath.Dir(root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if opts.Logger == nil {
		opts.Logger = testLogger(t)
	}
	s, err := Mount(root, vol, opts)
	if err != nil {
		t.Fatalf("%v (without root, fusermount3 is needed: sudo apt-get install -y fuse3)", err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Errorf("%v", err)
			lazily(t, root)
		}
	})
	return root, s
}

// lazily is the last resort against a mount that is in use.
func lazily(t *testing.T, root string) {
	err := syscall.Unmount(root, syscall.MNT_DETACH)
	if err != nil {
		err = exec.Command("fusermount3", "-u", "-z", root).Run()
	}
	t.Logf("lazy unmount of %s: %v", root, err)
}

// mountBranch mounts a fresh volume on b and returns the directory of the branch main.
func mountBranch(t *testing.T, b backend.Backend, open newVolume) string {
	t.Helper()
	root, _ := mountVolume(t, open(t, b), Options{})
	return mainBranch(t, root)
}

func mainBranch(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(root, "main")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return dir
}

// testLogger shows the log of a test that failed.
func testLogger(t *testing.T) *slog.Logger {
	log := &logBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return slogTo(log)
}

func slogTo(log *logBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Programs that run in a process of their own, since they need one (another
// user, several at once) or would deadlock in this one (mappings: a page fault
// blocks the very thread that Go's collector waits for).
var clients = map[string]func(args []string) error{
	"append":           clientAppend,
	"cat":              clientCat,
	"change as nobody": clientChangeAsNobody,
	"lock":             clientLock,
	"mmap":             clientMmap,
}

const clientVar = "KEIFS_FS_TEST_CLIENT"

func TestMain(m *testing.M) {
	name := os.Getenv(clientVar)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := clients[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// nobody is the user that programs run as who must not be root.
const nobody = 65534

func client(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector waits a second at the end of each process.
	cmd.Env = append(os.Environ(), clientVar+"="+name, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// run runs a client program to its end.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := client(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// start starts a client program; wait returns its error.
func start(t *testing.T, name string, args ...string) (wait func() error) {
	t.Helper()
	cmd := client(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s %q: %w\n%s", name, args, err, out.String())
		}
		return nil
	}
}

// becomeNobody gives up root, if the process is that.
func becomeNobody() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	return syscall.Setresuid(nobody, nobody, nobody)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustContain(t *testing.T, name, want string) {
	t.Helper()
	if got := read(t, name); got != want {
		t.Errorf("%s is %q, want %q", filepath.Base(name), shorten(got), shorten(want))
	}
}

func shorten(s string) string {
	if len(s) > 100 {
		return fmt.Sprintf("%s… (%d bytes)", s[:100], len(s))
	}
	return s
}

func stat(t *testing.T, name string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		t.Fatalf("stat %s: %v", name, err)
	}
	return st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks for one errno.
func wantErr(t *testing.T, what string, err error, want errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, error(want))
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}
