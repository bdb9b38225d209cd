package retry_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/retry"
)

// Of a store that turns every other request away nobody sees anything.
func TestARetriedBackendConforms(t *testing.T) {
	var n atomic.Int64
	in := fault.New(fault.Rule{Times: fault.Always, Do: func(context.Context, *backend.Op) error {
		if n.Add(1)%2 == 0 {
			return nil
		}
		return backend.ErrThrottled
	}})
	backendtest.Run(t, func(*testing.T) backend.Backend {
		opts := retry.Options{MaxAttempts: 1000, BaseDelay: time.Nanosecond, MaxDelay: time.Microsecond}
		return retry.Wrap(in.Wrap(mem.New("suite", mem.Options{})), opts)
	})
	if in.Fired() < 100 {
		t.Errorf("only %d requests were disturbed", in.Fired())
	}
}
