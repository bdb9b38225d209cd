package server

import (
	"sync"
	"testing"
)

// Shared is one server for a whole test binary. The zero value is ready.
type Shared[S interface{ LogOnFailure(testing.TB) }] struct {
	mu      sync.Mutex
	started bool
	server  S
}

// Get returns the server, which start starts for the first caller. It ends
// with the test binary, however that ends.
func (s *Shared[S]) Get(t testing.TB, start func(testing.TB) S) S {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.server, s.started = start(t), true
	}
	s.server.LogOnFailure(t)
	return s.server
}
