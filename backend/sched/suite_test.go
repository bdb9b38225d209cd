package sched_test

import (
	"fmt"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/backend/sched"
)

func TestAScheduledBackendConforms(t *testing.T) {
	for _, slots := range []int{1, 128} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			s := sched.New(sched.Options{Slots: slots})
			backendtest.Run(t, func(*testing.T) backend.Backend {
				return s.Wrap(mem.New("suite", mem.Options{Versions: slots == 1}), "mem")
			})
			checkIdle(t, s)
		})
	}
}
