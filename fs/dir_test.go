package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
)

func TestADirectoryOfTenThousandEntriesListsEachNameOnce(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		for i := range 10_000 {
			_, err := b.Put(t.Context(), fmt.Sprintf("main/dir/file%05d", i), backend.Bytes(nil), backend.PutOptions{})
			must(t, err)
		}
		dir := filepath.Join(mountBranch(t, b, open), "dir")
		f, err := os.Open(dir)
		must(t, err)
		defer f.Close()
		// What changes while it is read neither repeats nor hides a name.
		first, err := f.Readdirnames(5000)
		must(t, err)
		must(t, os.Remove(filepath.Join(dir, "file00000")))
		write(t, filepath.Join(dir, "a new name"), "")
		second, err := f.Readdirnames(-1)
		must(t, err)
		list := slices.Concat(first, second)
		slices.Sort(list)
		if len(list) != 10_000 || len(slices.Compact(list)) != 10_000 || list[0] != "file00000" || list[9999] != "file09999" {
			t.Errorf("%d names, from %s to %s", len(list), list[0], list[len(list)-1])
		}
		// A rewind shows the change.
		_, err = f.Seek(0, 0)
		must(t, err)
		again, err := f.Readdirnames(-1)
		must(t, err)
		if len(again) != 10_000 || slices.Contains(again, "file00000") || !slices.Contains(again, "a new name") {
			t.Errorf("after a rewind: %d names", len(again))
		}
	})
}

func TestRemovingWhileReadingRemovesAll(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := filepath.Join(mountBranch(t, bucket(), open), "dir")
		must(t, os.Mkdir(dir, 0o755))
		for i := range 300 {
			write(t, filepath.Join(dir, fmt.Sprint(i)), "")
		}
		f, err := os.Open(dir)
		must(t, err)
		defer f.Close()
		for {
			list, _ := f.Readdirnames(10)
			if len(list) == 0 {
				break
			}
			for _, name := range list {
				must(t, os.Remove(filepath.Join(dir, name)))
			}
		}
		must(t, os.Remove(dir))
	})
}

func TestAListingShowsTypesThatAreTrue(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		t.Run("write", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
			must(t, os.Symlink("dir", filepath.Join(dir, "link")))
			must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
			write(t, filepath.Join(dir, "small"), "content")
			write(t, filepath.Join(dir, "large"), strings.Repeat("content", 1000))
		})
		t.Run("list", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			want := map[string]uint8{
				".": unix.DT_DIR, "..": unix.DT_DIR,
				"dir": unix.DT_DIR, "link": unix.DT_LNK, "fifo": unix.DT_FIFO, "small": unix.DT_REG, "large": unix.DT_REG,
			}
			got := dirents(t, dir)
			if len(got) != len(want) {
				t.Errorf("listed: %v", got)
			}
			for name, e := range got {
				stat(t, filepath.Join(dir, name)) // and so it is known the second time
				if e.kind != want[name] && e.kind != unix.DT_UNKNOWN {
					t.Errorf("%s is listed as type %d, want %d", name, e.kind, want[name])
				}
			}
			for name, e := range dirents(t, dir) {
				if e.kind != want[name] {
					t.Errorf("%s, which was looked at, is listed as type %d, want %d", name, e.kind, want[name])
				}
			}
		})
	})
}

type dirent struct {
	ino  uint64
	kind uint8
}

// dirents reads the raw entries of a directory.
func dirents(t *testing.T, dir string) map[string]dirent {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	list := map[string]dirent{}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return list
		}
		for rest := buf[:n]; len(rest) > 0; {
			length := int(rest[16]) | int(rest[17])<<8
			var ino uint64
			for i := range 8 {
				ino |= uint64(rest[i]) << (8 * i)
			}
			name, _, _ := strings.Cut(string(rest[19:length]), "\x00")
			list[name] = dirent{ino, rest[18]}
			rest = rest[length:]
		}
	}
}

