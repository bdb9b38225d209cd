package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAttributesAreThereAgainAfterARemount(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		old := time.Date(1901, 2, 3, 4, 5, 6, 700_000_000, time.UTC)
		uid, gid := os.Getuid(), os.Getgid()
		if uid == 0 {
			uid, gid = 1234, 2345
		}
		t.Run("set", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			p := func(name string) string { return filepath.Join(dir, name) }
			write(t, p("file"), "content")
			must(t, os.Chmod(p("file"), 0o640))
			must(t, os.Chown(p("file"), uid, gid))
			must(t, unix.Setxattr(p("file"), "user.color", []byte("blue"), 0))
			must(t, os.Chtimes(p("file"), old, old))
			must(t, os.Mkdir(p("dir"), 0o700))
			must(t, os.Chown(p("dir"), uid, gid))
			must(t, unix.Setxattr(p("dir"), "user.empty", nil, 0))
			must(t, os.Chtimes(p("dir"), old, old))
			must(t, os.Symlink("some/target", p("link")))
			must(t, os.Lchown(p("link"), uid, gid))
			must(t, unix.Mkfifo(p("fifo"), 0o620))
			must(t, os.Chmod(p("fifo"), 0o602))
		})
		t.Run("see", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			p := func(name string) string { return filepath.Join(dir, name) }
			for _, c := range []struct {
				name  string
				mode  uint32
				owned bool
				timed bool
			}{
				{"file", unix.S_IFREG | 0o640, true, true},
				{"dir", unix.S_IFDIR | 0o700, true, true},
				{"link", unix.S_IFLNK | 0o777, true, false},
				{"fifo", unix.S_IFIFO | 0o602, false, false},
			} {
				st := stat(t, p(c.name))
				if st.Mode != c.mode {
					t.Errorf("%s: mode %o, want %o", c.name, st.Mode, c.mode)
				}
				if c.owned && (st.Uid != uint32(uid) || st.Gid != uint32(gid)) {
					t.Errorf("%s: owner %d:%d, want %d:%d", c.name, st.Uid, st.Gid, uid, gid)
				}
				if mtime := time.Unix(st.Mtim.Unix()); c.timed && !mtime.Equal(old) {
					t.Errorf("%s: modified %v, want %v", c.name, mtime.UTC(), old)
				}
				if st.Nlink != 1 {
					t.Errorf("%s: %d links, want 1", c.name, st.Nlink)
				}
			}
			if target, err := os.Readlink(p("link")); target != "some/target" {
				t.Errorf("link to %q, %v", target, err)
			}
			buf := make([]byte, 100)
			if n, err := unix.Getxattr(p("file"), "user.color", buf); err != nil || string(buf[:n]) != "blue" {
				t.Errorf("xattr of the file: %q, %v", buf[:max(n, 0)], err)
			}
			if n, err := unix.Getxattr(p("dir"), "user.empty", buf); err != nil || n != 0 {
				t.Errorf("xattr of the directory: %d bytes, %v", n, err)
			}
			mustContain(t, p("file"), "content")
		})
	})
}

func TestTimesCanBeSetNowOrLeftAlone(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, "")
		old := unix.Timespec{Sec: -1000, Nsec: 5}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{old, old}, 0))
		st := stat(t, name)
		if st.Mtim.Sec != -1000 || st.Mtim.Nsec != 5 || st.Atim.Sec != -1000 {
			t.Errorf("times before 1970: %+v %+v", st.Atim, st.Mtim)
		}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, 0))
		st = stat(t, name)
		if now := time.Now().Unix(); st.Mtim.Sec < now-60 || st.Mtim.Sec > now || st.Atim.Sec != -1000 {
			t.Errorf("after UTIME_NOW and UTIME_OMIT: %+v %+v", st.Atim, st.Mtim)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteString("content")
		must(t, err)
		must(t, unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 42}, {Sec: 43}})) // as tar and cp do
		must(t, f.Close())
		if st := stat(t, name); st.Mtim.Sec != 43 || st.Size != 7 {
			t.Errorf("set before close: %+v, size %d", st.Mtim, st.Size)
		}
	})
}

func TestAWriteChangesTheTimes(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		name := filepath.Join(dir, "file")
		write(t, name, "old")
		long := time.Unix(1000, 0)
		must(t, os.Chtimes(name, long, long))
		before := time.Now().Add(-time.Second)
		write(t, name, "new")
		st := stat(t, name)
		if time.Unix(st.Mtim.Unix()).Before(before) || time.Unix(st.Ctim.Unix()).Before(before) {
			t.Errorf("modified %v, changed %v", time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix()))
		}
	})
}

