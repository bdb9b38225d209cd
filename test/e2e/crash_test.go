package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keifs/keifs/test/versitygw"
)

// TestKilledDaemonLosesNothingAcknowledged kills the daemon with SIGKILL at
// random moments while files are written and renamed. Whatever close or
// rename acknowledged is in the bucket, whole; the dead mount is cleaned by the next.
func TestKilledDaemonLosesNothingAcknowledged(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	m := s3Host(t, srv).mount("s3://" + bucket)
	m.sh(".", "mkdir main")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[string]string{} // name -> content

	for round := range 6 {
		delay := time.Duration(r.IntN(600)+20) * time.Millisecond
		pid := m.pid
		timer := time.AfterFunc(delay, func() { syscall.Kill(pid, syscall.SIGKILL) })
		for i := 0; ; i++ {
			name := fmt.Sprintf("r%d-f%d", round, i)
			content := fmt.Sprintf("%s %d", name, r.Uint64())
			if err := os.WriteFile(m.path("main", name+".tmp"), []byte(content), 0o644); err != nil {
				break // the daemon is dead
			}
			acknowledged[name+".tmp"] = content
			if i%3 != 0 {
				continue
			}
			err := os.Rename(m.path("main", name+".tmp"), m.path("main", name))
			delete(acknowledged, name+".tmp")
			if err != nil {
				// Not acknowledged: one of the two names has it.
				old, _ := srv.TryGet(t, bucket, "main/"+name+".tmp")
				now, _ := srv.TryGet(t, bucket, "main/"+name)
				if string(old) != content && string(now) != content {
					t.Fatalf("a rename that was cut lost %s", name)
				}
				break
			}
			acknowledged[name] = content
		}
		timer.Stop()
		m.pid = 0
		m.start("s3://" + bucket)
	}
	if len(acknowledged) < 6 {
		t.Fatalf("only %d files were written before the kills", len(acknowledged))
	}
	for name, want := range acknowledged {
		if got := string(srv.Get(t, bucket, "main/"+name)); got != want {
			t.Fatalf("%s in the bucket: %q, want %q", name, got, want)
		}
		if got := read(t, m.path("main", name)); got != want {
			t.Fatalf("%s in the mount: %q, want %q", name, got, want)
		}
	}
	entries, err := filepath.Glob(m.path("main", "*"))
	if err != nil || len(entries) < len(acknowledged) {
		t.Fatalf("%d entries, want at least %d (%v)", len(entries), len(acknowledged), err)
	}
}

