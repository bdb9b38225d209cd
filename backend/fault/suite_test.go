package fault_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
)

func TestABackendWithoutFaultsConforms(t *testing.T) {
	in := fault.New(fault.Rule{Key: "none of these"})
	backendtest.Run(t, func(*testing.T) backend.Backend { return in.Wrap(mem.New("suite", mem.Options{})) })
	if in.Count("put") == 0 || in.Fired() != 0 {
		t.Errorf("%d puts recorded, %d faults", in.Count("put"), in.Fired())
	}
}
