package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Exit statuses of "keifs run" for programs that cannot be run, as shells have them.
const (
	exitNotRun   = 126
	exitNotFound = 127
	exitSignal   = 128 // and the number of the signal
)

// findProgram looks whether there is a program, as far as that can be told
// before its working directory is there.
func findProgram(name string) error {
	if strings.Contains(name, "/") {
		return nil
	}
	if _, err := exec.LookPath(name); err != nil {
		return notRun(err)
	}
	return nil
}

func notRun(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fail(exitNotFound, "%w", err)
	}
	return fail(exitNotRun, "%w", err)
}

// ending is how a program ended.
type ending struct {
	name   string
	status int   // as a shell has it
	err    error // why it could not be run
	never  bool  // it did not run

	interrupted os.Signal // what asked for the end
}

func (e ending) failed() bool { return e.status != 0 || e.never }

func (e ending) String() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.interrupted != nil:
		return fmt.Sprintf("interrupted: %v", e.interrupted)
	case e.status > exitSignal:
		return unix.SignalName(unix.Signal(e.status - exitSignal))
	}
	return fmt.Sprintf("exit status %d", e.status)
}

// failure is the error of a program that failed, nil for one that did not.
func (e ending) failure(then string) error {
	if !e.failed() {
		return nil
	}
	return fail(e.status, "%s: %s; %s", e.name, e, then)
}

// runProgram runs a program in a directory, with the standard streams of this
// one, until its end. Signals are for it. One that a terminal sends reaches it
// by itself.
func runProgram(cmd *cobra.Command, dir string, args []string, signals <-chan os.Signal) ending {
	e := ending{name: args[0]}
	select {
	case sig := <-signals: // while it was prepared
		e.interrupted, e.never, e.status = sig, true, exitSignal+int(sig.(unix.Signal))
		return e
	default:
	}
	p := exec.Command(args[0], args[1:]...)
	p.Dir, p.Stdin, p.Stdout, p.Stderr = dir, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	terminal := hasTerminal()
	if err := p.Start(); err != nil {
		e.err, e.never = notRun(err), true
		e.status = exitStatus(e.err)
		return e
	}
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	for {
		select {
		case sig := <-signals:
			e.interrupted = sig
			if sig != unix.SIGINT || !terminal {
				_ = p.Process.Signal(sig) // it may have ended
			}
			continue
		case err := <-done:
			e.status = programStatus(p.ProcessState, err)
		}
		if e.status == 0 && e.interrupted != nil { // who interrupts does not want it merged
			e.status = exitSignal + int(e.interrupted.(unix.Signal))
		}
		return e
	}
}

func programStatus(state *os.ProcessState, err error) int {
	if state == nil {
		return exitFailed
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	if err != nil && state.ExitCode() == 0 { // a stream could not be copied
		return exitFailed
	}
	return state.ExitCode()
}

// hasTerminal says whether there is one that this process belongs to.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
