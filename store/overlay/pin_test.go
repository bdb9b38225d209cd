package overlay_test

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store/overlay"
)

func TestWithoutHistoryAChangeCostsNothingMore(t *testing.T) {
	b := newBench(t, mem.Options{})
	b.put("main/a", "1")
	b.cost("overwriting", func() error { return b.write(b, "main/a", "2", backend.Cond{}) }, "PUT main/a")
	b.cost("deleting", func() error { return b.Delete(background, "main/a", backend.Cond{}) }, "DELETE main/a")
}

func TestTheRefIsAskedForByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, mem.Options{})
		b.in.Quiet(nil)
		asked := func() int { return strings.Count(strings.Join(b.in.Requests(), "\n")+"\n", ".json\n") }
		for range 100 {
			b.ok(b.write(b, "main/a", "1", backend.Cond{}))
		}
		if n := asked(); n != 1 {
			t.Errorf("%d times for 100 changes at one moment", n)
		}
		for range 100 {
			time.Sleep(overlay.Belief / 10)
			b.ok(b.write(b, "main/a", "1", backend.Cond{}))
			read(b, "main/a")
		}
		if n := asked(); n > 21 {
			t.Errorf("%d times within %v", n, 10*overlay.Belief)
		}
	})
}

func TestWhatACommitNamesIsPinnedOnce(t *testing.T) {
	b := fork(t, mem.Options{}, "a", "b")
	info := func(key string) backend.Info {
		info, err := b.raw.Stat(background, key)
		b.ok(err)
		return info
	}
	a := info("main/a")
	pin := overlay.PinKey("main/a", a.ETag)
	b.cost("overwriting what is committed", func() error { return b.write(b, "main/a", "2", backend.Cond{IfMatch: a.ETag}) },
		"COPY "+pin+" if-absent", "PUT main/a if-match")
	b.cost("again", func() error { return b.write(b, "main/a", "3", backend.Cond{}) },
		"COPY "+pin+" if-absent", "STAT main/a", "PUT main/a")
	b.cost("with the version", func() error { return b.write(b, "main/a", "4", backend.Cond{IfMatch: info("main/a").ETag}) }, "PUT main/a if-match")
	b.cost("what is new", func() error { return b.write(b, "main/new", "1", backend.Cond{IfAbsent: true}) }, "PUT main/new if-absent")
	b.cost("overwriting what is new", func() error { return b.write(b, "main/new", "2", backend.Cond{}) }, "PUT main/new")
	b.cost("deleting what is committed", func() error { return b.Delete(background, "main/b", backend.Cond{}) },
		"COPY "+overlay.PinKey("main/b", info("main/b").ETag)+" if-absent", "DELETE main/b if-match")
	for _, f := range []string{"a", "b"} {
		same(t, f, read(b.client(), "dev/"+f), "main's "+f)
	}
}

// A store that knows no conditions, and one that cannot copy.
func TestPinsAreMadeOnLesserStores(t *testing.T) {
	for name, opts := range map[string]mem.Options{
		"no conditions": {Caps: func(c *backend.Caps) {
			c.CondCreate, c.CondOverwrite, c.CondDelete, c.CondCopy, c.CondAssemble = false, false, false, false, false
		}},
		"no copies":    {Plain: true},
		"small copies": {Caps: func(c *backend.Caps) { c.MaxCopy = 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			b := fork(t, opts, "a", "b")
			b.ok(b.write(b, "main/a", "new", backend.Cond{}))
			b.ok(b.Delete(background, "main/b", backend.Cond{}))
			same(t, "dev", read(b.client(), "dev/a")+"; "+read(b.client(), "dev/b"), "main's a; main's b")
		})
	}
}

// After the branch was set back, its head does not name all that commits name.
func TestAfterTheBranchWasSetBackEverythingIsPinned(t *testing.T) {
	b := fork(t, mem.Options{}, "a")
	b.ok(b.write(b, "main/a", "second", backend.Cond{}))
	b.commit("main", id("c2"))
	b.ref("main", map[string]any{"head": id("c"), "rewound": true})
	other := b.client()
	b.ok(b.write(other, "main/a", "third", backend.Cond{}))
	same(t, "the later commit", read(other, "main@"+id("c2")+"/a"), "second")
}

