package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend/mem"
)

// What a flat listing says of each directory, in pages of any size and from
// any place on, is what the directory's own listing says.
func TestASubtreeListsWhatItsDirectoriesList(t *testing.T) {
	keys := []string{
		"a", "a-b", "a-b/x", "a/1", "a/2/3", "a/2/4/5", "a0", "b/", "c/d/", "c/d/e", "c/d.x", "c/d-/y", "d//x", "d/../y", "e/f/g/h/i/j",
		"z", "z!", "z!!", "z/", "z/q", "\u00fc/x", "%!%FF/x",
	}
	for _, size := range []int{1, 2, 3, 5, 1000} {
		b := newBench(t, mem.Options{PageSize: size}, Options{})
		ctx := t.Context()
		for _, key := range keys {
			content := "x"
			if strings.HasSuffix(key, "/") {
				content = ""
			}
			b.put("main/"+key, content)
		}
		listed := map[Path][]Entry{}
		var walk func(dir Path)
		walk = func(dir Path) {
			listed[dir] = []Entry{}
			for e, err := range b.List(ctx, dir) {
				ok(t, err)
				listed[dir] = append(listed[dir], e)
				if e.IsDir() {
					walk(dir.join(e.Name))
				}
			}
		}
		walk(Path{})
		for dir := range listed {
			for start := range listed {
				if !dir.Contains(start) {
					continue
				}
				from, err := b.SpotOf(start, Cursor{})
				ok(t, err)
				b.checkSubtree(t, fmt.Sprintf("pages of %d of %q from %q", size, dir, start), dir, from, listed)
			}
		}
	}
}

func (b *bench) checkSubtree(t *testing.T, what string, dir Path, from Spot, listed map[Path][]Entry) {
	t.Helper()
	at := map[Path]Cursor{} // how far each directory is known
	got := map[Path][]string{}
	done := map[Path]bool{}
	for {
		page, err := b.SubtreePage(t.Context(), dir, from)
		ok(t, err)
		for _, run := range page.Runs {
			if old, seen := at[run.Dir]; seen && (done[run.Dir] || old.Compare(run.From) != 0) {
				t.Fatalf("%s: %q goes on at %v, not %v", what, run.Dir, run.From, old)
			} else if !seen {
				for _, e := range listed[run.Dir] { // before where it begins
					if !run.From.Before(e) {
						got[run.Dir] = append(got[run.Dir], e.Name)
					}
				}
			}
			for _, e := range run.Entries {
				got[run.Dir] = append(got[run.Dir], e.Name)
			}
			at[run.Dir], done[run.Dir] = run.Next, run.Done
		}
		if page.Done {
			break
		}
		from = page.Next
	}
	for d, names := range got {
		var want []string
		for _, e := range listed[d] {
			want = append(want, e.Name)
		}
		if !slices.Equal(names, want) || !done[d] {
			t.Errorf("%s: %q has %q, want %q; to the end: %v", what, d, names, want, done[d])
		}
	}
}
