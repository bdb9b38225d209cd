package gcs_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
	"github.com/keifs/keifs/test/fakegcs"
)

func TestStoreOnABucket(t *testing.T) {
	isolate(t)
	srv := fakegcs.Shared(t)
	storetest.RunOn(t, func(t *testing.T) backend.Backend {
		b := open(t, gcs.Options{Bucket: srv.NewBucket(t), Endpoint: srv.Endpoint, Anonymous: true})
		t.Cleanup(func() { b.Close() })
		return retry.Wrap(b, retry.Options{})
	}, func(t *testing.T, s *store.Store) store.Volume {
		return store.NewDirect(s, store.DirectOptions{})
	})
}
