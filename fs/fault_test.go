package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keifs/keifs/store"
)

// spiedVolume is a volume whose operations on files can be counted and made to fail.
type spiedVolume struct {
	store.Volume
	spy *spy
}

type spy struct {
	reads, lookups atomic.Int64

	panicOn string                // Lookup panics on this name
	flush   atomic.Pointer[error] // what Flush answers
}

func (v *spiedVolume) Root() store.Tree { return &spiedTree{v.Volume.Root(), v.spy} }

func (v *spiedVolume) Branch(ctx context.Context, name string) (store.Tree, error) {
	t, err := v.Volume.Branch(ctx, name)
	return &spiedTree{t, v.spy}, err
}

type spiedTree struct {
	store.Tree
	spy *spy
}

func (t *spiedTree) Lookup(ctx context.Context, p store.Path) (store.Entry, error) {
	t.spy.lookups.Add(1)
	if p.Name() == t.spy.panicOn && t.spy.panicOn != "" {
		panic("planted")
	}
	return t.Tree.Lookup(ctx, p)
}

func (t *spiedTree) Open(ctx context.Context, p store.Path, flags store.OpenFlags) (store.File, error) {
	f, err := t.Tree.Open(ctx, p, flags)
	return &spiedFile{f, t.spy}, err
}

func (t *spiedTree) Create(ctx context.Context, p store.Path, attr store.Attr, exclusive bool) (store.File, error) {
	f, err := t.Tree.Create(ctx, p, attr, exclusive)
	return &spiedFile{f, t.spy}, err
}

type spiedFile struct {
	store.File
	spy *spy
}

func (f *spiedFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f.spy.reads.Add(1)
	return f.File.ReadAt(ctx, p, off)
}

func (f *spiedFile) Flush(ctx context.Context) error {
	if err := f.spy.flush.Load(); err != nil {
		return *err
	}
	return f.File.Flush(ctx)
}

func mountSpied(t *testing.T, spy *spy, opts Options) string {
	t.Helper()
	root, _ := mountVolume(t, &spiedVolume{direct(t, bucket()), spy}, opts)
	return mainBranch(t, root)
}

func TestAPanicInOneRequestLeavesTheMountAlive(t *testing.T) {
	log := &logBuffer{}
	dir := mountSpied(t, &spy{panicOn: "boom"}, Options{Logger: slogTo(log)})
	for range 3 {
		_, err := os.Lstat(filepath.Join(dir, "boom"))
		wantErr(t, "stat", err, unix.EIO)
	}
	write(t, filepath.Join(dir, "file"), "content")
	mustContain(t, filepath.Join(dir, "file"), "content")
	if text := log.String(); !strings.Contains(text, "planted") || !strings.Contains(text, "spiedTree).Lookup") {
		t.Errorf("the log has no panic with its stack:\n%s", text)
	}
}

func TestAnErrorOfPublishingReachesClose(t *testing.T) {
	spy := &spy{}
	dir := mountSpied(t, spy, Options{})
	for err, want := range map[error]errno{
		store.ErrStale:                           unix.ESTALE,
		store.ErrCacheFull:                       unix.ENOSPC,
		fmt.Errorf("the store: %w", unix.ENOENT): unix.EIO,
	} {
		spy.flush.Store(nil)
		f, ferr := os.Create(filepath.Join(dir, "file"))
		must(t, ferr)
		_, ferr = f.WriteString("content")
		must(t, ferr)
		spy.flush.Store(&err)
		wantErr(t, fmt.Sprint("close after ", err), f.Close(), want)
	}
}

func TestAFileThatDidNotChangeIsReadFromTheKernelsCache(t *testing.T) {
	spy := &spy{}
	dir := mountSpied(t, spy, Options{})
	name := filepath.Join(dir, "file")
	content := strings.Repeat("x", 1<<20)
	write(t, name, content)
	mustContain(t, name, content)
	for range 3 {
		before := spy.reads.Load()
		mustContain(t, name, content)
		if n := spy.reads.Load() - before; n != 0 {
			t.Errorf("%d reads of an unchanged file", n)
		}
	}
	// What was written here is in the cache as well, and is what others see.
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("yyy"), 1000)
	must(t, err)
	must(t, f.Close())
	mustContain(t, name, content[:1000]+"yyy"+content[1003:])
}

