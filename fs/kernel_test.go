package fs

import (
	"context"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/cache"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
)

const forever = time.Duration(math.MaxInt64)

// put is a change by somebody else.
func put(t *testing.T, b backend.Backend, key, content string) {
	t.Helper()
	_, err := b.Put(t.Context(), key, backend.Bytes([]byte(content)), backend.PutOptions{})
	must(t, err)
}

// remember mounts a volume, with times to live of its own and of the kernel,
// and records its requests.
func remember(t *testing.T, b backend.Backend, ttl, kernel time.Duration) (*fault.Injector, string, *Server) {
	in := fault.New()
	in.Quiet(overlay.IsRefCheck)
	s, err := store.Open(t.Context(), in.Wrap(b), store.Options{Attrs: store.AttrsAuto})
	must(t, err)
	vol, err := cache.Open(t.Context(), s, cache.Options{Dir: t.TempDir(), MetadataTTL: ttl})
	must(t, err)
	t.Cleanup(func() { vol.Close(context.Background()) })
	root, server := mountVolume(t, vol, Options{TTL: kernel})
	return in, root, server
}

func TestARefreshForgetsExactlyWhatIsBelowAPath(t *testing.T) {
	b := bucket()
	for _, key := range []string{"in/a", "in/gone", "in/same", "in/sub/c", "in/work/d", "out/e", "out/gone", "in/file/x"} {
		put(t, b, "main/"+key, "old")
	}
	in, root, server := remember(t, b, forever, forever)
	main := filepath.Join(root, "main")
	sh(t, main, "ls -lR . && cat in/a out/e")
	dirty, err := os.Create(filepath.Join(main, "in/dirty"))
	must(t, err)
	defer dirty.Close()
	_, err = dirty.WriteString("not in the bucket yet")
	must(t, err)
	worker := exec.Command("sh", "-c", "read line; /bin/pwd && cat d")
	worker.Dir = filepath.Join(main, "in/work")
	done, err := worker.StdinPipe()
	must(t, err)
	out := &logBuffer{}
	worker.Stdout, worker.Stderr = out, out
	must(t, worker.Start())
	_, err = os.Stat(filepath.Join(main, "in/new"))
	wantErr(t, "stat of what is not there", err, unix.ENOENT)

	put(t, b, "main/in/a", "newer")
	put(t, b, "main/in/new", "new")
	put(t, b, "main/out/e", "newer")
	put(t, b, "main/in/file", "a file by now")
	for _, key := range []string{"in/gone", "in/sub/c", "out/gone", "in/file/x"} {
		must(t, b.Delete(t.Context(), "main/"+key, backend.Cond{}))
	}
	sizes := func(want map[string]int64) {
		t.Helper()
		for name, size := range want {
			info, err := os.Lstat(filepath.Join(main, name))
			switch {
			case size < 0:
				wantErr(t, "stat "+name, err, unix.ENOENT)
			case err != nil || !info.IsDir() && info.Size() != size:
				t.Errorf("%s: %v, %v, want %d bytes", name, info, err, size)
			}
		}
	}
	in.ResetRequests()
	sizes(map[string]int64{"in/a": 3, "in/gone": 3, "in/new": -1, "in/sub/c": 3, "out/e": 3, "out/gone": 3, "in/dirty": 21})
	if n := in.Count(""); n > 0 {
		t.Errorf("what is known for ever was asked for: %q", in.Requests())
	}

	must(t, server.Refresh("main/in"))
	must(t, os.Mkdir(filepath.Join(main, "in/sub"), 0o755)) // which the kernel knew as a directory
	sizes(map[string]int64{"in/a": 5, "in/gone": -1, "in/new": 3, "in/sub/c": -1, "in/same": 3, "in/dirty": 21})
	mustContain(t, filepath.Join(main, "in/file"), "a file by now")
	mustContain(t, filepath.Join(main, "in/a"), "newer")
	in.ResetRequests()
	sizes(map[string]int64{"out/e": 3, "out/gone": 3})
	if n := in.Count(""); n > 0 {
		t.Errorf("a refresh of main/in made the mount ask about main/out: %q", in.Requests())
	}
	must(t, done.Close())
	must(t, worker.Wait())
	if want := worker.Dir + "\nold"; out.String() != want {
		t.Errorf("who works in the directory is at %q, want %q", out, want)
	}

	must(t, server.Refresh("main/out/e")) // a file
	sizes(map[string]int64{"out/e": 5})
	must(t, server.Refresh("main/out/nothing/there"))
	must(t, server.Refresh("nowhere"))
	must(t, server.Refresh(""))
	sizes(map[string]int64{"out/gone": -1, "in/dirty": 21})
	must(t, dirty.Close())
	if data, _, err := backend.ReadAll(t.Context(), b, "main/in/dirty", 100); err != nil || string(data) != "not in the bucket yet" {
		t.Errorf("the bucket has %q, %v", data, err)
	}
}

