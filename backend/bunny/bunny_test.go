package bunny_test

import (
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/backendtest"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/backend/retry"
	"github.com/keifs/keifs/test/bunnystub"
)

func open(t *testing.T, s *bunnystub.Server, opts bunny.Options) backend.Backend {
	t.Helper()
	opts.Zone, opts.Key, opts.Endpoint = s.Zone, s.Key, s.Endpoint
	b, err := bunny.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// strong is what the stub can do beyond what Bunny promises.
func strong(c *backend.Caps) { c.StrongList = true }

// TestConformance has retries above the zone: a body whose object changes
// while it is read ends with ErrTransient, since a zone cannot be asked for a
// version.
func TestConformance(t *testing.T) {
	for name, set := range map[string]func(*bunnystub.Server, *backend.Caps){
		"as documented": func(*bunnystub.Server, *backend.Caps) {},
		"missing directories list as empty, names may nest": func(s *bunnystub.Server, c *backend.Caps) {
			s.ListMissing()
			s.Nest()
			c.ObjectPrefix = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, func(t *testing.T) backend.Backend {
				s := bunnystub.Start(t)
				opts := bunny.Options{Prefix: "some/prefix with+odd%41 ü", Caps: func(c *backend.Caps) {
					strong(c)
					set(s, c)
				}}
				return retry.Wrap(open(t, s, opts), retry.Options{})
			})
		})
	}
}