func TestAFailedPublicationIsNotReadFromTheKernelsCache(t *testing.T) {
	b := bucket()
	spy := &spy{}
	root, _ := mountVolume(t, &spiedVolume{direct(t, b), spy}, Options{})
	name := filepath.Join(mainBranch(t, root), "file")
	// Mounted before the file is open: a program that is started for it would
	// inherit the descriptor, and its end flush it.
	other := mountBranch(t, b, direct)
	write(t, name, "first content")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteString("local content")
	must(t, err)
	write(t, filepath.Join(other, "file"), "other content") // another host is faster
	wantErr(t, "close", f.Close(), unix.ESTALE)
	mustContain(t, name, "other content")
}

func TestSecurityLabelsAreRefusedWithoutAskingTheStore(t *testing.T) {
	spy := &spy{}
	dir := mountSpied(t, spy, Options{})
	name := filepath.Join(dir, "file")
	write(t, name, "content")
	stat(t, name)
	before := spy.lookups.Load()
	for _, attr := range []string{"security.capability", "security.selinux", "system.posix_acl_access"} {
		if _, err := unix.Getxattr(name, attr, nil); err != unix.ENOTSUP {
			t.Errorf("%s: %v", attr, err)
		}
	}
	if n := spy.lookups.Load() - before; n != 0 {
		t.Errorf("%d lookups", n)
	}
}

func TestWritesDoNotAskForSecurityLabelsEachTime(t *testing.T) {
	log := &logBuffer{}
	dir := mountSpied(t, &spy{}, Options{Logger: slogTo(log)})
	f, err := os.Create(filepath.Join(dir, "file"))
	must(t, err)
	for range 100 {
		_, err := f.WriteString("content")
		must(t, err)
	}
	must(t, f.Close())
	if n := strings.Count(log.String(), "op=getxattr"); n > 2 {
		t.Errorf("%d questions for 100 writes", n)
	}
}

func TestAListingAsksOnlyForNames(t *testing.T) {
	b := bucket()
	t.Run("write", func(t *testing.T) {
		dir := mountBranch(t, b, direct)
		for i := range 100 {
			write(t, filepath.Join(dir, fmt.Sprint(i)), "")
		}
	})
	spy := &spy{}
	root, _ := mountVolume(t, &spiedVolume{direct(t, b), spy}, Options{})
	dir := mainBranch(t, root)
	before := spy.lookups.Load()
	if got := len(dirents(t, dir)); got != 102 {
		t.Errorf("%d entries", got)
	}
	if n := spy.lookups.Load() - before; n > 2 { // of the directory itself
		t.Errorf("%d lookups", n)
	}
}

// hangingVolume has files whose content never comes.
type hangingVolume struct {
	store.Volume
	reading chan struct{}
}

func (v *hangingVolume) Branch(ctx context.Context, name string) (store.Tree, error) {
	t, err := v.Volume.Branch(ctx, name)
	return &hangingTree{t, v.reading}, err
}

type hangingTree struct {
	store.Tree
	reading chan struct{}
}

func (t *hangingTree) Open(ctx context.Context, p store.Path, flags store.OpenFlags) (store.File, error) {
	f, err := t.Tree.Open(ctx, p, flags)
	return &hangingFile{f, t.reading}, err
}

type hangingFile struct {
	store.File
	reading chan struct{}
}

func (f *hangingFile) ReadAt(ctx context.Context, _ []byte, _ int64) (int, error) {
	select {
	case f.reading <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func clientCat(args []string) error {
	_, err := os.ReadFile(args[0])
	return err
}

func TestAKilledReaderOfADeadStoreEnds(t *testing.T) {
	vol := &hangingVolume{direct(t, bucket()), make(chan struct{}, 1)}
	root, _ := mountVolume(t, vol, Options{patience: 100 * time.Millisecond})
	name := filepath.Join(mainBranch(t, root), "file")
	write(t, name, "")
	must(t, os.Truncate(name, 4096)) // no page of it is cached

	cmd := client("cat", name)
	must(t, cmd.Start())
	<-vol.reading
	must(t, cmd.Process.Kill())
	state, err := cmd.Process.Wait() // returns when the request is given up
	must(t, err)
	if state.Success() {
		t.Error("the reader was not killed")
	}
}
