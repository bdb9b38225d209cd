package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// watchedVolume is a volume whose files tell of their reads.
type watchedVolume struct {
	store.Volume
	read func(ctx context.Context, p []byte, off int64, n int, err error) // after each
}

type watchedTree struct {
	store.Tree
	v *watchedVolume
}

type watchedFile struct {
	store.File
	v *watchedVolume
}

func (v *watchedVolume) Branch(ctx context.Context, name string) (store.Tree, error) {
	t, err := v.Volume.Branch(ctx, name)
	return &watchedTree{t, v}, err
}

func (t *watchedTree) Open(ctx context.Context, p store.Path, flags store.OpenFlags) (store.File, error) {
	f, err := t.Tree.Open(ctx, p, flags)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, t.v}, nil
}

func (f *watchedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(ctx, p, off)
	f.v.read(ctx, p, off, n, err)
	return n, err
}

const pushedSize = 8 << 20

// readAtRandom reads pages of the file, each once, until enough of them have
// reached the volume.
func readAtRandom(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	for _, page := range rand.New(rand.NewPCG(1, 2)).Perm(len(want) / len(p))[:pushAfter+20] {
		off := page * len(p)
		if _, err := f.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
			t.Fatalf("page %d: %v", page, err)
		}
	}
}

func TestAFileThatIsReadAtRandomAgainAndAgainIsReadAsAWhole(t *testing.T) {
	t.Parallel()
	b := bucket()
	ended := make(chan error, 1)
	vol := &watchedVolume{cached(t, b), func(_ context.Context, p []byte, off int64, _ int, err error) {
		if len(p) == pushPiece && off == pushedSize {
			ended <- err
		}
	}}
	root, _ := mountVolume(t, vol, Options{})
	name, want := filepath.Join(mainBranch(t, root), "file"), putRandom(t, b)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	readAtRandom(t, f, want)
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("at the end of the file: %v", err)
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("other content, %v", err)
	}
}

// What was read before a change must not come to the kernel after it.
func TestNoPageIsGivenToTheKernelThatAWriterHasChanged(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(name string) error{
		"by a write": func(name string) error { return changeAt(name, []byte("new")) },
		"by a truncation": func(name string) error {
			if err := os.Truncate(name, 0); err != nil {
				return err
			}
			return changeAt(name, []byte("new"))
		},
		"by opening it so": func(name string) error { return os.WriteFile(name, []byte("new"), 0o644) },
	} {
		t.Run(what, func(t *testing.T) {
			reached, changed := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b := bucket()
			vol := &watchedVolume{cached(t, b), func(ctx context.Context, p []byte, off int64, _ int, _ error) {
				if len(p) != pushPiece || off != 0 {
					return
				}
				once.Do(func() {
					close(reached)
					select {
					case <-changed:
					case <-ctx.Done():
					}
				})
			}}
			root, _ := mountVolume(t, vol, Options{})
			name, want := filepath.Join(mainBranch(t, root), "file"), putRandom(t, b)
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			readAtRandom(t, f, want)
			<-reached
			if err := change(name); err != nil {
				t.Fatal(err)
			}
			close(changed)
			got := make([]byte, 3)
			if _, err := f.ReadAt(got, 0); err != nil || string(got) != "new" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func changeAt(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// putRandom stores a file of which the kernel knows nothing.
func putRandom(t *testing.T, b backend.Backend) []byte {
	t.Helper()
	p := make([]byte, pushedSize)
	src := rand.NewChaCha8([32]byte{7})
	src.Read(p)
	if _, err := b.Put(t.Context(), "main/file", backend.Bytes(p), backend.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}
