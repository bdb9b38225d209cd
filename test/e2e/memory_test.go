package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

// TestTheDaemonKeepsToItsMemory gives the daemon much less memory than it
// moves: by several streams, at random, by small files and by writing.
func TestTheDaemonKeepsToItsMemory(t *testing.T) {
	const (
		mib     = 1 << 20
		memory  = 64
		streams = 4
		size    = 48 * mib // of a stream
	)
	limit := memory + 96 // what the runtime and the kernel's requests take beside
	if raceEnabled {
		limit *= 6 // the detector's shadow
	}
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for i := range streams {
		srv.Put(t, bucket, fmt.Sprint("main/stream", i), body)
	}
	for i := range 200 {
		srv.Put(t, bucket, fmt.Sprintf("main/small/%03d", i), body[:8192])
	}
	m := s3Host(t, srv).mount("s3://"+bucket, fmt.Sprintf("--memory=%dMiB", memory))

	errs := make([]error, streams+1)
	var work sync.WaitGroup
	for i := range streams {
		work.Go(func() { errs[i] = sameContent(m.path("main", fmt.Sprint("stream", i)), body) })
	}
	work.Go(func() { errs[streams] = os.WriteFile(m.path("main", "written"), body, 0o644) })
	work.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	m.sh("main", `cat small/* | wc -c | grep -qx $((200 * 8192))`)

	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(m.pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var peak int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &peak); n == 1 {
			if peak>>10 > limit {
				t.Errorf("%d MiB were resident, with --memory=%dMiB", peak>>10, memory)
			}
			t.Logf("at most %d MiB were resident", peak>>10)
			return
		}
	}
	t.Fatal("the kernel does not say how much was resident")
}

// sameContent reads a file and compares it.
func sameContent(name string, want []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for len(want) > 0 {
		n, err := f.Read(buf)
		if err != nil {
			return err
		}
		if n > len(want) || !bytes.Equal(buf[:n], want[:n]) {
			return fmt.Errorf("%s: other content", filepath.Base(name))
		}
		want = want[n:]
	}
	return nil
}