func TestInodeNumbersAreStableAndTheSameInListings(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		before := map[string]uint64{}
		t.Run("made", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
			for _, name := range []string{"a", "b", "sub/c"} {
				write(t, filepath.Join(dir, name), name)
			}
			for _, name := range []string{"a", "b", "sub", "sub/c"} {
				before[name] = stat(t, filepath.Join(dir, name)).Ino
			}
		})
		t.Run("after a remount", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			list := dirents(t, dir) // first: nothing was looked up yet
			for name, ino := range before {
				if got := stat(t, filepath.Join(dir, name)).Ino; got != ino {
					t.Errorf("%s has number %d, had %d", name, got, ino)
				}
				if listed, ok := list[name]; ok && listed.ino != ino {
					t.Errorf("%s is listed with number %d, has %d", name, listed.ino, ino)
				}
			}
			if list["."].ino != stat(t, dir).Ino || list[".."].ino != stat(t, filepath.Dir(dir)).Ino {
				t.Errorf(". and .. are listed as %d and %d", list["."].ino, list[".."].ino)
			}
		})
		t.Run("after a rename", func(t *testing.T) {
			dir := mountBranch(t, b, open)
			number := stat(t, filepath.Join(dir, "a")).Ino
			must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "renamed")))
			write(t, filepath.Join(dir, "a"), "another")
			if got := stat(t, filepath.Join(dir, "renamed")).Ino; got != number {
				t.Errorf("the number changed with the name: %d, was %d", got, number)
			}
			if got := stat(t, filepath.Join(dir, "a")).Ino; got == number {
				t.Error("two files share a number")
			}
			for name, e := range dirents(t, dir) {
				if got := stat(t, filepath.Join(dir, name)).Ino; got != e.ino {
					t.Errorf("%s is listed with %d, has %d", name, e.ino, got)
				}
			}
		})
	})
}

func TestDirectoriesAreMadeAndRemoved(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		sub := filepath.Join(dir, "sub")
		must(t, os.Mkdir(sub, 0o755))
		wantErr(t, "mkdir again", os.Mkdir(sub, 0o755), unix.EEXIST)
		write(t, filepath.Join(sub, "file"), "")
		wantErr(t, "rmdir of a full directory", unix.Rmdir(sub), unix.ENOTEMPTY)
		wantErr(t, "unlink of a directory", unix.Unlink(sub), unix.EISDIR)
		wantErr(t, "rmdir of a file", unix.Rmdir(filepath.Join(sub, "file")), unix.ENOTDIR)
		wantErr(t, "mkdir below a file", os.Mkdir(filepath.Join(sub, "file", "x"), 0o755), unix.ENOTDIR)
		must(t, os.Remove(filepath.Join(sub, "file")))
		must(t, os.Remove(sub))
		if _, err := os.Lstat(sub); !os.IsNotExist(err) {
			t.Errorf("after rmdir: %v", err)
		}
		must(t, os.Mkdir(sub, 0o755)) // the name is free again
	})
}

func TestARemovedDirectoryThatIsOpenIsEmpty(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		sub := filepath.Join(mountBranch(t, bucket(), open), "sub")
		must(t, os.Mkdir(sub, 0o755))
		fd, err := unix.Open(sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, os.Remove(sub))
		must(t, os.Mkdir(sub, 0o755))
		write(t, filepath.Join(sub, "other"), "")
		if _, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY, 0o644); err != unix.ENOENT && err != unix.ESTALE {
			t.Errorf("create in a removed directory: %v", err)
		}
		must(t, unix.Fsync(fd))
		if got := names(t, sub); got != "other" {
			t.Errorf("the new directory of that name has %q", got)
		}
	})
}

