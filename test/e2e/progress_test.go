package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keifs/keifs/test/versitygw"
)

// While a directory is renamed, keifs status says how far it is.
func TestStatusShowsTheProgressOfARename(t *testing.T) {
	srv := versitygw.Shared(t)
	bucket := srv.NewBucket(t)
	proxy := newFaultProxy(t, srv.Endpoint)
	h := s3Host(t, srv)
	h.env = append(h.env, "KEIFS_ENDPOINT="+proxy.Endpoint)
	m := h.mount("s3://" + bucket)
	m.sh(".", "mkdir main; mkdir main/probed; rmdir main/probed")
	for i := range 20 {
		srv.Put(t, bucket, fmt.Sprintf("main/old/%d", i), []byte("content"))
	}
	var copies atomic.Int64
	release := make(chan struct{})
	proxy.fail(func(r *http.Request) int {
		if r.Header.Get("X-Amz-Copy-Source") != "" && copies.Add(1) > 5 {
			<-release
		}
		return 0
	})
	done := make(chan error, 1)
	go func() { done <- os.Rename(m.path("main", "old"), m.path("main", "new")) }()
	want := "main/old: renaming, 5 of 20 since "
	var status string
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(status, want); {
		if status = h.run(keifs, "status", m.dir); time.Now().After(deadline) {
			t.Errorf("there is no %q in\n%s", want, status)
			break
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if status := h.run(keifs, "status", m.dir); strings.Contains(status, "renaming") {
		t.Errorf("it is not over:\n%s", status)
	}
}
