package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/history"
)

// The branch main with a commit of some files, over a bucket that records.
func committedStore(t *testing.T, files int) (*store.Store, backend.Backend, *fault.Injector) {
	t.Helper()
	record := fault.New()
	b := record.Wrap(mem.New("", mem.Options{}))
	for i := range files {
		_, err := b.Put(t.Context(), fmt.Sprintf("main/d%d/f%d", i%10, i), backend.Bytes([]byte("as it was")), backend.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	caps := b.Caps()
	st, err := store.Open(t.Context(), b, store.Options{Caps: &caps})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody else is there who could go by an older ref.
	h := history.New(b, st, history.Options{Settle: func(context.Context) error { return nil }})
	if _, err := h.Commit(t.Context(), "main", history.CommitOptions{Message: "the first"}); err != nil {
		t.Fatal(err)
	}
	return st, b, record
}

func TestABranchOfACommitCostsTheSameWhateverItsSize(t *testing.T) {
	var costs []int
	for _, files := range []int{3, 3000} {
		st, b, record := committedStore(t, files)
		record.ResetRequests()
		if err := fork(t.Context(), st, b, "dev", "main"); err != nil {
			t.Fatal(err)
		}
		costs = append(costs, record.Count(""))
		if n := record.Count(""); n > 5 {
			t.Errorf("%d requests:\n%s", n, strings.Join(record.Requests(), "\n"))
		}
		dev, err := st.Branch("dev")
		if err != nil {
			t.Fatal(err)
		}
		p, err := store.ParsePath("d1/f1")
		if err != nil {
			t.Fatal(err)
		}
		if e, err := dev.Lookup(t.Context(), p); err != nil || e.Size != 9 {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if costs[0] != costs[1] {
		t.Errorf("requests: %v", costs)
	}
}

func TestWhatIsWrongWithABranchIsSaid(t *testing.T) {
	st, b, _ := committedStore(t, 1)
	if err := fork(t.Context(), st, b, "dev", "main"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fork(t.Context(), st, b, "dev", "main"), "branch dev exists already"},
		{fork(t.Context(), st, b, "main", "main"), "branch main exists already"},
		{fork(t.Context(), st, b, "new", "nothing"), `there is no commit "nothing" to make a branch of`},
		{fork(t.Context(), st, b, "new", "main~1"), `there is no commit "main~1" to make a branch of`},
		{fork(t.Context(), st, b, "a@b", "main"), `"a@b" is no name for a branch`},
		{fork(t.Context(), st, b, "a/b", "main"), `"a/b" is no name for a branch`},
		{dropBranch(t.Context(), st, b, "nothing", ""), "there is no branch nothing"},
		{dropBranch(t.Context(), st, b, "main@~1", ""), `"main@~1" is no name for a branch`},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("%v; want: %s", c.err, c.want)
		}
	}
}

func TestADeletedBranchCanBeMadeAgain(t *testing.T) {
	st, b, _ := committedStore(t, 2)
	for range 2 {
		if err := fork(t.Context(), st, b, "dev", "main"); err != nil {
			t.Fatal(err)
		}
		dev, err := st.Branch("dev")
		if err != nil {
			t.Fatal(err)
		}
		for _, rel := range []string{"d0/f0", "d1/f1"} {
			p, err := store.ParsePath(rel)
			if err != nil {
				t.Fatal(err)
			}
			if err := dev.Remove(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if err := dropBranch(t.Context(), st, b, "dev", ""); err != nil {
			t.Fatal(err)
		}
		if there, err := st.BranchExists(t.Context(), "dev"); there || err != nil {
			t.Errorf("dev is there: %v, %v", there, err)
		}
	}
}

func TestADeletionIsConfirmed(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "yes\n": true, "\n": false, "no\n": false, "": false} {
		var out bytes.Buffer
		if err := confirm(strings.NewReader(answer), &out, "Really?"); (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
		if out.String() != "Really? [y/N] " {
			t.Errorf("%q", out.String())
		}
	}
}
