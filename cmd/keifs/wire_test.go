package main

import (
	"io"
	"log/slog"
	"testing"

	"github.com/keifs/keifs/backend"
)

// TestStoresOfAProcessShareOneRuntime: two stores of two kinds are both on the
// list of one scheduler, and their requests pass it.
func TestStoresOfAProcessShareOneRuntime(t *testing.T) {
	s := newSettings(newShared())
	log := slog.New(slog.DiscardHandler)
	for _, url := range []string{"file://" + t.TempDir(), "mem:"} {
		r, err := s.openRemote(t.Context(), url, log)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		seen := 0
		if _, err := r.back.Put(t.Context(), "key", backend.Bytes([]byte("content")), backend.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		err = r.back.Get(t.Context(), "key", backend.GetOptions{}, func(backend.Info, io.Reader) error {
			seen = s.shared.sched.Stats().InFlight
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if seen != 1 {
			t.Errorf("%s: %d requests held a slot while one was under way", url, seen)
		}
	}
	if hosts := s.shared.sched.Stats().Hosts; len(hosts) != 2 {
		t.Errorf("the scheduler knows %v, want two hosts", hosts)
	}
}
