package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// report is what a daemon tells its parent, once, through a pipe.
type report struct {
	Dir    string `json:"dir,omitempty"`
	Error  string `json:"error,omitempty"` // empty: mounted
	Status int    `json:"status,omitempty"`
}

// background runs the same command again as a daemon and returns when that
// has mounted, or with the error for which it could not.
func (m *mounting) background(stdout io.Writer, args []string) error {
	_, dir, err := m.start(args)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s mounted on %s (log: %s)\n", m.url, dir, m.logPath)
	return err
}

// start is background, and returns the daemon, which is a child of this
// process, and the directory as it is in the mount table.
func (m *mounting) start(args []string) (daemon *exec.Cmd, dir string, err error) {
	logFile, err := m.openLog()
	if err != nil {
		return nil, "", err
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self, append([]string{"--ready-fd=3"}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	// What the caller has open, locks and pipes of scripts, is not for a daemon.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, "", fmt.Errorf("start the daemon: %w", err)
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, "", fmt.Errorf("start the daemon: %w", err)
	}

	// Whoever interrupts the command means the daemon, which is not in the
	// terminal's process group any more.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)
	reported := make(chan struct{})
	go func() {
		select {
		case <-signals:
			_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended
		case <-reported:
		}
	}()
	var rep report
	err = json.NewDecoder(r).Decode(&rep)
	close(reported)
	if err != nil || rep.Error != "" {
		ended := cmd.Wait()
		if rep.Error == "" {
			return nil, "", fmt.Errorf("the daemon ended before it had mounted (%w); see %s", errors.Join(err, ended), m.logPath)
		}
		return nil, "", &failure{rep.Status, errors.New(rep.Error)}
	}
	return cmd, rep.Dir, nil
}

// daemon mounts in this process, which background has started, and reports to
// it through the pipe.
func (m *mounting) daemon(pipe int) error {
	unix.CloseOnExec(pipe)
	w := os.NewFile(uintptr(pipe), "ready")
	if w == nil {
		return usageError("--ready-fd: no such descriptor")
	}
	tell := func(rep report) error {
		err := json.NewEncoder(w).Encode(rep)
		return errors.Join(err, w.Close())
	}
	if link, err := os.Readlink("/proc/self/fd/2"); err == nil {
		m.logPath = link
	}
	mounted := false
	err := m.run(os.Stderr, func() error {
		mounted = true
		return tell(report{Dir: m.dir})
	})
	if err != nil && !mounted {
		err = errors.Join(err, tell(report{Error: oneLine(err), Status: exitStatus(err)}))
	}
	return err
}

// openLog opens the log of a mount for appending; m.logPath is its path from then on.
func (m *mounting) openLog() (*os.File, error) {
	path := m.logFile
	if path == "" {
		abs, err := filepath.Abs(m.dir)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(stateHome(), "keifs", filepath.Base(abs)+"-"+shortName(abs)[:6]+".log")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fail(exitSystem, "log: %w", err)
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fail(exitSystem, "log: %w", err)
	}
	m.logPath = path
	return f, nil
}
