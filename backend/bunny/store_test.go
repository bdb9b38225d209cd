package bunny_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
	"github.com/keifs/keifs/test/bunnystub"
)

func TestStoreOnAZone(t *testing.T) {
	storetest.RunOn(t, func(t *testing.T) backend.Backend {
		return retry.Wrap(open(t, bunnystub.Start(t), bunny.Options{Caps: strong}), retry.Options{})
	}, func(t *testing.T, s *store.Store) store.Volume {
		return store.NewDirect(s, store.DirectOptions{})
	})
}
