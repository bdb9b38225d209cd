package history

import (
	"maps"
	"testing"
	"time"

	"github.com/keifs/keifs/backend/mem"
)

func TestTimeInThePathIsWhatTheBranchWas(t *testing.T) {
	raw := mem.New("", mem.Options{})
	w := &world{}
	c := w.client(t, raw, "one")
	now := time.Now()
	at := now.Add(-72 * time.Hour)
	c.Repo = New(raw, c.st, Options{Commit: small, Settle: w.settle, Now: func() time.Time { return at }})
	c.put("main/a", "1")
	first := c.commit("main", "first")
	if err := c.Tag(t.Context(), "v1", first, ""); err != nil {
		t.Fatal(err)
	}
	at = now.Add(-3 * time.Hour)
	c.put("main/a", "2")
	c.commit("main", "second")
	at = now
	c.put("main/a", "3")
	c.commit("main", "third")
	for revision, want := range map[string]string{
		"main@2h": "2", "main@120m": "2", "main@yesterday": "1", "main@2d": "1", "main@v1": "1", "main@~0": "3", "main@~1": "2", "main@~2": "1",
		"main@" + first.ID[:8]: "1",
		"main@" + now.Add(-48*time.Hour).Local().Format("2006-01-02T15:04"):    "1",
		"main@" + now.Add(-2*time.Hour).UTC().Format("2006-01-02T15:04:05Z"):   "2",
		"main@" + now.Add(-70*time.Hour).Local().Format("2006-01-02T15:04:05"): "1",
		"main@" + now.Add(26*time.Hour).Local().Format("2006-01-02"):           "3",
		"main@" + now.Add(-2*time.Hour).UTC().Format("2006-01-02T15:04:05.0Z"): "2",
		"main@" + now.Add(-200*time.Hour).UTC().Format("2006-01-02T15:04:05Z"): "",
		"main@1w": "", "main@~3": "", "main@nothing": "",
	} {
		tree := map[string]string{}
		if want != "" {
			tree["a"] = want
		}
		if got := c.tree(revision); !maps.Equal(got, tree) {
			t.Errorf("%s is %v, want %v", revision, got, tree)
		}
	}
}
