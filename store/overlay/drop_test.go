package overlay_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

func TestADroppedBranchLeavesCommitsAsTheyWere(t *testing.T) {
	for _, opts := range []mem.Options{{}, {Plain: true, PageSize: 2}} {
		setup := func() *bench {
			b := fork(t, opts, "a", "b", "c")
			for i := range 5 {
				b.put(fmt.Sprintf("dev/d/%d", i), fmt.Sprintf("dev's %d", i))
			}
			b.ok(b.Delete(background, "dev/b", backend.Cond{}))
			b.commit("dev", id("d"))
			b.ref("dev", map[string]any{"head": id("d"), "base": id("c")})
			b.put("dev/late", "in no commit")
			return b
		}
		check := func(b *bench) {
			t.Helper()
			at := "dev@" + id("d") + "/"
			same(t, "the commit", keys(t, b.client(), at), "a c d/0 d/1 d/2 d/3 d/4")
			same(t, "its content", read(b.client(), at+"d/3")+"; "+read(b.client(), at+"a"), "dev's 3; main's a")
			same(t, "main", keys(t, b.client(), "main/"), "a b c")
		}
		// Interrupted anywhere, and then run again.
		for n := 1; ; n++ {
			b := setup()
			in := fault.New(fault.Rule{From: n, Times: fault.Always, Err: backend.ErrUnreachable})
			err := overlay.New(in.Wrap(b.raw), overlay.Options{Commits: b.shelf}).Drop(background, "dev", "")
			check(b)
			b.ok(b.client().Drop(background, "dev", ""))
			check(b)
			same(t, "what is left", keys(t, b.raw, "dev/")+keys(t, b.raw, ".kei/whiteouts/"), "")
			if err == nil {
				break
			}
		}
	}
	if err := fork(t, mem.Options{}).Drop(background, "dev@"+id("c"), ""); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("dropping a commit: %v", err)
	}
}

func TestABranchThatIsDroppedAtACommitKeepsAllWhereSomethingCameSince(t *testing.T) {
	for _, opts := range []mem.Options{{}, {Plain: true}} {
		b := fork(t, opts, "a", "b")
		b.put("dev/a", "committed")
		b.put("dev/new", "committed")
		b.ok(b.Delete(background, "dev/b", backend.Cond{}))
		b.commit("dev", id("d"))
		b.ref("dev", map[string]any{"head": id("d"), "base": id("c")})
		b.put("dev/a", "changed")
		b.put("dev/late", "made")
		if err := b.client().Drop(background, "dev", id("d")); !errors.Is(err, overlay.ErrUncommitted) {
			t.Errorf("error: %v", err)
		}
		same(t, "what is left", keys(t, b.raw, "dev/")+"; "+keys(t, b.raw, ".kei/whiteouts/dev/"), "a late new; b")
		b.commit("dev", id("e"))
		b.ref("dev", map[string]any{"head": id("e"), "base": id("c")})
		b.ok(b.client().Drop(background, "dev", id("e")))
		same(t, "what is left", keys(t, b.raw, "dev/")+keys(t, b.raw, ".kei/whiteouts/"), "")
		same(t, "the commit", read(b.client(), "dev@"+id("e")+"/late"), "made")
	}
}