// TestARemovalSurvivesACrash kills the daemon with SIGKILL at random moments
// while files and directories are removed. What rm acknowledged stays away,
// and whatever it had not come to is there.
func TestARemovalSurvivesACrash(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	m := s3Host(t, srv).mount("s3://" + bucket)
	m.sh(".", "mkdir main")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	there, doubt := map[string]bool{}, map[string]bool{}

	for round := range 4 {
		for i := range 60 {
			dir := fmt.Sprintf("r%d-d%d", round, i%3)
			if err := os.MkdirAll(m.path("main", dir), 0o755); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s/%d", dir, i)
			write(t, m.path("main", name), name)
			there[name] = true
		}
		pid := m.pid
		timer := time.AfterFunc(time.Duration(r.IntN(60))*time.Millisecond, func() { syscall.Kill(pid, syscall.SIGKILL) })
		for name := range there {
			if r.IntN(4) == 0 {
				continue
			}
			if err := os.Remove(m.path("main", name)); err != nil {
				doubt[name] = true // cut
				break
			}
			delete(there, name)
		}
		timer.Stop()
		syscall.Kill(pid, syscall.SIGKILL)
		m.pid = 0
		m.start("s3://" + bucket)
		found, err := filepath.Glob(m.path("main", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, err := filepath.Rel(m.path("main"), path)
			if err != nil {
				t.Fatal(err)
			}
			if !there[name] && !doubt[name] {
				t.Errorf("%s, which was removed, is back", name)
			}
		}
		for name := range there {
			if !doubt[name] && read(t, m.path("main", name)) != name {
				t.Errorf("%s is wrong", name)
			}
		}
		for name := range doubt {
			if _, err := os.Stat(m.path("main", name)); err != nil {
				delete(there, name)
			}
		}
		clear(doubt)
	}
	m.umount()
	left := srv.List(t, bucket, "main/")
	n := 0
	for _, key := range left {
		if key[len(key)-1] != '/' {
			n++
		}
	}
	if n != len(there) {
		t.Errorf("the bucket has %d files, want %d: %q", n, len(there), left)
	}
}

// TestARenamedDirectoryIsWholeAfterACrash kills the daemon with SIGKILL at
// each stage of the rename of a directory, by the requests that it has come
// to, and at random moments. The next mount finishes what was begun:
// everything is under one of the two names, what was written through the mount
// a moment before included.
func TestARenamedDirectoryIsWholeAfterACrash(t *testing.T) {
	t.Run("through", func(t *testing.T) { t.Parallel(); crashInRenames(t) })
	t.Run("write-back", func(t *testing.T) { t.Parallel(); crashInRenames(t, "--write-back") })
}

func crashInRenames(t *testing.T, flags ...string) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	proxy := newFaultProxy(t, srv.Endpoint)
	h := s3Host(t, srv)
	h.env = append(h.env, "KEIFS_ENDPOINT="+proxy.Endpoint)
	m := h.mount("s3://"+bucket, flags...)
	m.sh(".", "mkdir main; mkdir main/probed; rmdir main/probed")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const stored, written = 60, 10
	copies := func(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }
	deletes := func(r *http.Request) bool {
		return r.Method == http.MethodPost && r.URL.Query().Has("delete") || r.Method == http.MethodDelete
	}
	each := func(*http.Request) bool { return true }
	never := func(*http.Request) bool { return false }
	for round, at := range []struct {
		name  string
		which func(*http.Request) bool
		n     int64
	}{
		{"first copy", copies, 1}, {"copy in the middle", copies, stored / 2}, {"last copy", copies, stored},
		{"deletion", deletes, 1}, {"none", never, 1},
		{"any", each, rnd.Int64N(stored + 10)}, {"any", each, rnd.Int64N(stored + 10)}, {"copy", copies, rnd.Int64N(stored)},
	} {
		from, to := fmt.Sprintf("old%d", round), fmt.Sprintf("new%d", round)
		for i := range stored {
			srv.Put(t, bucket, fmt.Sprintf("main/%s/%d/%d", from, i%3, i), []byte(fmt.Sprint("content ", i)))
		}
		for i := stored; i < stored+written; i++ {
			write(t, m.path("main", from, fmt.Sprint(i%3), fmt.Sprint(i)), fmt.Sprint("content ", i))
		}
		var seen atomic.Int64
		pid := m.pid
		proxy.fail(func(r *http.Request) int {
			if at.which(r) && seen.Add(1) == at.n {
				syscall.Kill(pid, syscall.SIGKILL) // the request itself may still be served
			}
			return 0
		})
		err := os.Rename(m.path("main", from), m.path("main", to))
		proxy.fail(nil)
		if at.name == "none" && err != nil {
			t.Errorf("%s: %v", at.name, err)
		}
		syscall.Kill(pid, syscall.SIGKILL)
		m.pid = 0
		m.start("s3://"+bucket, flags...)
		m.umount()
		old, now := 0, 0
		for _, key := range srv.List(t, bucket, "main/") {
			var dir string
			var i int
			if _, scanErr := fmt.Sscanf(key, "main/"+from+"/%1s/%d", &dir, &i); scanErr == nil {
				old++
			} else if _, scanErr := fmt.Sscanf(key, "main/"+to+"/%1s/%d", &dir, &i); scanErr == nil {
				now++
			} else {
				continue
			}
			if got := string(srv.Get(t, bucket, key)); got != fmt.Sprint("content ", i) {
				t.Errorf("%s: %s has %q", at.name, key, got)
			}
		}
		if old > 0 && now > 0 || old+now != stored+written || err == nil && old > 0 {
			t.Errorf("%s %d: %v; %d files under the old name, %d under the new one", at.name, at.n, err, old, now)
		}
		m.start("s3://"+bucket, flags...)
	}
}