// The race that matters: one host commits while another overwrites. Whenever
// the other begins, and however old its view of the ref is then, each commit
// stays as it was listed, be it the first one or a later one.
func TestACommitStaysWhenSomebodyOverwritesDuringIt(t *testing.T) {
	const step = overlay.Belief / 8
	for _, first := range []bool{true, false} {
		for viewed := -overlay.Belief; viewed <= overlay.Belief; viewed += step {
			for begun := max(viewed, -step); begun <= 2*overlay.Belief; begun += step {
				t.Run(fmt.Sprintf("first %v, viewed %v, begun %v", first, viewed, begun), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { raceWithCommit(t, first, viewed, begun, 0) })
				})
			}
		}
	}
}

// The same where each request takes so long that the commit, or two of them, begin and
// end meanwhile: what it is going to replace is kept as soon as somebody begins.
func TestACommitStaysWhenAChangeTakesLongerThanIt(t *testing.T) {
	for _, first := range []bool{true, false} {
		for begun := -3 * overlay.Belief; begun <= overlay.Belief; begun += overlay.Belief / 8 {
			for _, slow := range []time.Duration{overlay.Belief * 3 / 4, overlay.Belief * 9 / 8, 2 * overlay.Belief, 5 * overlay.Belief} {
				t.Run(fmt.Sprintf("first %v, begun %v, for %v", first, begun, slow), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { raceWithCommit(t, first, begun-overlay.Belief/4, begun, slow) })
				})
			}
		}
	}
}

func raceWithCommit(t *testing.T, first bool, viewed, begun, slow time.Duration) {
	b := newBench(t, mem.Options{})
	for _, f := range []string{"put", "delete", "batch", "copy", "parts"} {
		b.put("main/"+f, "the first "+f)
	}
	ref := map[string]any{}
	if !first {
		b.commit("main", id("c0"))
		ref["head"] = id("c0")
		b.ref("main", ref)
		writer := b.client()
		for _, f := range []string{"put", "delete", "batch", "copy", "parts"} {
			b.ok(b.write(writer, "main/"+f, "the second "+f, backend.Cond{}))
		}
	}
	for _, f := range []string{"put", "delete", "copy", "parts"} {
		b.in.Add(fault.Rule{Op: "write", Key: "main/" + f, Delay: slow, Times: fault.Always})
	}
	b.in.Add(fault.Rule{Op: "deletebatch", Delay: slow, Times: fault.Always})
	start := time.Now().Add(4 * overlay.Belief) // when the commit begins
	at := func(offset time.Duration) { time.Sleep(time.Until(start.Add(offset))) }
	done := make(chan struct{})
	var changes sync.WaitGroup
	go func() {
		defer close(done)
		writer := b.client()
		at(viewed)
		b.ok(b.write(writer, "main/another", "", backend.Cond{})) // sees the ref
		at(begun)
		for _, way := range ways(b, writer) {
			changes.Go(way)
		}
		changes.Wait()
	}()
	at(0)
	ref["committing"] = "h"
	b.ref("main", ref)
	time.Sleep(overlay.Belief)
	b.commit("main", id("c1"))
	delete(ref, "committing")
	ref["head"] = id("c1")
	b.ref("main", ref)
	<-done
	for _, o := range b.shelf.commits[id("c1")] {
		content := read(b.client(), "main@"+id("c1")+"/"+o.Rel)
		if sum := md5.Sum([]byte(content)); hex.EncodeToString(sum[:]) != strings.TrimSuffix(o.ETag, "-1") && content != "last" {
			t.Errorf("%s is not what was listed: %s", o.Rel, content)
		}
	}
	if !first {
		same(t, "the commit before", read(b.client(), "main@"+id("c0")+"/put"), "the first put")
	}
}

// ways destroy an object each, in each way that there is.
func ways(b *bench, c backend.Backend) []func() {
	return []func(){
		func() { b.ok(b.write(c, "main/put", "last", backend.Cond{})) },
		func() { b.ok(c.Delete(background, "main/delete", backend.Cond{})) },
		func() {
			batch, _ := backend.As[backend.BatchDeleter](c)
			_, err := batch.DeleteBatch(background, []backend.Deletion{{Key: "main/batch"}})
			b.ok(err)
		},
		func() {
			copier, _ := backend.As[backend.Copier](c)
			_, err := copier.Copy(background, "main/another", "main/copy", backend.CopyOptions{})
			b.ok(err)
		},
		func() {
			assembler, _ := backend.As[backend.Assembler](c)
			a, err := assembler.Assemble(background, "main/parts", backend.PutOptions{})
			b.ok(err)
			b.ok(a.PutPart(background, 1, backend.Bytes([]byte("last"))))
			_, err = a.Complete(background)
			b.ok(err)
		},
	}
}
