package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

const bucket = "s3://bucket"

func open(t *testing.T, path string, opts Options) *Journal {
	t.Helper()
	if opts.Store == "" {
		opts.Store = bucket
	}
	j, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t *testing.T, j *Journal, data string, replaces ...ID) ID {
	t.Helper()
	id, err := j.Append(1, []byte(data), replaces...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func live(t *testing.T, j *Journal) (all []string) {
	t.Helper()
	for _, r := range records(t, j) {
		all = append(all, string(r.Data))
	}
	return all
}

func records(t *testing.T, j *Journal) (all []Record) {
	t.Helper()
	err := j.Replay(func(r Record) error { all = append(all, r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// crashed is a copy of the journal's file as the death of the process leaves it.
func crashed(t *testing.T, j *Journal) string {
	t.Helper()
	data, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("live are %q, want %q", got, want)
	}
}

func TestRecordsOutliveTheProcessInTheirOrder(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	a := add(t, j, "a")
	add(t, j, "b")
	c := add(t, j, "c")
	j.Done(a)
	add(t, j, "d", c) // which also writes that a is done
	again := open(t, crashed(t, j), Options{})
	expect(t, live(t, again), "b", "d")
	add(t, again, "e")
	expect(t, live(t, open(t, crashed(t, again), Options{})), "b", "d", "e")
}

func TestEveryTornTailLeavesWhatWasWrittenBefore(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	var ends []int64
	for i := range 3 {
		add(t, j, fmt.Sprint("record ", i))
		j.mu.Lock()
		ends = append(ends, j.size)
		j.mu.Unlock()
	}
	whole, err := os.ReadFile(crashed(t, j))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	for cut := ends[0]; cut < ends[2]; cut += 3 {
		for _, tail := range [][]byte{nil, make([]byte, 100), []byte("garbage that is longer than a frame's prefix")} {
			torn := append(slices.Clone(whole[:cut]), tail...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			j := open(t, path, Options{Boot: "another"}) // which saves a sync of the file system
			want := []string{"record 0", "record 1"}
			if cut < ends[1] {
				want = want[:1]
			}
			expect(t, live(t, j), want...)
			j.Close()
			if kept, err := os.ReadFile(path + ".torn"); len(tail) > 0 && !bytes.Equal(kept, torn) {
				t.Fatalf("cut at %d: the file as it was is not kept: %v", cut, err)
			}
			os.Remove(path + ".torn")
		}
	}
}

func TestJournalOfAnotherStoreIsRefusedUnlessItIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{})
	id := add(t, j, "a")
	j.Close()
	if _, err := Open(path, Options{Store: "s3://other"}); !errors.Is(err, ErrForeign) {
		t.Fatalf("opened for another store: %v", err)
	}
	j = open(t, path, Options{})
	expect(t, live(t, j), "a")
	j.Done(id)
	j.Close()
	open(t, path, Options{Store: "s3://other"}).Close()
}

func TestWhatIsNotAJournalOfThisFormatIsRefusedAndLeftAlone(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": nil,
		"text":  []byte("something else altogether"),
		"newer": appendFrame([]byte(magic), head{Format: format + 1, Store: bucket}.frame()),
		"torn":  appendFrame([]byte(magic), head{Format: format, Store: bucket}.frame())[:20],
	} {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{Store: bucket}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestOnlyWhatWasSyncedIsTrustedAfterTheMachineWentDown(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{Boot: "first", SyncEvery: time.Hour})
	add(t, j, "a")
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, j, "b")
	trusted := func(j *Journal) string {
		s := ""
		for _, r := range records(t, j) {
			if r.Synced {
				s += string(r.Data)
			}
		}
		return s
	}
	if got := trusted(open(t, crashed(t, j), Options{Boot: "first"})); got != "ab" {
		t.Fatalf("after the death of the process %q are trusted", got)
	}
	path := crashed(t, j)
	second := open(t, path, Options{Boot: "second"})
	if got := trusted(second); got != "a" {
		t.Fatalf("after the death of the machine %q are trusted", got)
	}
	add(t, second, "c")
	if err := second.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if got := trusted(open(t, path, Options{Boot: "second"})); got != "ac" {
		t.Fatalf("what was doubtful once is trusted later: %q", got)
	}
}

func TestSyncComesAfterWhatTheRecordsReferTo(t *testing.T) {
	var calls []string
	var j *Journal
	j = open(t, filepath.Join(t.TempDir(), "journal"), Options{SyncEvery: time.Hour, BeforeSync: func() error {
		calls = append(calls, fmt.Sprint(j.Stats().Syncs))
		if len(calls) == 1 {
			return errors.New("the disk is not there")
		}
		return nil
	}})
	add(t, j, "a")
	if err := j.Sync(t.Context()); err == nil {
		t.Fatal("synced, though what the record refers to is not")
	}
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Sync(t.Context()); err != nil { // nothing to do
		t.Fatal(err)
	}
	if want := []string{"0", "0"}; !slices.Equal(calls, want) || j.Stats().Syncs != 1 {
		t.Fatalf("called after %v syncs, want %v; %d syncs in all", calls, want, j.Stats().Syncs)
	}
}

func TestUnsyncedRecordsWaitNoLongerThanTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
		for range 10 {
			add(t, j, "a")
		}
		synctest.Wait()
		if n := j.Stats().Syncs; n != 0 {
			t.Fatalf("%d syncs at once", n)
		}
		time.Sleep(defaultEvery)
		synctest.Wait()
		if n := j.Stats().Syncs; n != 1 {
			t.Fatalf("%d syncs after %v", n, defaultEvery)
		}
		time.Sleep(time.Minute)
		if n := j.Stats().Syncs; n != 1 {
			t.Fatalf("%d syncs with nothing to sync", n)
		}
		j.Close()
	})
}

