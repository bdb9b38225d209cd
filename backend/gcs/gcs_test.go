package gcs_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/test/fakegcs"
)

// isolate hides what this machine knows of Google.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"} {
		t.Setenv(name, "")
	}
}

func open(t *testing.T, opts gcs.Options) backend.Backend {
	t.Helper()
	b, err := gcs.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConformance runs against a server that heeds the conditions which
// fake-gcs-server ignores: those of reads, copies, deletions and compositions
// are looked at by a proxy, where they were sent.
func TestConformance(t *testing.T) {
	srv := fakegcs.Shared(t)
	opts := gcs.Options{Bucket: srv.NewBucket(t), Prefix: "some/prefix with+odd%41 ü", Endpoint: srv.Endpoint, Anonymous: true}
	backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, opts) })
}