func TestABranchIsADirectoryOfTheRoot(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		for _, key := range []string{"main/file", "readme.txt"} {
			_, err := b.Put(t.Context(), key, backend.Bytes([]byte("content")), backend.PutOptions{})
			must(t, err)
		}
		root, _ := mountVolume(t, open(t, b), Options{})
		dev := filepath.Join(root, "dev")
		must(t, os.Mkdir(dev, 0o755))
		if got := names(t, root); got != "dev main readme.txt" {
			t.Errorf("the root has %q", got)
		}
		write(t, filepath.Join(dev, "file"), "in dev")
		mustContain(t, filepath.Join(root, "main", "file"), "content")
		mustContain(t, filepath.Join(root, "readme.txt"), "content")

		wantErr(t, "write beside the branches", os.WriteFile(filepath.Join(root, "new"), nil, 0o644), unix.EPERM)
		wantErr(t, "open for writing beside the branches", os.WriteFile(filepath.Join(root, "readme.txt"), nil, 0o644), unix.EPERM)
		wantErr(t, "rename of a branch", os.Rename(dev, filepath.Join(root, "other")), unix.EPERM)
		wantErr(t, "rename between branches", os.Rename(filepath.Join(dev, "file"), filepath.Join(root, "main", "moved")), unix.EXDEV)
		wantErr(t, "rmdir of a branch with files", unix.Rmdir(dev), unix.ENOTEMPTY)
		must(t, os.Remove(filepath.Join(dev, "file")))
		must(t, os.Remove(dev))
		if got := names(t, root); got != "main readme.txt" {
			t.Errorf("the root has %q", got)
		}
		if _, err := os.Lstat(filepath.Join(root, ".kei")); !os.IsNotExist(err) {
			t.Errorf("the reserved prefix: %v", err)
		}
	})
}

func TestNamesUpTo255BytesOfAnyKindWork(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		for _, name := range []string{
			strings.Repeat("n", 255), strings.Repeat("ü", 127), "\xff\xfe not UTF-8", "a b\nc\td", " ", "...", "-rf", "a%2Fb", "ends with a dot.", "%", "+&=?#",
		} {
			path := dir + "/" + name
			write(t, path, name)
			mustContain(t, path, name)
			if got := names(t, dir); got != name {
				t.Errorf("%q is listed as %q", name, got)
			}
			must(t, os.Rename(path, dir+"/moved"))
			must(t, os.Rename(dir+"/moved", path))
			must(t, os.Remove(path))
		}
		wantErr(t, "256 bytes", os.WriteFile(filepath.Join(dir, strings.Repeat("n", 256)), nil, 0o644), unix.ENAMETOOLONG)
		_, err := os.Lstat(filepath.Join(dir, strings.Repeat("n", 256)))
		wantErr(t, "lookup of 256 bytes", err, unix.ENAMETOOLONG)
	})
}

func TestAPathThatCanNeverBeStoredIsRefusedAtOnce(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		part := strings.Repeat("p", 200)
		var err error
		for range 6 {
			dir = filepath.Join(dir, part)
			if err = os.Mkdir(dir, 0o755); err != nil {
				break
			}
		}
		wantErr(t, "a path over 1,024 bytes", err, unix.ENAMETOOLONG)
	})
}

func TestRenameReplacesExchangesOrRefuses(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		p := func(name string) string { return filepath.Join(dir, name) }
		rename2 := func(from, to string, flags uint) error {
			return unix.Renameat2(unix.AT_FDCWD, p(from), unix.AT_FDCWD, p(to), flags)
		}
		write(t, p("a"), "a")
		write(t, p("b"), "b")
		wantErr(t, "NOREPLACE onto a file", rename2("a", "b", unix.RENAME_NOREPLACE), unix.EEXIST)
		must(t, rename2("a", "c", unix.RENAME_NOREPLACE))
		mustContain(t, p("c"), "a")
		must(t, rename2("b", "c", unix.RENAME_EXCHANGE))
		mustContain(t, p("b"), "a")
		mustContain(t, p("c"), "b")
		must(t, rename2("b", "c", 0))
		mustContain(t, p("c"), "a")
		if got := names(t, dir); got != "c" {
			t.Errorf("the directory has %q", got)
		}

		must(t, os.MkdirAll(p("d/sub"), 0o755))
		must(t, os.Mkdir(p("empty"), 0o755))
		wantErr(t, "a directory into itself", rename2("d", "d/sub/x", 0), unix.EINVAL)
		wantErr(t, "a file onto a directory", rename2("c", "d", 0), unix.EISDIR)
		wantErr(t, "a directory onto a file", rename2("d", "c", 0), unix.ENOTDIR)
		wantErr(t, "onto a full directory", rename2("empty", "d", 0), unix.ENOTEMPTY)
		wantErr(t, "what is not there", rename2("none", "x", 0), unix.ENOENT)
		must(t, rename2("d", "empty", 0))
		if got := names(t, dir) + "; " + names(t, p("empty")); got != "c empty; sub" {
			t.Errorf("the directories have %q", got)
		}
		wantErr(t, "WHITEOUT", rename2("c", "w", unix.RENAME_WHITEOUT), unix.EINVAL)
	})
}

