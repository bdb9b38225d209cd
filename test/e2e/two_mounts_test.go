package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/test/versitygw"
)

// twoMounts mounts one new bucket on two hosts.
func twoMounts(t *testing.T) (a, b *mount, srv *versitygw.Server, bucket string) {
	srv = versitygw.Shared(t)
	bucket = srv.NewBucket(t)
	a = s3Host(t, srv).mount("s3://" + bucket)
	a.sh(".", "mkdir main")
	b = s3Host(t, srv).mount("s3://" + bucket)
	return a, b, srv, bucket
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// TestCloseToOpen: what one mount closed, another reads when it opens after.
func TestCloseToOpen(t *testing.T) {
	a, b, _, _ := twoMounts(t)
	write(t, a.path("main/f"), "first")
	if got := read(t, b.path("main/f")); got != "first" {
		t.Fatalf("b reads %q", got)
	}
	for i := range 50 {
		w, r := a, b
		if i%2 == 1 {
			w, r = b, a
		}
		// Longer and shorter in turn, so that a stale size would show; the
		// stat fills the reader's caches with what is about to be old.
		if _, err := os.Stat(r.path("main/f")); err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat(fmt.Sprintf("%d ", i), 1+(i*37)%91)
		write(t, w.path("main/f"), want)
		if got := read(t, r.path("main/f")); got != want {
			t.Fatalf("round %d: read %q, want %q", i, got, want)
		}
	}
}

// TestExclusiveCreateHasOneWinner: twenty processes on two mounts race for an
// O_EXCL create; exactly one wins, for every name.
func TestExclusiveCreateHasOneWinner(t *testing.T) {
	a, b, _, _ := twoMounts(t)
	for round := range 5 {
		name := fmt.Sprintf("main/lock%d", round)
		var wg sync.WaitGroup
		wins := make(chan string, 20)
		for i := range 20 {
			m := a
			if i%2 == 1 {
				m = b
			}
			wg.Go(func() {
				// noclobber makes the shell open with O_EXCL.
				cmd := exec.Command("bash", "-c", `set -C; echo "$1" > "$0"`, m.path(name), fmt.Sprint(i))
				if cmd.Run() == nil {
					wins <- fmt.Sprint(i)
				}
			})
		}
		wg.Wait()
		close(wins)
		var winners []string
		for w := range wins {
			winners = append(winners, w)
		}
		if len(winners) != 1 {
			t.Fatalf("round %d: winners %v, want one", round, winners)
		}
		for _, m := range []*mount{a, b} {
			if got := strings.TrimSpace(read(t, m.path(name))); got != winners[0] {
				t.Fatalf("round %d: the file says %q, the winner is %s", round, got, winners[0])
			}
		}
	}
}

// TestTwoWritersKeepBoth: when two mounts change one file at once, the second
// to close is told, and both contents are in the bucket.
func TestTwoWritersKeepBoth(t *testing.T) {
	a, b, srv, bucket := twoMounts(t)
	write(t, a.path("main/f"), "base")
	fa, err := os.OpenFile(a.path("main/f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fb, err := os.OpenFile(b.path("main/f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fa.WriteString("from a"); err != nil {
		t.Fatal(err)
	}
	if _, err := fb.WriteString("from b"); err != nil {
		t.Fatal(err)
	}
	if err := fa.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fb.Close(); err == nil {
		t.Fatal("the second writer's close succeeded, though its base was gone")
	}
	contents := map[string]bool{}
	for _, key := range srv.List(t, bucket, "main/f") {
		contents[string(srv.Get(t, bucket, key))] = true
	}
	if !contents["from a"] || !contents["from b"] {
		t.Fatalf("in the bucket: %v", contents)
	}
}

// TestAppendersLoseNoLine: eight processes of one mount append lines to one
// file; every line is there, whole.
func TestAppendersLoseNoLine(t *testing.T) {
	h := newHost(t)
	m := h.mount("file://" + t.TempDir())
	m.sh(".", "mkdir main; : > main/log")
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			script := fmt.Sprintf(`for i in $(seq 100); do echo "writer %d line $i" >> "$0"; done`, p)
			if out, err := exec.Command("bash", "-c", script, m.path("main/log")).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSpace(read(t, m.path("main/log"))), "\n")
	seen := map[string]bool{}
	for _, l := range lines {
		seen[l] = true
	}
	if len(lines) != 800 || len(seen) != 800 {
		t.Fatalf("%d lines, %d different, want 800", len(lines), len(seen))
	}
}