func TestSyncEachSharesSyncsAndCoversEveryRecord(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{SyncEach: true, Boot: "first"})
	var group sync.WaitGroup
	for w := range 16 {
		group.Go(func() {
			for i := range 20 {
				id, err := j.Append(1, fmt.Appendf(nil, "%d/%d", w, i))
				if err != nil {
					t.Error(err)
				}
				j.mu.Lock()
				if j.synced < id {
					t.Errorf("%d was acknowledged, synced are those up to %d", id, j.synced)
				}
				j.mu.Unlock()
			}
		})
	}
	group.Wait()
	for _, r := range records(t, open(t, crashed(t, j), Options{Boot: "second"})) {
		if !r.Synced {
			t.Fatalf("%s was acknowledged and is not trusted", r.Data)
		}
	}
}

func TestDeadRecordsDoNotFillTheDisk(t *testing.T) {
	const garbage = 64 << 10
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path, Options{Garbage: garbage})
	kept := add(t, j, "kept")
	data := string(make([]byte, 1000))
	last := add(t, j, data)
	for range 1000 {
		last = add(t, j, data, last)
		if n := j.Stats().Bytes; n > 2*garbage+4096 {
			t.Fatalf("%d bytes for two records", n)
		}
	}
	expect(t, live(t, j), "kept", data)
	again := open(t, crashed(t, j), Options{})
	expect(t, live(t, again), "kept", data)
	j.Done(kept, last)
}

func TestManyWorkersLoseAndRepeatNothing(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{Garbage: 1000, SyncEvery: time.Millisecond})
	var mu sync.Mutex
	want := map[string]bool{}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("%d/%d", w, i)
				id, err := j.Append(Kind(w), []byte(name))
				if err != nil {
					t.Error(err)
				}
				switch i % 3 {
				case 0:
					j.Done(id)
					continue
				case 1:
					name += "+"
					if _, err := j.Append(Kind(w), []byte(name), id); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				want[name] = true
				mu.Unlock()
			}
			if err := j.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	add(t, j, "last")
	want["last"] = true
	for _, j := range []*Journal{j, open(t, crashed(t, j), Options{})} {
		got := map[string]bool{}
		for _, name := range live(t, j) {
			got[name] = true
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d are live, want %d", len(got), len(want))
		}
	}
}

func TestFullDiskRefusesTheRecordAndKeepsTheJournal(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	a := add(t, j, "a")
	full := func(f *os.File, p []byte, off int64) (int, error) {
		n, _ := f.WriteAt(p[:len(p)/2], off)
		return n, unix.ENOSPC
	}
	j.mu.Lock() // the writer sleeps, and wakes by way of the lock
	j.writeAt = full
	j.mu.Unlock()
	if _, err := j.Append(1, []byte("b"), a); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("appended to a full disk: %v", err)
	}
	expect(t, live(t, open(t, crashed(t, j), Options{})), "a")
	j.mu.Lock()
	j.writeAt = (*os.File).WriteAt
	j.mu.Unlock()
	add(t, j, "c")
	expect(t, live(t, open(t, crashed(t, j), Options{})), "a", "c")
}

func TestNothingIsTakenThatTheJournalCannotHold(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"), Options{})
	if _, err := j.Append(1, make([]byte, MaxRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := j.Append(200, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("kind 200: %v", err)
	}
	j.Close()
	if _, err := j.Append(1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	j.Done(1)
	if err := j.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{tag: 1, id: 7, ids: []ID{1, 2}, data: []byte("data")}))
	f.Add(appendFrame(nil, head{Format: 1, Store: bucket}.frame()))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, p []byte) {
		decoded, err := decodeFrame(p)
		if err != nil {
			return
		}
		if again := appendFrame(nil, decoded); !bytes.Equal(again, p) {
			t.Fatalf("%x decodes to what encodes to %x", p, again)
		}
	})
}

// Whatever is behind the header, Open ends with the records before it.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(nil, frame{tag: 1, id: 3, data: []byte("x")}))
	f.Add(appendFrame(nil, frame{tag: tagMark, id: 1 << 62}))
	f.Fuzz(func(t *testing.T, tail []byte) {
		start := appendFrame([]byte(magic), head{Format: format, Store: bucket}.frame())
		start = appendFrame(start, frame{tag: 1, id: 1, data: []byte("first")})
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, append(start, tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, path, Options{})
		n := len(records(t, j))
		add(t, j, "more")
		if got := len(records(t, j)); got != n+1 {
			t.Fatalf("%d records, and one more are %d", n, got)
		}
	})
}
