package fs

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/cache"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
)

// recorded opens a volume as the command does, and records its requests.
func recorded(t *testing.T, b backend.Backend, dir string, opts store.Options) (*fault.Injector, store.Volume) {
	in := fault.New()
	in.Quiet(overlay.IsRefCheck)
	s, err := store.Open(t.Context(), in.Wrap(b), opts)
	must(t, err)
	vol, err := cache.Open(t.Context(), s, cache.Options{Dir: dir})
	must(t, err)
	t.Cleanup(func() { vol.Close(context.Background()) })
	return in, vol
}

// sh runs a command in dir and returns how many lines it printed.
func sh(t *testing.T, dir, command string) int {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.Count(string(out), "\n")
}

// manyDirs puts 2,000 files in 100 directories.
func manyDirs(t *testing.T, b backend.Backend) {
	for d := range 100 {
		for f := range 20 {
			_, err := b.Put(t.Context(), fmt.Sprintf("main/tree/d%03d/f%02d", d, f), backend.Bytes([]byte("x")), backend.PutOptions{})
			must(t, err)
		}
	}
}

func TestATreeIsWalkedByAFlatListing(t *testing.T) {
	for _, command := range []string{"find .", "find . -type f", "ls -lR .", "du -a .", "rsync -rn --list-only ./ | cat"} {
		t.Run(command, func(t *testing.T) {
			b := bucket()
			manyDirs(t, b)
			in, vol := recorded(t, b, t.TempDir(), store.Options{Attrs: store.AttrsAuto})
			root, _ := mountVolume(t, vol, Options{})
			in.ResetRequests()
			if n := sh(t, filepath.Join(root, "main/tree"), command); n < 2000 {
				t.Errorf("%d lines", n)
			}
			// The tree has two pages of keys. Beside them there are the way to it,
			// the tree's own directory, and its first one.
			if n := in.Count("list"); n > 10 {
				t.Errorf("%d listings: %q", n, in.Requests())
			}
			if n := in.Count("stat"); n > 4 {
				t.Errorf("%d HEADs: %q", n, in.Requests())
			}
			if t.Failed() || testing.Verbose() {
				t.Logf("%d requests %q", in.Count(""), in.Requests())
			}
		})
	}
}
