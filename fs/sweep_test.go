package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestTheKernelForgetsFilesThatNobodyUses walks many more files than the kernel
// may know, while some are in use.
func TestTheKernelForgetsFilesThatNobodyUses(t *testing.T) {
	const limit, dirs, files = 100, 20, 25
	for name, old := range map[string]bool{"by inode": false, "by name": true} {
		t.Run(name, func(t *testing.T) {
			b := bucket()
			for d := range dirs {
				for f := range files {
					put(t, b, fmt.Sprintf("main/d%02d/f%02d", d, f), "content")
				}
			}
			root, server := mountVolume(t, cached(t, b), Options{TTL: forever, Inodes: limit, old: old})
			main := filepath.Join(root, "main")
			held, err := os.Open(filepath.Join(main, "d00/f00"))
			must(t, err)
			defer held.Close()
			number := stat(t, held.Name()).Ino
			worker := exec.Command("sh", "-c", "read line; /bin/pwd && cat f01")
			worker.Dir = filepath.Join(main, "d01")
			done, err := worker.StdinPipe()
			must(t, err)
			out := &logBuffer{}
			worker.Stdout, worker.Stderr = out, out
			must(t, worker.Start())

			if n := sh(t, main, "ls -lR . && find . -type f -exec stat -c %s {} +"); n < 2*files*dirs {
				t.Errorf("%d lines", n)
			}
			most := limit + 2*limit/sweptPart
			for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
				live, _ := server.m.numbers.count()
				if live <= most {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%d files and directories are known, want %d at most", live, most)
				}
			}

			mustContain(t, held.Name(), "content")
			content := make([]byte, 7)
			if _, err := held.ReadAt(content, 0); err != nil || string(content) != "content" {
				t.Errorf("the open file reads %q, %v", content, err)
			}
			if st := stat(t, held.Name()); st.Ino != number {
				t.Errorf("the open file has another number by its name: %d, not %d", st.Ino, number)
			}
			must(t, done.Close())
			must(t, worker.Wait())
			if want := worker.Dir + "\ncontent"; out.String() != want {
				t.Errorf("who works in a directory is at %q, want %q", out, want)
			}
		})
	}
}