// TestTheKernelIsToldOfExactlyTheNamesThatOthersChanged lets the kernel believe
// for ever, and the volume for no time: a listing then finds out what has
// changed.
func TestTheKernelIsToldOfExactlyTheNamesThatOthersChanged(t *testing.T) {
	b := bucket()
	for _, name := range []string{"changed", "gone", "held", "same1", "same2", "sub/file", "lost/file"} {
		put(t, b, "main/dir/"+name, "old")
	}
	_, root, server := remember(t, b, time.Nanosecond, forever)
	dir := filepath.Join(root, "main/dir")
	sh(t, dir, "ls -lR . && stat *")
	held, err := os.Open(filepath.Join(dir, "held"))
	must(t, err)
	defer held.Close()
	listed, err := os.Open(dir)
	must(t, err)
	defer listed.Close()
	_, err = listed.Readdirnames(-1)
	must(t, err)
	if n := server.m.kernel.told.Load(); n != 0 {
		t.Errorf("the kernel was told of %d names, and nothing has changed", n)
	}

	put(t, b, "main/dir/changed", "newer")
	put(t, b, "main/dir/held", "newer")
	put(t, b, "main/dir/made", "made")
	must(t, b.Delete(t.Context(), "main/dir/gone", backend.Cond{}))
	must(t, b.Delete(t.Context(), "main/dir/lost/file", backend.Cond{}))
	_, err = listed.Seek(0, io.SeekStart)
	must(t, err)
	names, err := listed.Readdirnames(-1)
	must(t, err)
	if got := strings.Join(names, " "); got != "changed held made same1 same2 sub" {
		t.Errorf("who holds the directory open finds %s", got)
	}
	const want = 4 // what is new, the kernel does not know
	for server.m.kernel.told.Load() < want {
		runtime.Gosched()
	}
	for name, size := range map[string]int64{"changed": 5, "held": 5, "same1": 3} {
		if got := stat(t, filepath.Join(dir, name)).Size; got != size {
			t.Errorf("%s has %d bytes, want %d", name, got, size)
		}
	}
	for _, name := range []string{"gone", "lost"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	mustContain(t, filepath.Join(dir, "held"), "newer")
	if content, err := io.ReadAll(held); err == nil && string(content) != "old" {
		t.Errorf("the handle of the old version reads %q", content)
	}
	if n := server.m.kernel.told.Load(); n != want {
		t.Errorf("the kernel was told of %d names, want %d", n, want)
	}
}

// The same for a change of attributes alone, of a file that is looked at or opened.
func TestTheKernelIsToldOfAttributesThatOthersChanged(t *testing.T) {
	b := bucket()
	other, err := openStore(t, b).Branch("main")
	must(t, err)
	for _, name := range []string{"listed", "opened"} {
		put(t, b, "main/dir/"+name, "old")
	}
	_, root, server := remember(t, b, time.Nanosecond, forever)
	dir := filepath.Join(root, "main/dir")
	sh(t, dir, "stat listed opened")

	mode, uid := uint32(0o640), uint32(7)
	for _, name := range []string{"listed", "opened"} {
		p, err := store.ParsePath("dir/" + name)
		must(t, err)
		_, err = other.SetAttr(t.Context(), p, store.AttrChange{Mode: &mode, UID: &uid})
		must(t, err)
	}
	mustContain(t, filepath.Join(dir, "opened"), "old")
	if st := stat(t, filepath.Join(dir, "opened")); st.Mode&0o777 != mode || st.Uid != uid {
		t.Errorf("opened: mode %o, owner %d", st.Mode, st.Uid)
	}
	sh(t, dir, "ls")
	for server.m.kernel.told.Load() < 2 {
		runtime.Gosched()
	}
	if st := stat(t, filepath.Join(dir, "listed")); st.Mode&0o777 != mode || st.Uid != uid {
		t.Errorf("listed: mode %o, owner %d", st.Mode, st.Uid)
	}
}
