package cache

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/store"
)

// Whoever finds out that another host has changed attributes, and nothing else
// of a file, a question or a listing: the mount is told, and nobody is given the
// old ones any more.
func TestAChangeOfAttributesIsTold(t *testing.T) {
	mode, uid := uint32(0o600), uint32(7)
	changes := map[string]store.AttrChange{"chmod": {Mode: &mode}, "chown": {UID: &uid}}
	list := func(t *testing.T, tree store.Tree) {
		for _, err := range tree.List(t.Context(), path(t, "d")) {
			ok(t, err)
		}
	}
	look := func(t *testing.T, tree store.Tree) {
		_, err := tree.Lookup(t.Context(), path(t, "d/f"))
		ok(t, err)
	}
	type step = func(*testing.T, store.Tree)
	for name, steps := range map[string]struct {
		before []step
		after  step
	}{
		"a question after a question": {[]step{look}, look},
		"a listing after a question":  {[]step{look}, list},
		"a question after a listing":  {[]step{look, list}, look},
		"a listing after a listing":   {[]step{list, look}, list},
	} {
		for what, change := range changes {
			t.Run(what+" by "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := secondsBucket(t)
					other, theirs := b.open(Options{})
					defer other.Close(context.Background())
					c, tree := b.open(Options{})
					defer c.Close(context.Background())
					var told []string
					c.Notice(func(_ string, p store.Path, _ *store.Entry) { told = append(told, p.String()) })

					_, err := tree.Mkdir(t.Context(), path(t, "d"), store.Attr{Mode: store.ModeDir | 0o755})
					ok(t, err)
					closeFile(t, create(t, tree, "d/f", false))
					for range 2 {
						for _, step := range steps.before {
							time.Sleep(isOld)
							step(t, tree)
						}
					}
					if len(told) > 0 {
						t.Errorf("nothing has changed, and told was %q", told)
					}
					_, err = theirs.SetAttr(t.Context(), path(t, "d/f"), change)
					ok(t, err)
					time.Sleep(isOld)
					steps.after(t, tree)
					if !slices.Equal(told, []string{"d/f"}) {
						t.Errorf("told was %q", told)
					}
					if e, err := tree.Lookup(t.Context(), path(t, "d/f")); err != nil || change.Mode != nil && e.Mode&0o777 != mode || change.UID != nil && e.UID != uid {
						t.Errorf("%+v, %v", e, err)
					}
				})
			})
		}
	}
}
