package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKilledWriteBackMountLosesNothingAcknowledged kills a mount with
// write-back over and over, each time after a random number of acknowledged
// operations and in the middle of others, and looks at the next one for
// everything that was acknowledged. In the end all of it is in the bucket.
func TestKilledWriteBackMountLosesNothingAcknowledged(t *testing.T) {
	const rounds = 200
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHost(t)
	store := "file://" + filepath.Join(h.dir, "store")
	if err := os.Mkdir(filepath.Join(h.dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.dir, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var writers []*writer
	for i := range 3 {
		writers = append(writers, &writer{dir: filepath.Join(dir, "main", fmt.Sprint("w", i)), files: map[string]string{}})
	}
	for round := range rounds {
		daemon := startDaemon(t, h, store, dir, "--write-back")
		large := round%50 == 49
		end := int64(1 + random.IntN(25))
		if large {
			end = int64(1 + random.IntN(6))
		}
		var acknowledged atomic.Int64
		var group sync.WaitGroup
		for _, w := range writers {
			w.check(t, round)
		}
		for _, w := range writers {
			w.random = rand.New(rand.NewPCG(seed, random.Uint64()))
			group.Go(func() {
				for !t.Failed() && w.step(large) == nil {
					if acknowledged.Add(1) == end {
						_ = daemon.Process.Kill()
					}
				}
				_ = daemon.Process.Kill() // where the error came before
			})
		}
		group.Wait()
		_ = daemon.Wait()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	last := h.mountAt(store, dir)
	for _, w := range writers {
		w.check(t, rounds)
	}
	last.umount()
	last = h.mountAt(store, dir, "--cache", "off")
	for _, w := range writers {
		w.check(t, rounds+1)
	}
	last.umount()
}

// mountAt is mount at a directory that is there.
func (h *host) mountAt(store, dir string, flags ...string) *mount {
	h.t.Helper()
	m := &mount{h: h, dir: dir}
	m.start(store, flags...)
	return m
}

// startDaemon mounts by a process of its own, without the command that usually
// starts it, and returns when it is mounted.
func startDaemon(t *testing.T, h *host, store, dir string, flags ...string) *exec.Cmd {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(keifs, append([]string{"--ready-fd=3", "mount", store, dir}, flags...)...)
	cmd.Env, cmd.ExtraFiles = h.env, []*os.File{w}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.Process.Kill() == nil { // the test has failed
			_ = cmd.Wait()
			_, _ = h.try("", keifs, "umount", dir)
		}
	})
	var report struct{ Dir, Error string }
	text, err := io.ReadAll(r)
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil || report.Error != "" {
		t.Fatalf("mount: %v %s\n%s", err, report.Error, out.String())
	}
	return cmd
}

// writer changes files of a directory, and knows what it may find there.
type writer struct {
	dir    string
	random *rand.Rand
	serial int
	files  map[string]string // acknowledged; absent names are not there

	// Of an operation that was not acknowledged: states of the names that it
	// was about, one of which has to be found.
	names  []string
	states []func(found map[string]string) bool
}

const absent = "\x00absent"

func (w *writer) want(name string) string {
	if content, ok := w.files[name]; ok {
		return content
	}
	return absent
}

// step does one operation. Its error is that of the mount's end.
func (w *writer) step(large bool) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	a, b := fmt.Sprint("f", w.random.IntN(5)), fmt.Sprint("f", w.random.IntN(5))
	before, target := w.want(a), w.want(b)
	path, other := filepath.Join(w.dir, a), filepath.Join(w.dir, b)
	unchanged := func(found map[string]string) bool { return found[a] == before && found[b] == target }
	w.names = []string{a, b}
	op := w.random.IntN(10)
	var err error
	switch {
	case op == 0 && before != absent:
		w.states = append(w.states[:0], unchanged, func(found map[string]string) bool { return found[a] == absent })
		if err = os.Remove(path); err == nil {
			delete(w.files, a)
		}
	case op < 4 && before != absent && a != b:
		w.states = append(w.states[:0], unchanged, func(found map[string]string) bool {
			// A bucket renames by a copy and a deletion.
			return found[b] == before && (found[a] == absent || found[a] == before)
		})
		if err = os.Rename(path, other); err == nil {
			w.files[b] = before
			delete(w.files, a)
		}
	default:
		w.serial++
		content := fmt.Sprintf("%s %d %d ", a, w.serial, w.random.Uint64())
		if content = strings.Repeat(content, 1+w.random.IntN(100)); large {
			content = strings.Repeat(content, 8<<20/len(content))
		}
		// What was not closed may be there as far as it was written.
		w.states = append(w.states[:0], unchanged, func(found map[string]string) bool {
			return strings.HasPrefix(content, found[a]) || found[a] == absent && before == absent
		})
		if err = os.WriteFile(path, []byte(content), 0o644); err == nil {
			w.files[a] = content
		}
	}
	if err == nil {
		w.names, w.states = nil, nil
	}
	return err
}

// check looks whether everything that was acknowledged is there, and notes
// what became of the rest.
func (w *writer) check(t *testing.T, round int) {
	found := map[string]string{}
	for i := range 5 {
		name := fmt.Sprint("f", i)
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		switch {
		case err == nil:
			found[name] = string(data)
		case errors.Is(err, fs.ErrNotExist):
			found[name] = absent
		default:
			t.Errorf("round %d: %s/%s: %v", round, w.dir, name, err)
			return
		}
	}
	right := len(w.states) == 0
	for _, state := range w.states {
		right = right || state(found)
	}
	for _, name := range w.names {
		if !right {
			t.Errorf("round %d: %s/%s, when it was killed: found %.60q, it was %.60q", round, w.dir, name, found[name], w.want(name))
		}
		w.files[name] = found[name]
	}
	for name, got := range found {
		if want := w.want(name); got != want {
			t.Errorf("round %d: %s/%s: found %.60q (%d bytes), acknowledged was %.60q (%d bytes)",
				round, w.dir, name, got, len(got), want, len(want))
		}
		if got == absent {
			delete(w.files, name)
		}
	}
	w.names, w.states = nil, nil
}
