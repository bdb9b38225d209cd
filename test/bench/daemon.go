package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Command is the keifs command with the environment of one machine.
type Command struct {
	Path string
	Env  []string // beside that of this process
}

// run runs the command; what it printed is in the error.
func (k *Command) run(args ...string) ([]byte, error) {
	cmd := exec.Command(k.Path, args...)
	cmd.Env = append(os.Environ(), k.Env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("keifs %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// Daemon is a mount and the process behind it.
type Daemon struct {
	command *Command
	dir     string
	pid     int
}

// mount mounts a store on dir.
func (k *Command) mount(store, dir string, flags ...string) (*Daemon, error) {
	if _, err := k.run(append([]string{"mount", store, dir}, flags...)...); err != nil {
		return nil, err
	}
	d := &Daemon{command: k, dir: dir}
	out, err := k.run("status", "--json", dir)
	var status struct{ Mounts []struct{ PID int } }
	if err == nil {
		err = json.Unmarshal(out, &status)
	}
	if err == nil && len(status.Mounts) != 1 {
		err = fmt.Errorf("keifs status: %d mounts at %s", len(status.Mounts), dir)
	}
	if err != nil {
		_, _ = k.run("umount", dir) // the first error counts
		return nil, err
	}
	d.pid = status.Mounts[0].PID
	return d, nil
}

func (d *Daemon) umount() error {
	_, err := d.command.run("umount", d.dir)
	return err
}

// Cost is what a process has used.
type Cost struct {
	CPU  time.Duration // user and system
	Peak int64         // resident bytes at most, since it started
}

// clockTick is the unit of the times in /proc/PID/stat.
const clockTick = 10 * time.Millisecond

// costOf is the cost of a process up to now.
func costOf(pid int) (Cost, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return Cost{}, err
	}
	// The fields behind the name, which may have anything in it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 11, 12
	var ticks int64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return Cost{}, err
		}
		ticks += n
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return Cost{}, err
	}
	var peak int64
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &peak); err != nil {
				return Cost{}, err
			}
		}
	}
	return Cost{time.Duration(ticks) * clockTick, peak << 10}, nil
}