func TestExtendedAttributesKeepTheirRules(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		name := filepath.Join(mountBranch(t, bucket(), open), "file")
		write(t, name, "content")
		buf := make([]byte, 1000)
		_, err := unix.Getxattr(name, "user.none", buf)
		wantErr(t, "get of none", err, unix.ENODATA)
		wantErr(t, "replace of none", unix.Setxattr(name, "user.a", []byte("1"), unix.XATTR_REPLACE), unix.ENODATA)
		must(t, unix.Setxattr(name, "user.a", []byte("one"), unix.XATTR_CREATE))
		wantErr(t, "create again", unix.Setxattr(name, "user.a", []byte("2"), unix.XATTR_CREATE), unix.EEXIST)
		must(t, unix.Setxattr(name, "user.b", []byte("\x00binary\xff"), 0))
		n, err := unix.Listxattr(name, buf)
		must(t, err)
		if got := string(buf[:n]); got != "user.a\x00user.b\x00" {
			t.Errorf("list: %q", got)
		}
		if size, err := unix.Listxattr(name, nil); err != nil || size != n {
			t.Errorf("size of the list: %d, %v, want %d", size, err, n)
		}
		_, err = unix.Listxattr(name, buf[:5])
		wantErr(t, "list into too little", err, unix.ERANGE)
		_, err = unix.Getxattr(name, "user.b", buf[:3])
		wantErr(t, "get into too little", err, unix.ERANGE)
		if n, err := unix.Getxattr(name, "user.b", buf); err != nil || string(buf[:n]) != "\x00binary\xff" {
			t.Errorf("get: %q, %v", buf[:max(n, 0)], err)
		}
		must(t, unix.Removexattr(name, "user.a"))
		wantErr(t, "remove again", unix.Removexattr(name, "user.a"), unix.ENODATA)
		wantErr(t, "more than a store takes", unix.Setxattr(name, "user.big", make([]byte, 10_000), 0), unix.ENOSPC)
		mustContain(t, name, "content")

		_, err = unix.Getxattr(name, "security.selinux", buf)
		wantErr(t, "get of a security label", err, unix.ENOTSUP)
		_, err = unix.Getxattr(name, "system.posix_acl_access", buf)
		wantErr(t, "get of an ACL", err, unix.ENOTSUP)
		if os.Geteuid() == 0 {
			wantErr(t, "set of a trusted attribute", unix.Setxattr(name, "trusted.x", []byte("1"), 0), unix.ENOTSUP)
		}
	})
}

func clientChangeAsNobody(args []string) error {
	if err := becomeNobody(); err != nil {
		return err
	}
	switch args[0] {
	case "write":
		f, err := os.OpenFile(args[1], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("x"); err != nil {
			return err
		}
		return f.Close()
	case "truncate":
		return os.Truncate(args[1], 1)
	case "open to truncate":
		f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		return f.Close()
	case "chgrp":
		return os.Chown(args[1], -1, os.Getgid())
	}
	return fmt.Errorf("%s: no such change", args[0])
}

func TestSetUIDFallsWithAChange(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		root, _ := mountVolume(t, open(t, bucket()), Options{AllowOther: os.Geteuid() == 0, MountOptions: []string{"suid"}})
		name := filepath.Join(mainBranch(t, root), "file")
		uid := os.Geteuid()
		if uid == 0 {
			uid = nobody
		}
		for _, change := range []string{"write", "truncate", "open to truncate", "chgrp"} {
			for _, c := range []struct{ before, after uint32 }{
				{0o6777, 0o777},
				{0o2767, 0o2767}, // not executable by the group: no privilege
				{0o4755, 0o755},
			} {
				if change == "chgrp" && c.before == 0o2767 {
					continue
				}
				write(t, name, "content")
				must(t, os.Chown(name, uid, -1))
				must(t, syscall.Chmod(name, c.before))
				if st := stat(t, name); st.Mode&0o7777 != c.before {
					t.Fatalf("chmod %o made %o", c.before, st.Mode)
				}
				run(t, "change as nobody", change, name)
				if st := stat(t, name); st.Mode&0o7777 != c.after {
					t.Errorf("%s: %o became %o, want %o", change, c.before, st.Mode&0o7777, c.after)
				}
			}
			must(t, os.Remove(name))
		}
		for _, kind := range []uint32{syscall.S_IFIFO, syscall.S_IFSOCK} {
			must(t, syscall.Mknod(name, kind|0o600, 0))
			must(t, os.Chown(name, uid, -1))
			must(t, syscall.Chmod(name, 0o6555))
			run(t, "change as nobody", "chgrp", name)
			if mode := stat(t, name).Mode; mode != kind|0o555 {
				t.Errorf("chgrp: %o became %o", kind|0o6555, mode)
			}
			must(t, os.Remove(name))
		}
	})
}

// TestTheRootIsAsOldAsTheMount: no object says when it changed.
func TestTheRootIsAsOldAsTheMount(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		before := time.Now()
		root, _ := mountVolume(t, open(t, bucket()), Options{})
		first := modTime(t, root)
		if first.Before(before) || first.After(time.Now()) {
			t.Errorf("mounted at %v, changed at %v", before, first)
		}
		mainBranch(t, root)
		if again := modTime(t, root); again != first {
			t.Errorf("changed at %v, then at %v", first, again)
		}
	})
}

func modTime(t *testing.T, name string) time.Time {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	return info.ModTime()
}

func TestASetGIDDirectoryPassesOnItsGroup(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		gid := 4321
		if os.Geteuid() != 0 { // only to a group of one's own
			groups, err := os.Getgroups()
			must(t, err)
			gid = append(groups, os.Getgid())[0]
		}
		dir := filepath.Join(mountBranch(t, bucket(), open), "dir")
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.Chown(dir, -1, gid))
		must(t, syscall.Chmod(dir, 0o2775))
		write(t, filepath.Join(dir, "file"), "")
		must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
		must(t, os.Symlink("x", filepath.Join(dir, "link")))
		for _, name := range []string{"file", "sub", "link"} {
			st := stat(t, filepath.Join(dir, name))
			if st.Gid != uint32(gid) {
				t.Errorf("%s: group %d, want %d", name, st.Gid, gid)
			}
			if got := st.Mode&0o2000 != 0; got != (name == "sub") {
				t.Errorf("%s: mode %o", name, st.Mode)
			}
		}
	})
}

func TestPermissionsAreChecked(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		root, _ := mountVolume(t, open(t, bucket()), Options{AllowOther: os.Geteuid() == 0})
		name := filepath.Join(mainBranch(t, root), "file")
		write(t, name, "content")
		must(t, os.Chmod(name, 0o400))
		out, err := client("change as nobody", "write", name).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "permission denied") {
			t.Errorf("written without permission: %v, %s", err, out)
		}
		mustContain(t, name, "content")
	})
}
