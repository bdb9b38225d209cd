package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/test/versitygw"
)

// TestFilesThatAreLargerThanTheCachesDisk writes more than the local disk
// takes, as one file and as many: the writers wait for the bucket, and all of
// it is there.
func TestFilesThatAreLargerThanTheCachesDisk(t *testing.T) {
	const mib = 1 << 20
	body := make([]byte, 160*mib)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body)
	for what, flags := range map[string][]string{"write-through": nil, "write-back": {"--write-back"}} {
		t.Run(what, func(t *testing.T) {
			srv := versitygw.Shared(t)
			bucket := srv.NewBucket(t)
			h := s3Host(t, srv)
			disk := filepath.Join(h.dir, "disk")
			if err := os.Mkdir(disk, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", 64*mib)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
			m := h.mount("s3://"+bucket, append(flags, "--cache-dir="+filepath.Join(disk, "cache"))...)
			m.sh(".", "mkdir main")
			if err := os.WriteFile(m.path("main", "large"), body, 0o644); err != nil {
				t.Fatal(err)
			}
			const many = 8
			errs := make([]error, many)
			var writers sync.WaitGroup
			for i := range many {
				writers.Go(func() { errs[i] = os.WriteFile(m.path("main", fmt.Sprint(i)), body[i*mib:(i+12)*mib], 0o644) })
			}
			writers.Wait()
			for i, err := range errs {
				if err != nil {
					t.Errorf("file %d: %v", i, err)
				}
			}
			m.umount()
			if !bytes.Equal(srv.Get(t, bucket, "main/large"), body) {
				t.Error("the large file has other bytes")
			}
			for i := range many {
				if !bytes.Equal(srv.Get(t, bucket, fmt.Sprint("main/", i)), body[i*mib:(i+12)*mib]) {
					t.Errorf("file %d has other bytes", i)
				}
			}
		})
	}
}

// TestAKilledMountLeavesNothingOfAStream kills a mount in the middle of a file
// that is sent while it is written: the next one keeps what was acknowledged,
// and gives up the rest in the bucket.
func TestAKilledMountLeavesNothingOfAStream(t *testing.T) {
	const mib = 1 << 20
	body := make([]byte, 48*mib)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	proxy := newFaultProxy(t, srv.Endpoint)
	uploads := unfinished{keys: map[string]string{}, ended: map[string]bool{}}
	proxy.tell(uploads.note)
	h := s3Host(t, srv)
	h.env = append(h.env, "KEIFS_ENDPOINT="+proxy.Endpoint)
	dir := filepath.Join(h.dir, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	srv.Put(t, bucket, "main/there", []byte("already"))
	daemon := startDaemon(t, h, "s3://"+bucket, dir, "--write-back")
	if err := os.WriteFile(filepath.Join(dir, "main", "closed"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "main", "open"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(body); err != nil {
		t.Fatal(err)
	}
	uploads.await(t, func(keys map[string]string) bool {
		return slices.Contains(slices.Collect(maps.Values(keys)), "/"+bucket+"/main/open")
	})
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	_ = f.Close() // of a mount that is gone
	m := h.mountAt("s3://"+bucket, dir)
	uploads.await(t, func(keys map[string]string) bool { return len(keys) == 0 })
	m.umount()
	if !bytes.Equal(srv.Get(t, bucket, "main/closed"), body) {
		t.Error("what was acknowledged has other bytes")
	}
	if _, there := srv.TryGet(t, bucket, "main/open"); there {
		t.Error("a file that was never closed is in the bucket")
	}
	parts, err := filepath.Glob(filepath.Join(srv.Dir, bucket, ".sgwtmp", "multipart", "*", "*", "*"))
	if err != nil || len(parts) > 0 {
		t.Errorf("left of uploads: %q, %v", parts, err)
	}
}

// unfinished is the uploads that a server has parts of.
type unfinished struct {
	mu      sync.Mutex
	keys    map[string]string // by their ids
	ended   map[string]bool
	changed chan struct{} // closed when they have changed, if somebody waits
}

// note notes an answered request.
func (u *unfinished) note(r *http.Request) {
	id := r.URL.Query().Get("uploadId")
	if id == "" || r.Method != http.MethodPut && r.Context().Err() != nil { // who asked is dead
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case r.Method != http.MethodPut: // completed, or aborted
		delete(u.keys, id)
		u.ended[id] = true
	case !u.ended[id]:
		u.keys[id] = r.URL.Path
	}
	if u.changed != nil {
		close(u.changed)
		u.changed = nil
	}
}

// await waits until they are as they have to be.
func (u *unfinished) await(t *testing.T, right func(keys map[string]string) bool) {
	t.Helper()
	for tooLong := time.After(2 * time.Minute); ; {
		u.mu.Lock()
		done := right(u.keys)
		changed := make(chan struct{})
		u.changed = changed
		u.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-tooLong:
			t.Fatalf("not in time: %v", u.keys)
		}
	}
}
