package file_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/file"
)

// The tests start this binary again as other processes of the same store.
const (
	childEnv  = "KEIFS_FILE_TEST_CHILD" // which of the functions below
	childRoot = "KEIFS_FILE_TEST_ROOT"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "writer":
		writer(os.Getenv(childRoot))
	case "counter":
		counter(os.Getenv(childRoot))
	default:
		os.Exit(m.Run())
	}
}

func child(t *testing.T, what, root string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+what, childRoot+"="+root)
	cmd.Stderr = os.Stderr
	return cmd
}

// body is the content of version n of an object, of a size of its own, so
// that any mix of two versions shows.
func body(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d\n", n), 100+n%7*1000)
}

func parseBody(data []byte) (int, error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	if err == nil && !bytes.Equal(data, body(n)) {
		err = fmt.Errorf("%d bytes are not version %d", len(data), n)
	}
	return n, err
}

// writer stores ever newer versions of its objects, in all ways there are, and
// says so after each, until it is killed.
func writer(root string) {
	b, err := file.Open(root, file.Options{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	var mu sync.Mutex // of the lines
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for n := 1; ; n++ {
				key := fmt.Sprintf("dir-%d/%d/object", w, n%4)
				if err := store(ctx, b, key, n); err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Printf("put %s %d\n", key, n)
				mu.Unlock()
				gone := fmt.Sprintf("dir-%d/%d/object", w, (n+2)%4)
				if n%5 != 0 {
					continue
				}
				mu.Lock()
				fmt.Printf("delete %s 0\n", gone) // about to: it may be there or not from now on
				mu.Unlock()
				if err := b.Delete(ctx, gone, backend.Cond{}); err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Printf("deleted %s 0\n", gone)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func store(ctx context.Context, b backend.Backend, key string, n int) error {
	opts := backend.PutOptions{Metadata: map[string]string{"version": strconv.Itoa(n)}}
	src := backend.Bytes(body(n))
	if n%3 != 0 {
		_, err := b.Put(ctx, key, src, opts)
		return err
	}
	a, _ := backend.As[backend.Assembler](b)
	asm, err := a.Assemble(ctx, key, opts)
	if err != nil {
		return err
	}
	half := src.Size() / 2
	if err := asm.PutPart(ctx, 2, backend.Section(src, half, src.Size()-half)); err != nil {
		return err
	}
	if err := asm.PutPart(ctx, 1, backend.Section(src, 0, half)); err != nil {
		return err
	}
	_, err = asm.Complete(ctx)
	return err
}

func TestSurvivesKill9(t *testing.T) {
	root := t.TempDir()
	for round := range 12 {
		cmd := child(t, "writer", root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after some acknowledgements, in the middle of what comes next.
		last := map[string]int{}    // acknowledged version; 0 is deleted
		unsure := map[string]bool{} // a deletion was under way
		lines := bufio.NewScanner(out)
		for left := 20 + rand.IntN(100); lines.Scan(); left-- {
			var what, key string
			var n int
			if _, err := fmt.Sscan(lines.Text(), &what, &key, &n); err != nil {
				break // cut off by the kill
			}
			if what == "delete" {
				unsure[key] = true
			} else {
				last[key] = n
				delete(unsure, key)
			}
			if left == 0 {
				cmd.Process.Kill() // and read what it still had said
			}
		}
		cmd.Wait()
		if len(last) == 0 {
			t.Fatal("the writer has written nothing")
		}
		checkAfterCrash(t, round, root, last, unsure)
	}
}

func checkAfterCrash(t *testing.T, round int, root string, last map[string]int, unsure map[string]bool) {
	t.Helper()
	b, err := file.Open(root, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if left, err := os.ReadDir(filepath.Join(root, ".keifs-store", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("round %d: left behind by the dead: %v, %v", round, left, err)
	}
	found := map[string]int{}
	for info, err := range backend.ListRecursive(t.Context(), b, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, full, err := backend.ReadAll(t.Context(), b, info.Key, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseBody(data)
		if err != nil || full.Metadata["version"] != strconv.Itoa(n) || !strings.HasSuffix(info.Key, "/object") {
			t.Errorf("round %d: %s: %v, metadata %q", round, info.Key, err, full.Metadata)
		}
		found[info.Key] = n
	}
	for key, n := range last {
		// The version after the acknowledged one may have been under way.
		if got := found[key]; n > 0 && got < n && !(got == 0 && unsure[key]) {
			t.Errorf("round %d: %s was acknowledged in version %d, there is %d", round, key, n, got)
		}
	}
	// The next round counts from 1 again.
	for key := range found {
		if err := b.Delete(t.Context(), key, backend.Cond{}); err != nil {
			t.Fatal(err)
		}
	}
}

const countTo = 40

// counter adds to a number in an object, by conditional writes.
func counter(root string) {
	b, err := file.Open(root, file.Options{})
	if err != nil {
		panic(err)
	}
	defer b.Close()
	for done := 0; done < countTo; {
		if ok, err := increment(context.Background(), b); err != nil {
			panic(err)
		} else if ok {
			done++
		}
	}
}

func increment(ctx context.Context, b backend.Backend) (bool, error) {
	var n int
	var cond backend.Cond
	data, info, err := backend.ReadAll(ctx, b, "dir/number", 100)
	switch {
	case err == nil:
		if n, err = strconv.Atoi(string(data)); err != nil {
			return false, err
		}
		cond.IfMatch = info.ETag
	case errors.Is(err, backend.ErrNotExist):
		cond.IfAbsent = true
	default:
		return false, err
	}
	_, err = b.Put(ctx, "dir/number", backend.Bytes(strconv.AppendInt(nil, int64(n+1), 10)), backend.PutOptions{Cond: cond})
	if errors.Is(err, backend.ErrPrecondition) {
		return false, nil
	}
	return err == nil, err
}

func TestConditionsHoldBetweenProcesses(t *testing.T) {
	root := t.TempDir()
	const processes = 3
	var cmds []*exec.Cmd
	for range processes {
		cmd := child(t, "counter", root)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "dir", "number"))
	if err != nil || string(data) != strconv.Itoa(processes*countTo) {
		t.Errorf("%d processes have counted to %d each, to %q together, %v", processes, countTo, data, err)
	}
}
