// Package server runs real servers for tests, each in a process of its own, on
// a free port of the loopback interface: it installs a [Program] the first
// time a machine needs it, starts it, and ends it. A package a server beside
// this one (versitygw, minio, fakegcs, …) says which and how.
package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is a running server.
type Process struct {
	Addr string // 127.0.0.1:PORT
	Root string // the folder of all it has on disk; it ends with the server

	name   string
	log    string
	stdin  io.Closer // closing it ends the server
	exited chan struct{}
}

// Command is how a program is started.
type Command struct {
	Args []string
	Env  []string // beside that of the tests
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

// Start starts a server, which has to listen on port 0 of 127.0.0.1. command
// says how, for its folder, which is new. The server runs until Stop, or until
// the test binary ends.
func Start(t testing.TB, program Program, command func(root string) (Command, error)) *Process {
	t.Helper()
	bin, err := program.path(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "keifs-"+program.Name+"-")
	if err != nil {
		t.Fatal(err)
	}
	c, err := command(root)
	if err != nil {
		os.RemoveAll(root)
		t.Fatal(err)
	}
	p := &Process{Root: root, name: program.Name, log: filepath.Join(root, "log"), exited: make(chan struct{})}
	cmd := exec.Command("/bin/sh", append([]string{"-c", supervise, "sh", bin}, c.Args...)...)
	cmd.Env = append(append(os.Environ(), "ROOT="+root), c.Env...)
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
	p.stdin = stdin
	var pid int
	_, scanErr := fmt.Fscan(stdout, &pid)
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	if scanErr != nil {
		p.Stop()
		t.Fatal(scanErr)
	}
	if p.Addr, err = listening(pid, time.Minute); err != nil {
		out := p.tail(0)
		p.Stop()
		t.Fatalf("%s: %v\n%s", p.name, err, out)
	}
	return p
}

// WaitFor waits until the server answers an address with success: for those
// that listen before they can work.
func (p *Process) WaitFor(t testing.TB, path string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + p.Addr + path)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode/100 == 2 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v\n%s", p.name, err, p.tail(0))
		}
	}
}

// Stop ends the server and removes its files.
func (p *Process) Stop() {
	p.stdin.Close()
	<-p.exited
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

// LogOnFailure puts what the server prints from now on into the log of a test
// that fails.
func (p *Process) LogOnFailure(t testing.TB) {
	var from int64
	if info, err := os.Stat(p.log); err == nil {
		from = info.Size()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.tail(from))
		}
	})
}

// tail returns the log from there on, and of that the last 16 KiB.
func (p *Process) tail(from int64) []byte {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	data = data[min(from, int64(len(data))):]
	return bytes.ToValidUTF8(data[max(0, len(data)-16<<10):], []byte("?"))
}
