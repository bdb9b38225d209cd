package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsType is the type of our mounts in the mount table.
const fsType = "fuse.keifs"

// tableEntry is one line of the mount table.
type tableEntry struct {
	dir    string
	kind   string // filesystem type
	source string
	uid    int // of who mounted a FUSE filesystem
}

// mountTable reads the kernel's mount table, oldest first. It touches no
// filesystem, so that a dead or hanging mount cannot stop it.
func mountTable() ([]tableEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fail(exitSystem, "mount table: %w", err)
	}
	defer f.Close()
	return parseMountTable(f)
}

func parseMountTable(r io.Reader) ([]tableEntry, error) {
	var table []tableEntry
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// 36 35 98:0 /root /dir rw,noatime shared:1 - type source rw,user_id=0
		mount, super, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(mount), strings.Fields(super)
		if !ok || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("mount table: unexpected line %q", lines.Text())
		}
		e := tableEntry{dir: unescape(left[4]), kind: right[0], source: unescape(right[1])}
		for opt := range strings.SplitSeq(right[2], ",") {
			if id, ok := strings.CutPrefix(opt, "user_id="); ok {
				e.uid, _ = strconv.Atoi(id)
			}
		}
		table = append(table, e)
	}
	return table, lines.Err()
}

// unescape undoes the table's \040 for a space and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountedAt returns what is mounted exactly at dir; of several the topmost.
func mountedAt(dir string) (tableEntry, bool, error) {
	table, err := mountTable()
	var found tableEntry
	var ok bool
	for _, e := range table {
		if e.dir == dir {
			found, ok = e, true
		}
	}
	return found, ok, err
}

// mountContaining returns the keifs mount that a path lies in.
func mountContaining(path string) (tableEntry, bool, error) {
	table, err := mountTable()
	var found tableEntry
	for _, e := range table {
		if within(path, e.dir) && len(e.dir) >= len(found.dir) {
			found = e
		}
	}
	return found, found.kind == fsType, err
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// dead says whether the daemon behind a mount is gone. The kernel answers
// stat(2) from memory for a while, but never statfs(2).
func dead(dir string) bool {
	var st unix.Statfs_t
	return errors.Is(unix.Statfs(dir, &st), unix.ENOTCONN)
}
