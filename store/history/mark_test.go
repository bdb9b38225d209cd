package history

import (
	"errors"
	"testing"

	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/refs"
)

// What loses its mark must not advance the branch, which others did not keep for it.
func TestWhoLosesTheMarkStops(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*client){
		"the branch is deleted": func(c *client) {
			ref, err := c.refs.Load(c.t.Context(), "dev")
			if err != nil {
				c.t.Fatal(err)
			}
			if err := c.refs.Delete(c.t.Context(), ref, "gone"); err != nil {
				c.t.Fatal(err)
			}
		},
		"the branch is made anew": func(c *client) {
			ref, err := c.refs.Load(c.t.Context(), "dev")
			if err != nil {
				c.t.Fatal(err)
			}
			if err := c.refs.Delete(c.t.Context(), ref, "gone"); err != nil {
				c.t.Fatal(err)
			}
			if _, err := c.refs.Create(c.t.Context(), "dev", refs.Ref{Head: ref.Head, Base: ref.Base}); err != nil {
				c.t.Fatal(err)
			}
		},
		"too many others began": func(c *client) {
			for range maxTokens {
				if _, err := c.begin(c.t.Context(), "dev"); err != nil {
					c.t.Fatal(err)
				}
			}
		},
	} {
		for end, finish := range map[string]func(*taking) error{
			"finish":      func(mark *taking) error { return mark.finish(t.Context(), refs.Ref{Head: mark.ref.Head, Why: "late"}) },
			"independent": func(mark *taking) error { return mark.independent(t.Context()) },
		} {
			t.Run(name+", "+end, func(t *testing.T) {
				raw := mem.New("", mem.Options{})
				w := &world{}
				c, slow := w.client(t, raw, "one"), w.client(t, raw, "slow")
				based(t, c)
				mark, err := slow.beginAs(t.Context(), "dev", materializes)
				if err != nil {
					t.Fatal(err)
				}
				lose(c)
				before, beforeErr := c.refs.Load(t.Context(), "dev")
				if err := finish(mark); !errors.Is(err, ErrUnmarked) {
					t.Error(err)
				}
				mark.end(t.Context())
				after, afterErr := c.refs.Load(t.Context(), "dev")
				if (beforeErr == nil) != (afterErr == nil) || beforeErr == nil && before.Nonce != after.Nonce {
					t.Errorf("the branch was advanced: %+v, was %+v", after, before)
				}
			})
		}
	}
}

// Of two who make a branch independent, the one who was taken for dead stops.
func TestOneMarkOfItsKindTakesThePlaceOfAnother(t *testing.T) {
	t.Parallel()
	raw := mem.New("", mem.Options{})
	w := &world{}
	c, other := w.client(t, raw, "one"), w.client(t, raw, "two")
	based(t, c)
	commit, err := c.begin(t.Context(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	asleep, err := c.beginAs(t.Context(), "dev", materializes)
	if err != nil {
		t.Fatal(err)
	}
	awake, err := other.beginAs(t.Context(), "dev", materializes)
	if err != nil {
		t.Fatal(err)
	}
	if err := asleep.independent(t.Context()); !errors.Is(err, ErrUnmarked) {
		t.Error(err)
	}
	if err := commit.finish(t.Context(), refs.Ref{Head: commit.ref.Head}); err != nil {
		t.Error(err)
	}
	if err := awake.independent(t.Context()); err != nil {
		t.Error(err)
	}
}