func TestARenamedDirectoryTakesEverythingAlong(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		must(t, os.MkdirAll(filepath.Join(dir, "old/sub"), 0o755))
		for i := range 50 {
			write(t, filepath.Join(dir, "old/sub", fmt.Sprint(i)), fmt.Sprint("content ", i))
		}
		f, err := os.OpenFile(filepath.Join(dir, "old/sub/1"), os.O_RDWR|os.O_APPEND, 0)
		must(t, err)
		at, err := unix.Open(filepath.Join(dir, "old/sub"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(at)

		must(t, os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "new")))
		// Open files and directories follow.
		_, err = f.WriteString(", and more")
		must(t, err)
		must(t, f.Close())
		fd, err := unix.Openat(at, "made", unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(t, err)
		must(t, unix.Close(fd))

		for i := range 50 {
			want := fmt.Sprint("content ", i)
			if i == 1 {
				want += ", and more"
			}
			mustContain(t, filepath.Join(dir, "new/sub", fmt.Sprint(i)), want)
		}
		mustContain(t, filepath.Join(dir, "new/sub/made"), "")
		if got := names(t, dir); got != "new" {
			t.Errorf("the directory has %q", got)
		}
	})
}

// TestNothingIsMissedWhileADirectoryIsRenamed works in a directory by its
// descriptor, whose path changes all the time.
func TestNothingIsMissedWhileADirectoryIsRenamed(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		must(t, os.MkdirAll(filepath.Join(dir, "a/sub"), 0o755))
		at, err := unix.Open(filepath.Join(dir, "a/sub"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		defer unix.Close(at)
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := range 40 {
					name := fmt.Sprintf("%d-%d", w, i)
					fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
					if err != nil {
						t.Errorf("create %s: %v", name, err)
						return
					}
					if _, err := unix.Write(fd, []byte(name)); err != nil {
						t.Errorf("write %s: %v", name, err)
					}
					if err := unix.Close(fd); err != nil {
						t.Errorf("close %s: %v", name, err)
					}
					var st unix.Stat_t
					if err := unix.Fstatat(at, name, &st, 0); err != nil || st.Size != int64(len(name)) {
						t.Errorf("stat %s: size %d, %v", name, st.Size, err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		from, to := "a", "b"
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
				must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
				from, to = to, from
			}
		}
		sub := filepath.Join(dir, from, "sub")
		for w := range 3 {
			for i := range 40 {
				mustContain(t, filepath.Join(sub, fmt.Sprintf("%d-%d", w, i)), fmt.Sprintf("%d-%d", w, i))
			}
		}
		if got := names(t, dir); got != from {
			t.Errorf("the branch has %q", got)
		}
	})
}

func TestDirectoriesCanBeSynced(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		dir := mountBranch(t, b, open)
		f, err := os.Create(filepath.Join(dir, "file"))
		must(t, err)
		defer f.Close()
		_, err = f.WriteString("content")
		must(t, err)
		d, err := os.Open(dir)
		must(t, err)
		defer d.Close()
		must(t, d.Sync())
		// The name is in the bucket, though the file is still open.
		if _, err := b.Stat(t.Context(), "main/file"); err != nil {
			t.Errorf("after fsync of the directory: %v", err)
		}
	})
}

func TestHardLinksAndDevicesAreRefused(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		dir := mountBranch(t, bucket(), open)
		write(t, filepath.Join(dir, "file"), "content")
		wantErr(t, "link", os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "link")), unix.EPERM)
		wantErr(t, "mknod of a device", unix.Mknod(filepath.Join(dir, "dev"), unix.S_IFCHR|0o644, 0x103), unix.EPERM)
		must(t, unix.Mknod(filepath.Join(dir, "regular"), unix.S_IFREG|0o640, 0))
		if st := stat(t, filepath.Join(dir, "regular")); st.Mode != unix.S_IFREG|0o640 || st.Size != 0 {
			t.Errorf("mknod made mode %o size %d", st.Mode, st.Size)
		}
		if got := names(t, dir); got != "file regular" {
			t.Errorf("the directory has %q", got)
		}
	})
}

