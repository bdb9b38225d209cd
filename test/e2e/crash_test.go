package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
