package history

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/overlay"
	"github.com/keifs/keifs/store/refs"
)

// ErrUnmarked means that the branch lost the mark of who commits to it: it was
// deleted, perhaps made anew, or others took that mark for one that was left.
// Whatever the branch was when it was listed, nobody has kept it since.
var ErrUnmarked = errors.New("the branch does not know of this any more: it was deleted meanwhile, or this was taken for dead; nothing was committed, try again")

// taking is a commit that is being made: from its beginning on, nobody
// destroys what the branch has without keeping it.
type taking struct {
	r     *Repo
	token string
	since time.Time // before it was marked
	ref   *refs.Ref
	done  bool
}

// What the log says of a mark that came and went.
const (
	begins = "commit begins"
	ended  = "nothing came of it"
)

// IsMark says whether a generation only says that a commit is being made.
func IsMark(ref *refs.Ref) bool { return ref.Why == begins || ref.Why == ended }

// begin marks the branch, and returns when everybody goes by the mark.
func (r *Repo) begin(ctx context.Context, branch string) (*taking, error) {
	return r.beginAs(ctx, branch, "")
}

// beginAs is begin with a token that ends so. Of those that end in something
// there is one at a time: others are of who died.
func (r *Repo) beginAs(ctx context.Context, branch, only string) (*taking, error) {
	t := &taking{r: r, token: fmt.Sprintf("%s/%s%s", r.opts.Host, rand.Text()[:8], only), since: time.Now()}
	err := t.mark(ctx, branch, only)
	if err != nil {
		return nil, err
	}
	// Who deletes garbage sees the mark, or is seen; then, as a collection may
	// have taken a pin that a mount goes by, its changes are waited for, too.
	if err = r.unswept(ctx); err == nil {
		err = r.opts.Settle(ctx)
	}
	if err != nil {
		t.end(ctx)
		return nil, err
	}
	r.st.Bucket().Forget()
	return t, nil
}

func settle(ctx context.Context) error { return pause(ctx, overlay.Belief) }

func (t *taking) mark(ctx context.Context, branch, only string) error {
	for range attempts {
		ref, err := t.r.refs.Load(ctx, branch)
		if errors.Is(err, backend.ErrNotExist) {
			if there, err := t.r.st.BranchExists(ctx, branch); err != nil || !there {
				return errors.Join(err, fmt.Errorf("branch %q: %w", branch, store.ErrNotExist))
			}
			t.ref, err = t.r.refs.Create(ctx, branch, refs.Ref{Committing: t.token, Why: begins})
			if err == nil || !errors.Is(err, refs.ErrExist) {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		next := *ref
		next.Committing = with(ref.Committing, t.token, only)
		next.Why = begins
		t.ref, err = t.r.refs.Advance(ctx, ref, next)
		if err == nil || !errors.Is(err, refs.ErrLost) {
			return err
		}
	}
	return fmt.Errorf("branch %q: %w", branch, refs.ErrLost)
}

// advance makes a generation of what the branch is now, and tries again where
// somebody else was faster. t.ref is what the branch was last, also where change
// refuses. ErrUnmarked, refs.ErrLost.
func (t *taking) advance(ctx context.Context, change func(now refs.Ref) (refs.Ref, error)) error {
	for range attempts {
		if !slices.Contains(strings.Fields(t.ref.Committing), t.token) {
			return fmt.Errorf("branch %q: %w", t.ref.Branch, ErrUnmarked)
		}
		next, err := change(*t.ref)
		if err != nil {
			return fmt.Errorf("branch %q: %w", t.ref.Branch, err)
		}
		next.Committing = without(t.ref.Committing, t.token)
		ref, err := t.r.refs.Advance(ctx, t.ref, next)
		if err == nil {
			t.ref, t.done = ref, true
			t.r.st.Bucket().Forget()
			return nil
		}
		if !errors.Is(err, refs.ErrLost) {
			return err
		}
		ref, err = t.r.refs.Load(ctx, t.ref.Branch)
		if errors.Is(err, backend.ErrNotExist) {
			err = fmt.Errorf("branch %q: %w", t.ref.Branch, ErrUnmarked)
		}
		if err != nil {
			return err
		}
		t.ref = ref
	}
	return fmt.Errorf("branch %q: %w", t.ref.Branch, refs.ErrLost)
}

// finish advances the branch to next, whose Base is that of now, and takes the
// mark away. refs.ErrLost where the branch has another head or base by now:
// t.ref is what it has then, and the mark is still there. That others only
// began is no loss. ErrUnmarked.
func (t *taking) finish(ctx context.Context, next refs.Ref) error {
	if elapsed(t.since) > commitWithin {
		return fmt.Errorf("branch %q: it took more than %v, so that a collection of garbage may not have waited for it: try again", t.ref.Branch, commitWithin)
	}
	was := t.ref
	return t.advance(ctx, func(now refs.Ref) (refs.Ref, error) {
		if now.Head != was.Head || now.Base != was.Base {
			t.r.st.Bucket().Forget() // of the base, whose whiteouts are gone soon
			return now, refs.ErrLost
		}
		next.Base = now.Base
		return next, nil
	})
}

// independent takes base and mark away from the branch. ErrUnmarked.
func (t *taking) independent(ctx context.Context) error {
	base := t.ref.Base
	return t.advance(ctx, func(now refs.Ref) (refs.Ref, error) {
		if now.Base != base {
			return now, refs.ErrLost
		}
		now.Base, now.Why = "", "independent of "+base[:12]
		return now, nil
	})
}

// end takes the mark away where nothing came of it. Where that fails it stays,
// and costs pins that nobody needs.
func (t *taking) end(ctx context.Context) {
	if t.done {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = t.advance(ctx, func(now refs.Ref) (refs.Ref, error) {
		now.Why = ended
		return now, nil
	})
}

// maxTokens bounds the marks of a ref; more are of commits that died.
const maxTokens = 20

// with adds a token to marks, in the place of those that end in only.
func with(marks, token, only string) string {
	all := slices.DeleteFunc(strings.Fields(marks), func(s string) bool { return only != "" && strings.HasSuffix(s, only) })
	all = append(all, token)
	return strings.Join(all[max(0, len(all)-maxTokens):], " ")
}

func without(marks, token string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(marks), func(s string) bool { return s == token }), " ")
}
