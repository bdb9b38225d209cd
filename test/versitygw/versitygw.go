// Package versitygw runs a real S3 server for tests: the Versity S3 Gateway on
// a local directory, in a process of its own, on a free port of the loopback
// interface.
//
// [Shared] is one server for a whole test binary, [Start] one for a single
// test. [Server.NewBucket] gives each test a bucket; Put, Get, Head, List and
// Delete reach its objects past keifs. The server is built from the module
// proxy the first time a machine needs it.
package versitygw

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Server is a running server.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	Region    string
	AccessKey string
	SecretKey string
	Dir       string // the buckets: what lies in them are the objects

	client *s3.Client
	root   string // of everything the server has on disk
	log    string
	stdin  io.Closer // closing it ends the server
	exited chan struct{}
}

var shared struct {
	mu     sync.Mutex
	server *Server
}

// Shared returns the one server of this test binary, and starts it for the
// first caller. It ends with the binary, however that ends.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		shared.server = start(t)
	}
	shared.server.logOnFailure(t)
	return shared.server
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := start(t)
	t.Cleanup(s.stop)
	s.logOnFailure(t)
	return s
}

// supervise runs the server until its standard input ends, which it does at
// the latest when the test binary is gone: no way of ending leaves a server or
// its files behind.
const supervise = `"$@" >"$ROOT/log" 2>&1 &
pid=$!
echo $pid
read _
kill $pid 2>/dev/null
wait $pid
rm -rf -- "$ROOT"`

func start(t testing.TB) *Server {
	t.Helper()
	bin, err := binary(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "keifs-versitygw-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Region: "us-east-1", AccessKey: "test-access-key", SecretKey: "test-secret-key",
		Dir: filepath.Join(root, "data"), root: root, log: filepath.Join(root, "log"), exited: make(chan struct{}),
	}
	versions := filepath.Join(root, "versions")
	for _, dir := range []string{s.Dir, versions} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Setxattr(s.Dir, "user.keifs-test", []byte("1"), 0); err != nil {
		os.RemoveAll(root)
		t.Fatalf("the S3 server needs extended attributes, which %s does not have (%v): set TMPDIR to a directory on ext4, xfs or btrfs", os.TempDir(), err)
	}

	// Without O_TMPFILE: with it, an overwrite shows a second name for a moment.
	cmd := exec.Command("/bin/sh", "-c", supervise, "sh", bin, "--port", "127.0.0.1:0", "--keep-alive", "--region", s.Region,
		"posix", "--disableotmp", "--versioning-dir", versions, s.Dir)
	cmd.Env = append(os.Environ(), "ROOT="+root, "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	cmd.Dir = root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is ours to pass on
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		os.RemoveAll(root)
		t.Fatal(err)
	}
	s.stdin = stdin
	var pid int
	_, scanErr := fmt.Fscan(stdout, &pid)
	go func() {
		cmd.Wait()
		close(s.exited)
	}()
	if scanErr != nil {
		s.stop()
		t.Fatal(scanErr)
	}
	addr, err := listening(pid, 30*time.Second)
	if err != nil {
		out := s.tail(0)
		s.stop()
		t.Fatalf("versitygw: %v\n%s", err, out)
	}
	s.Endpoint = "http://" + addr
	s.client = s.newClient()
	return s
}

// stop ends the server and removes its files.
func (s *Server) stop() {
	s.stdin.Close()
	<-s.exited
}

// listening waits until the process listens, and returns where. The system
// chose the port, so that no two servers can want the same one.
func listening(pid int, timeout time.Duration) (string, error) {
	for deadline := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		port, err := listeningPort(pid)
		if err != nil {
			return "", fmt.Errorf("ended before it listened: %w", err)
		}
		if port != 0 {
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			conn, err := net.DialTimeout("tcp", addr, timeout)
			if err != nil {
				return "", err
			}
			return addr, conn.Close()
		}
		if time.Now().After(deadline) {
			return "", errors.New("does not listen")
		}
	}
}

// listeningPort returns the TCP port that the process listens on, 0 for none yet.
func listeningPort(pid int) (int, error) {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	if len(fds) == 0 {
		return 0, os.ErrProcessDone
	}
	sockets := map[string]bool{}
	for _, fd := range fds {
		target, _ := os.Readlink(fd) // gone again: not what we look for
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return 0, err
	}
	const listen = "0A"
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sl, local address, remote address, state, …, inode
		if len(f) < 10 || f[3] != listen || !sockets[f[9]] {
			continue
		}
		var ip, port int
		if _, err := fmt.Sscanf(f[1], "%X:%X", &ip, &port); err != nil {
			return 0, err
		}
		return port, nil
	}
	return 0, nil
}

// logOnFailure puts what the server prints from now on into the log of a test
// that fails.
func (s *Server) logOnFailure(t testing.TB) {
	var from int64
	if info, err := os.Stat(s.log); err == nil {
		from = info.Size()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("versitygw said:\n%s", s.tail(from))
		}
	})
}

// tail returns the log from there on, and of that the last 16 KiB.
func (s *Server) tail(from int64) []byte {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return []byte(err.Error())
	}
	data = data[min(from, int64(len(data))):]
	return bytes.ToValidUTF8(data[max(0, len(data)-16<<10):], []byte("?"))
}

// NewBucket makes an empty bucket that is removed at the end of the test, and
// returns its name.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text()[:12])
	s.makeBucket(t, name)
	// By the file system: the server refuses to remove one that is not empty.
	t.Cleanup(func() {
		for _, dir := range []string{s.Dir, filepath.Join(s.root, "versions")} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	})
	return name
}
