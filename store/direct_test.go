package store_test

import (
	"testing"

	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/storetest"
)

func TestDirect(t *testing.T) {
	storetest.Run(t, func(t *testing.T, s *store.Store) store.Volume {
		return store.NewDirect(s, store.DirectOptions{})
	})
}
