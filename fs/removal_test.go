package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/cache"
)

// syncDir is fsync of a directory.
func syncDir(t *testing.T, name string) {
	t.Helper()
	d, err := os.Open(name)
	must(t, err)
	must(t, errors.Join(d.Sync(), d.Close()))
}

func keys(t *testing.T, b backend.Backend) []string {
	t.Helper()
	keys := []string{}
	for info, err := range backend.ListRecursive(t.Context(), b, "") {
		must(t, err)
		keys = append(keys, info.Key)
	}
	return keys
}

func TestWhatIsRemovedIsGoneAtOnceAndFromTheBucketAfterAFsync(t *testing.T) {
	onPatientVolumes(t, func(t *testing.T, open newVolume) {
		shared := bucket()
		dir := mountBranch(t, shared, open)
		tree := filepath.Join(dir, "tree")
		must(t, os.Mkdir(tree, 0o755))
		for i := range 20 {
			must(t, os.MkdirAll(filepath.Join(tree, fmt.Sprint(i%3)), 0o755))
			write(t, filepath.Join(tree, fmt.Sprint(i%3), fmt.Sprint(i)), "content")
		}
		must(t, os.RemoveAll(tree))
		_, err := os.Stat(filepath.Join(tree, "0", "3"))
		wantErr(t, "stat", err, unix.ENOENT)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			t.Errorf("there is %v, %v", entries, err)
		}
		syncDir(t, dir)
		if got := keys(t, shared); !slices.Equal(got, []string{"main/"}) {
			t.Errorf("the bucket has %q", got)
		}
		must(t, os.Mkdir(tree, 0o755))
		write(t, filepath.Join(tree, "new"), "content")
		mustContain(t, filepath.Join(tree, "new"), "content")
	})
}

// A bucket that takes no deletion for a while stands for a crash before it
// comes to that: the next mount has the journal only.
func TestARemovalHoldsInTheNextMount(t *testing.T) {
	shared := bucket()
	var refuse atomic.Bool
	back := backend.Intercept(shared, func(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
		if refuse.Load() && (op.Name == "delete" || op.Name == "deletebatch") {
			return backend.Fail(op.Name, op.Key, backend.ErrPermission, nil)
		}
		return next(ctx)
	})
	folder, caps := t.TempDir(), shared.Caps() // a probe would leave something behind
	mount := func(test func(dir string)) error {
		vol, err := cache.Open(t.Context(), openKnown(t, back, &caps), cache.Options{Dir: folder})
		must(t, err)
		root, server := mountVolume(t, vol, Options{})
		test(mainBranch(t, root))
		must(t, server.Unmount())
		return vol.Close(context.Background())
	}
	err := mount(func(dir string) {
		write(t, filepath.Join(dir, "gone"), "content")
		write(t, filepath.Join(dir, "stays"), "content")
		refuse.Store(true)
		must(t, os.Remove(filepath.Join(dir, "gone")))
		d, err := os.Open(dir)
		must(t, err)
		defer d.Close()
		wantErr(t, "fsync", d.Sync(), unix.EACCES)
	})
	if !errors.Is(err, backend.ErrPermission) {
		t.Errorf("close: %v", err)
	}
	must(t, mount(func(dir string) {
		_, err := os.Stat(filepath.Join(dir, "gone"))
		wantErr(t, "stat", err, unix.ENOENT)
		mustContain(t, filepath.Join(dir, "stays"), "content")
		refuse.Store(false)
	}))
	if got := keys(t, shared); !slices.Equal(got, []string{"main/", "main/stays"}) {
		t.Errorf("the bucket has %q", got)
	}
}

func TestWhatAnotherMountWroteIsNotRemoved(t *testing.T) {
	onTwoMountsOf(t, func(t *testing.T, shared backend.Backend, a, b string) {
		must(t, os.Mkdir(filepath.Join(a, "d"), 0o755))
		write(t, filepath.Join(a, "d", "f"), "first")
		mustContain(t, filepath.Join(b, "d", "f"), "first")
		entries, err := os.ReadDir(filepath.Join(a, "d"))
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		write(t, filepath.Join(b, "d", "theirs"), "content")
		must(t, os.Remove(filepath.Join(a, "d", "f")))
		err = os.Remove(filepath.Join(a, "d")) // it depends on what is remembered
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("rmdir: %v", err)
		}
		syncDir(t, a)
		mustContain(t, filepath.Join(b, "d", "theirs"), "content")
		if data, _, err := backend.ReadAll(t.Context(), shared, "main/d/theirs", 100); err != nil || string(data) != "content" {
			t.Errorf("the bucket has %q, %v", data, err)
		}
	})
}
