package all_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/backend/azure"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/backend/file"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/backend/s3"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
)

// liveStores are the URLs of the stores that this machine can offer: a folder,
// and the buckets that the environment names, each with the prefix behind it.
func liveStores(t *testing.T) map[string]string {
	stores := map[string]string{"file": "file://" + t.TempDir()}
	for _, scheme := range []string{"s3", "gs", "az", "bunny"} {
		if bucket := os.Getenv("KEIFS_TEST_" + strings.ToUpper(scheme) + "_BUCKET"); bucket != "" {
			stores[scheme] = scheme + "://" + strings.TrimSuffix(bucket, "/")
		}
	}
	return stores
}

// TestBothSuitesOnLiveStores runs the suites of a backend and of a volume on
// each. They hold a store to what a probe saw there, work below a prefix of
// their own, and leave nothing.
func TestBothSuitesOnLiveStores(t *testing.T) {
	for name, url := range liveStores(t) {
		t.Run(name, func(t *testing.T) {
			url += "/keifs-test-" + strings.ToLower(rand.Text()[:12])
			caps := probed(t, openLive(t, url, nil))
			t.Logf("%s: %+v", url, caps)
			t.Run("backend", func(t *testing.T) {
				backendtest.Run(t, func(t *testing.T) backend.Backend { return openLive(t, url+"/backend", &caps) })
			})
			t.Run("store", func(t *testing.T) {
				n := 0
				storetest.RunOn(t, func(t *testing.T) backend.Backend {
					n++
					b := openLive(t, fmt.Sprintf("%s/store/%d", url, n), &caps)
					t.Cleanup(func() { empty(t, b) })
					return b
				}, func(t *testing.T, s *store.Store) store.Volume { return store.NewDirect(s, store.DirectOptions{}) })
			})
			for info, err := range backend.ListRecursive(t.Context(), openLive(t, url, nil), "") {
				if err != nil {
					t.Fatal(err)
				}
				if dir := strings.HasSuffix(info.Key, "/") || strings.Contains(info.Key, "/.keifs-store/"); name != "file" || !dir {
					t.Errorf("%s is left", info.Key)
				}
			}
		})
	}
}

// openLive opens a store, with the capabilities that are known of it.
func openLive(t *testing.T, url string, known *backend.Caps) backend.Backend {
	t.Helper()
	set := func(c *backend.Caps) {
		if known != nil {
			maxKey := c.MaxKey // less with a prefix
			*c = *known
			c.MaxKey = maxKey
		}
	}
	opened, err := all.Open(t.Context(), url, all.Options{
		File: file.Options{Create: true}, S3: s3.Options{Caps: set}, GCS: gcs.Options{Caps: set}, Azure: azure.Options{Caps: set}, Bunny: bunny.Options{Caps: set},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Backend.Close() })
	return retry.Wrap(opened.Backend, retry.Options{})
}

func probed(t *testing.T, b backend.Backend) backend.Caps {
	t.Helper()
	s, err := store.Open(t.Context(), b, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	caps, err := s.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return caps
}

func empty(t *testing.T, b backend.Backend) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for info, err := range backend.ListRecursive(ctx, b, "") {
		if err == nil {
			err = b.Delete(ctx, info.Key, backend.Cond{})
		}
		if err != nil {
			t.Error(err)
		}
	}
}
