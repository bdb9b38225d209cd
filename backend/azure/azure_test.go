package azure_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/azure"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
	"github.com/keifs/keifs/test/azurite"
)

// isolate hides what this machine knows of Azure.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
	} {
		t.Setenv(name, "")
	}
}

func open(t *testing.T, opts azure.Options) backend.Backend {
	t.Helper()
	b, err := azure.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// onServer is a new container of the emulator.
func onServer(t *testing.T) azure.Options {
	t.Helper()
	isolate(t)
	s := azurite.Shared(t)
	return azure.Options{Container: s.NewContainer(t), Endpoint: s.Endpoint, Key: azurite.Key}
}

// TestConformance leaves out the thousand objects that are more than a page of
// other stores: Azure's has five thousand.
func TestConformance(t *testing.T) {
	opts := onServer(t)
	opts.Prefix = "some/prefix with+odd%41 ü"
	backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, opts) }, "ListMoreThanOnePage")
}

func TestStoreOnAContainer(t *testing.T) {
	isolate(t)
	storetest.RunOn(t, func(t *testing.T) backend.Backend {
		s := azurite.Shared(t)
		return open(t, azure.Options{Container: s.NewContainer(t), Endpoint: s.Endpoint, Key: azurite.Key})
	}, func(t *testing.T, s *store.Store) store.Volume {
		return store.NewDirect(s, store.DirectOptions{})
	})
}
