package journal

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const killedEnv = "KEIFS_TEST_JOURNAL"

// TestMain is also the process that is killed: it appends until then, and
// tells each record once it is acknowledged.
func TestMain(m *testing.M) {
	path := os.Getenv(killedEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	j, err := Open(path, Options{Store: bucket, Garbage: 4 << 10})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			var last ID
			for i := 0; ; i++ {
				id, err := j.Append(1, fmt.Appendf(nil, "%d %d", w, i), last)
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Printf("ack %d %d\n", w, i)
				last = id
			}
		})
	}
	group.Wait()
}

func TestKilledProcessLosesNothingThatWasAcknowledged(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 10 {
		path := filepath.Join(t.TempDir(), "journal")
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killedEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := map[int]int{}
		lines := bufio.NewScanner(out)
		for n, end := 0, 1+random.IntN(2000); lines.Scan(); n++ {
			var w, i int
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %d", &w, &i); err != nil && !strings.HasPrefix(lines.Text(), "ack") {
				t.Fatalf("the process says %q", lines.Text())
			} else if err == nil {
				acked[w] = i
			}
			if n == end {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		j := open(t, path, Options{})
		found := map[int]int{}
		for _, name := range live(t, j) {
			var w, i int
			if _, err := fmt.Sscanf(name, "%d %d", &w, &i); err != nil {
				t.Fatal(err)
			}
			found[w] = i
		}
		for w, i := range acked {
			if found[w] < i {
				t.Errorf("worker %d: record %d was acknowledged, %d is found", w, i, found[w])
			}
		}
	}
}
