package overlay_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

// Branches with a base are held to the same by the suite in store/storetest.
func TestABucketWithoutHistoryIsAsItIs(t *testing.T) {
	for name, opts := range map[string]mem.Options{"all": {}, "plain": {Plain: true}, "versioned": {Versions: true}} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) backend.Backend {
				return overlay.New(mem.New(t.Name(), opts), overlay.Options{})
			})
		})
	}
}
