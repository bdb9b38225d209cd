package mem_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/mem"
)

func TestConformance(t *testing.T) {
	for name, opts := range map[string]mem.Options{
		"AllPowers":   {},
		"Versions":    {Versions: true, PageSize: 3},
		"Plain":       {Plain: true, Seconds: true},
		"NoConds":     {Caps: noConds},
		"IgnoreConds": {IgnoreConds: true, Caps: noConds},
		"Lesser": {PageSize: 7, Caps: func(c *backend.Caps) {
			c.Metadata, c.Copy, c.ObjectPrefix = false, false, false
			c.MinPart = 200_000
		}},
	} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(*testing.T) backend.Backend { return mem.New("test", opts) })
		})
	}
}

func noConds(c *backend.Caps) {
	c.CondCreate, c.CondOverwrite, c.CondDelete, c.CondBatch, c.CondCopy, c.CondAssemble = false, false, false, false, false, false
}
