package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMissingPartsOfTheMachineAreNamed(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "fuse")
	writeFile(t, device, "")
	conf := filepath.Join(dir, "fuse.conf")
	writeFile(t, conf, "# user_allow_other\n")
	allowing := filepath.Join(dir, "allowing.conf")
	writeFile(t, allowing, "user_allow_other\n")
	nowhere := func(string) (string, error) { return "", os.ErrNotExist }
	everywhere := func(name string) (string, error) { return "/usr/bin/" + name, nil }
	for _, c := range []struct {
		name       string
		system     system
		allowOther bool
		want       string // empty: nothing is missing
	}{
		{"no /dev/fuse", system{0, filepath.Join(dir, "none"), conf, everywhere}, false, "modprobe fuse"},
		{"a user without fusermount3", system{1000, device, conf, nowhere}, false, "Debian's package fuse3"},
		{"root needs none", system{0, device, conf, nowhere}, true, ""},
		{"a user with fusermount3", system{1000, device, conf, everywhere}, false, ""},
		{"a user who may not allow others", system{1000, device, conf, everywhere}, true, "user_allow_other in " + conf},
		{"no fuse.conf", system{1000, device, filepath.Join(dir, "none"), everywhere}, true, "user_allow_other"},
		{"a user who may", system{1000, device, allowing, everywhere}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.system.check(c.allowOther)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || exitStatus(err) != exitSystem):
				t.Fatalf("%v (status %d), want %q", err, exitStatus(err), c.want)
			}
		})
	}
}

func TestMountTable(t *testing.T) {
	table, err := parseMountTable(strings.NewReader(`36 35 98:0 / / rw,noatime shared:1 master:2 - ext4 /dev/root rw,errors=continue
60 36 0:52 / /home/me/my\040bucket rw,nosuid,nodev,relatime - fuse.keifs s3://b/p rw,user_id=1000,group_id=1000,allow_other
`))
	want := []tableEntry{
		{dir: "/", kind: "ext4", source: "/dev/root"},
		{dir: "/home/me/my bucket", kind: "fuse.keifs", source: "s3://b/p", uid: 1000},
	}
	if err != nil || len(table) != 2 || table[0] != want[0] || table[1] != want[1] {
		t.Fatalf("%+v, %v", table, err)
	}
	for path, in := range map[string]bool{"/a/b": true, "/a/b/c": true, "/a/bc": false, "/a": false, "/a/..b": false, "/a/b/..c": true} {
		if within(path, "/a/b") != in {
			t.Errorf("within(%s): %v", path, !in)
		}
	}
}

// TestNobodyElseControlsAMount: a folder for control sockets that others can
// write to is not used.
func TestNobodyElseControlsAMount(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	folder, err := runtimeDir()
	if err != nil || folder != filepath.Join(dir, "keifs") {
		t.Fatalf("%s, %v", folder, err)
	}
	if err := os.Chmod(folder, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := runtimeDir(); err == nil || exitStatus(err) != exitSystem {
		t.Fatalf("a folder that the group can write to is taken: %v", err)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, folder); err != nil {
		t.Fatal(err)
	}
	if _, err := runtimeDir(); err == nil {
		t.Fatal("a symbolic link is taken for the folder")
	}
	if err := checkPrivate(elsewhere, os.Geteuid()+1); err == nil {
		t.Fatal("a folder of another user is taken")
	}
}

// TestOneDaemonADirectory: a control socket that somebody listens on is not
// taken over; one that a killed daemon left is.
func TestOneDaemonADirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	first, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(path); err == nil || exitStatus(err) != exitDir {
		t.Fatalf("the socket of a living daemon is taken over: %v", err)
	}
	first.SetUnlinkOnClose(false) // as after SIGKILL
	first.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
	second, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