func TestTheMountTableShowsTheStore(t *testing.T) {
	root, _ := mountVolume(t, direct(t, bucket()), Options{Source: "s3://bucket/some prefix"})
	table, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if want := `s3://bucket/some\040prefix ` + root + " fuse.keifs rw"; !strings.Contains(string(table), want) {
		t.Errorf("no line %q in\n%s", want, table)
	}
	var st syscall.Statfs_t
	must(t, syscall.Statfs(root, &st))
	if free := st.Bavail * uint64(st.Bsize); free < 1<<50 || st.Namelen != 255 || st.Ffree == 0 {
		t.Errorf("statfs: %d bytes free, names of %d bytes, %d files free", free, st.Namelen, st.Ffree)
	}
}

func TestMountOptionsAreUnderstood(t *testing.T) {
	unsafe := "" // what fusermount3 takes from nobody but root, and ignores
	if os.Geteuid() != 0 {
		unsafe = "nosuid,nodev,"
	}
	for _, c := range []struct {
		opts Options
		want string // after "rw," or "ro,"
	}{
		{Options{}, "rw,nosuid,nodev,relatime,"},
		{Options{ReadOnly: true}, "ro,nosuid,nodev,relatime,"},
		{Options{MountOptions: []string{"noatime", "noexec", "rw", "dev", "suid", "_netdev", "x-systemd.automount", "defaults"}}, "rw," + unsafe + "noexec,noatime,"},
		{Options{MountOptions: []string{"ro", "default_permissions"}}, "ro,nosuid,nodev,relatime,"},
	} {
		root, _ := mountVolume(t, direct(t, bucket()), c.opts)
		table, err := os.ReadFile("/proc/self/mounts")
		must(t, err)
		if want := "keifs " + root + " fuse.keifs " + c.want; !strings.Contains(string(table), want) {
			t.Errorf("%v: no line %q in\n%s", c.opts.MountOptions, want, table)
		}
	}
	if _, err := Mount(t.TempDir(), direct(t, bucket()), Options{MountOptions: []string{"no-such-option"}}); err == nil {
		t.Error("an unknown option was taken")
	}
	if _, err := Mount(filepath.Join(t.TempDir(), "none"), direct(t, bucket()), Options{}); err == nil {
		t.Error("mounted on a directory that is not there")
	}
}

func TestAReadOnlyMountRefusesChanges(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		b := bucket()
		_, err := b.Put(t.Context(), "main/file", backend.Bytes([]byte("content")), backend.PutOptions{})
		must(t, err)
		root, _ := mountVolume(t, open(t, b), Options{ReadOnly: true})
		name := filepath.Join(root, "main/file")
		mustContain(t, name, "content")
		wantErr(t, "write", os.WriteFile(name, nil, 0o644), unix.EROFS)
		wantErr(t, "mkdir", os.Mkdir(filepath.Join(root, "dev"), 0o755), unix.EROFS)
		wantErr(t, "unlink", os.Remove(name), unix.EROFS)
		wantErr(t, "chmod", os.Chmod(name, 0o600), unix.EROFS)
	})
}

func TestAMountThatIsInUseIsNotUnmounted(t *testing.T) {
	root, s := mountVolume(t, direct(t, bucket()), Options{})
	f, err := os.Open(mainBranch(t, root))
	must(t, err)
	if err := s.Unmount(); err == nil {
		t.Fatal("unmounted while a directory is open")
	}
	must(t, os.Mkdir(filepath.Join(root, "dev"), 0o755)) // it goes on
	must(t, f.Close())
	must(t, s.Unmount())
	must(t, s.Unmount()) // again
	s.Wait()
	if _, err := os.Lstat(filepath.Join(root, "dev")); !os.IsNotExist(err) {
		t.Errorf("after the unmount: %v", err)
	}
}
