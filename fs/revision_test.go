package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/store/commit"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// committed makes a commit of the branch main, whose ref is the last one.
func committed(t *testing.T, b backend.Backend, last *refs.Ref) (id string, ref *refs.Ref) {
	t.Helper()
	ctx := context.Background()
	repo := commit.New(b, commit.Options{})
	w := repo.Writer(ctx)
	for o, err := range overlay.New(b, overlay.Options{}).Walk(ctx, "main", "") {
		must(t, err)
		if o.Rel == "" {
			continue // the marker of the branch
		}
		mode := uint32(0o100644)
		if strings.HasSuffix(o.Rel, "/") {
			mode = 0o40755
		}
		must(t, w.Add(commit.Entry{
			Path: o.Rel, Size: o.Size, Mode: mode, ETag: o.ETag, Key: o.Key, Mtime: o.ModTime.UnixNano(), Modified: o.ModTime.UnixNano(),
		}))
	}
	ranges, err := w.Close()
	must(t, err)
	m := &commit.Manifest{Branch: "main", Author: "somebody", Time: time.Now().UTC()}
	m.SetRanges(ranges)
	if last != nil {
		m.Parents = []string{last.Head}
	}
	must(t, repo.PutManifest(ctx, m))
	if last == nil {
		ref, err = refs.New(b, refs.Options{}).Create(ctx, "main", refs.Ref{Head: m.ID})
	} else {
		ref, err = refs.New(b, refs.Options{}).Advance(ctx, last, refs.Ref{Head: m.ID})
	}
	must(t, err)
	return m.ID, ref
}

func TestACommitIsAReadOnlyDirectory(t *testing.T) {
	onPatientVolumes(t, func(t *testing.T, open newVolume) {
		record := fault.New()
		b := record.Wrap(bucket())
		dir := mountBranch(t, b, open)
		must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		write(t, filepath.Join(dir, "d", "f"), "as it was")
		write(t, filepath.Join(dir, "gone"), "and gone")
		must(t, os.Symlink("d/f", filepath.Join(dir, "link")))
		id, ref := committed(t, b, nil)

		// Another host, which knows of the commit from the start.
		root, _ := mountVolume(t, open(t, b), Options{})
		dir = filepath.Join(root, "main")
		write(t, filepath.Join(dir, "d", "f"), "as it is")
		must(t, os.Remove(filepath.Join(dir, "gone")))
		_, _ = committed(t, b, ref)
		for _, revision := range []string{id, id[:8], "~1"} {
			at := filepath.Join(root, "main@"+revision)
			mustContain(t, filepath.Join(at, "d", "f"), "as it was")
			mustContain(t, filepath.Join(at, "gone"), "and gone")
			mustContain(t, filepath.Join(at, "link"), "as it was")
			for what, err := range map[string]error{
				"write":  os.WriteFile(filepath.Join(at, "d", "f"), nil, 0o644),
				"create": os.WriteFile(filepath.Join(at, "new"), nil, 0o644),
				"mkdir":  os.Mkdir(filepath.Join(at, "new"), 0o755),
				"remove": os.Remove(filepath.Join(at, "gone")),
				"rmdir":  os.Remove(filepath.Join(at, "d")),
				"rename": os.Rename(filepath.Join(at, "gone"), filepath.Join(at, "new")),
				"chmod":  os.Chmod(filepath.Join(at, "gone"), 0o600),
				"link":   os.Symlink("x", filepath.Join(at, "new")),
			} {
				if !errors.Is(err, unix.EROFS) {
					t.Errorf("%s in %s: %v", what, revision, err)
				}
			}
		}
		for _, revision := range []string{"nothing", "abcd", "~7", "1h", ""} {
			if _, err := os.Stat(filepath.Join(root, "main@"+revision)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("main@%s: %v", revision, err)
			}
		}
		entries, err := os.ReadDir(root)
		must(t, err)
		if len(entries) != 1 {
			t.Errorf("the root lists %v", entries)
		}
	})
}

func TestAFileIsRestoredFromACommitByTheStore(t *testing.T) {
	onPatientVolumes(t, func(t *testing.T, open newVolume) {
		record := fault.New()
		b := record.Wrap(bucket())
		dir := mountBranch(t, b, open)
		content := strings.Repeat("0123456789abcdef", 1<<12)
		write(t, filepath.Join(dir, "f"), content)
		id, _ := committed(t, b, nil)
		root, _ := mountVolume(t, open(t, b), Options{})
		write(t, filepath.Join(root, "main", "f"), "changed")

		src, err := os.Open(filepath.Join(root, "main@"+id[:6], "f"))
		must(t, err)
		defer src.Close()
		dst, err := os.Create(filepath.Join(root, "main", "f"))
		must(t, err)
		record.ResetRequests()
		n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, 1<<30, 0)
		must(t, err)
		must(t, dst.Close())
		if n != len(content) || record.Count("copy") == 0 || record.Count("put") > 0 {
			t.Errorf("%d bytes by %q", n, record.Requests())
		}
		for _, request := range record.Requests() {
			if strings.HasPrefix(request, "GET main") {
				t.Error("the content came to this machine:", request)
			}
		}
		mustContain(t, filepath.Join(root, "main", "f"), content)
	})
}

// A commit never changes: what was looked at once is known, however long ago.
func TestACommitIsLookedAtOnce(t *testing.T) {
	b := bucket()
	dir := mountBranch(t, b, cached)
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	write(t, filepath.Join(dir, "d", "f"), "as it was")
	id, _ := committed(t, b, nil)

	record, root, _ := remember(t, b, time.Nanosecond, time.Nanosecond)
	write(t, filepath.Join(root, "main", "d", "f"), "as it is")
	at, err := os.Open(filepath.Join(root, "main@"+id))
	must(t, err)
	defer at.Close()
	look := func() {
		t.Helper()
		in := fmt.Sprintf("/proc/self/fd/%d", at.Fd())
		mustContain(t, filepath.Join(in, "d", "f"), "as it was")
		entries, err := os.ReadDir(filepath.Join(in, "d"))
		must(t, err)
		if _, err := os.Stat(filepath.Join(in, "none")); len(entries) != 1 || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v, %v", entries, err)
		}
	}
	look()
	record.ResetRequests()
	look()
	for _, request := range record.Requests() {
		t.Error("asked again:", request)
	}
}
