package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/fault"
	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// newStreams is a bucket with parts of 1 KiB, and the options for them.
func newStreams(t testing.TB) (*bucket, Options) {
	b := newBucket(t)
	b.raw = mem.New(t.Name(), mem.Options{Caps: func(c *backend.Caps) { c.MinPart = kib }})
	return b, Options{streamPart: kib, patchFrom: kib, MetadataTTL: time.Hour}
}

// letters is content of which no two parts are alike.
func letters(n int) string {
	p := make([]byte, n)
	for i := range p {
		p[i] = 'a' + byte(i/kib+i%17)%26
	}
	return string(p)
}

// times is n times the same request.
func times(n int, request string) []string { return slices.Repeat([]string{request}, n) }

func TestRequestsOfAFileThatIsSentWhileItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		defer c.Close(context.Background())
		closeFile(t, create(t, tree, "warm", false))
		text := letters(5*kib + 60)
		var f store.File
		b.golden("two parts are there", func() {
			f = create(t, tree, "f", false)
			write(t, f, 0, text[:2*kib-1])
			synctest.Wait()
			if n := b.faults.Count("assemble"); n != 0 {
				t.Error("sent with less than two parts")
			}
			write(t, f, 2*kib-1, text[2*kib-1:2*kib+10])
			synctest.Wait()
		}, append(times(2, "PUTPART main/f"), "LIST main/", "ASSEMBLE main/f")...)
		b.golden("more of them", func() {
			for off := 2*kib + 10; off < len(text); off += 10 {
				write(t, f, int64(off), text[off:min(off+10, len(text))])
			}
			synctest.Wait()
		}, times(3, "PUTPART main/f")...)
		b.golden("a sent part is written again, and the file closed", func() {
			write(t, f, kib+5, "HEADER")
			text = text[:kib+5] + "HEADER" + text[kib+11:]
			closeFile(t, f)
		}, append(times(2, "PUTPART main/f"), "COMPLETE main/f if-absent")...)
		if got := b.get("main/f"); got != text {
			t.Errorf("the object has %d bytes, want %d, or others", len(got), len(text))
		}
		e, err := tree.Lookup(t.Context(), path(t, "f"))
		ok(t, err)
		b.golden("an existing file is replaced, and its mode changed meanwhile", func() {
			time.Sleep(time.Second)
			f = open(t, tree, "f", store.OpenFlags{Write: true, Truncate: true})
			write(t, f, 0, text)
			synctest.Wait()
			mode, when := uint32(0o600), time.Unix(1e9, 5)
			_, err := f.SetAttr(t.Context(), store.AttrChange{Mode: &mode, Mtime: &when})
			ok(t, err)
			closeFile(t, f)
			e, err = tree.Lookup(t.Context(), path(t, "f"))
			if ok(t, err); e.Mode != store.ModeRegular|0o600 || !e.Mtime.Equal(when) || e.Size != int64(len(text)) {
				t.Errorf("entry %+v", e)
			}
		}, append(times(6, "PUTPART main/f"), "STAT main/f", "ASSEMBLE main/f", "COMPLETE main/f if-match", "COPY main/f if-match")...)
		if got := readFile(t, tree, "f"); got != text {
			t.Errorf("read are %d bytes, want %d, or others", len(got), len(text))
		}
		if s := c.journal.Stats(); len(c.Pending()) != 0 {
			t.Errorf("pending %+v, %+v", c.Pending(), s)
		}
	})
}

// The time of a file that is streamed is that of the object which it becomes,
// from the first part on.
func TestTimesOfAStreamedFileAreThoseOfItsObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		defer c.Close(context.Background())
		f := create(t, tree, "f", false)
		write(t, f, 0, letters(3*kib))
		e, err := f.Stat(t.Context())
		ok(t, err)
		for range 5 {
			time.Sleep(time.Second)
			write(t, f, -1, letters(100))
		}
		closeFile(t, f)
		_, tree2 := b.open(Options{})
		got, err := tree2.Lookup(t.Context(), path(t, "f"))
		if ok(t, err); !got.Mtime.Equal(e.Mtime) || !got.Ctime.Equal(e.Ctime) {
			t.Errorf("%v and %v, want %v and %v", got.Mtime, got.Ctime, e.Mtime, e.Ctime)
		}
	})
}

// A log that grows over hours has in the end the time of its last line.
func TestAFileThatGrowsSlowlyIsSentWhenItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		defer c.Close(context.Background())
		f := create(t, tree, "f", false)
		write(t, f, 0, letters(3*kib))
		synctest.Wait()
		time.Sleep(streamPatience + time.Second)
		write(t, f, -1, "last line")
		last := time.Now()
		synctest.Wait()
		b.ended(0)
		b.golden("close", func() { closeFile(t, f) }, "PUT main/f if-absent")
		_, tree2 := b.open(Options{})
		if e, err := tree2.Lookup(t.Context(), path(t, "f")); err != nil || !e.Mtime.Equal(last) {
			t.Errorf("%v, %v, want %v", e.Mtime, err, last)
		}
	})
}

// Whatever becomes of a file before it is closed, nothing is left of its
// parts, and its content is what it is here.
func TestWhatEndsAStreamLeavesNoParts(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, tree store.Tree, f store.File) (name, content string){
		"removed": func(t *testing.T, tree store.Tree, f store.File) (string, string) {
			ok(t, tree.Remove(t.Context(), path(t, "f")))
			write(t, f, -1, "more")
			return "", ""
		},
		"truncated": func(t *testing.T, tree store.Tree, f store.File) (string, string) {
			size := int64(kib + 1)
			_, err := f.SetAttr(t.Context(), store.AttrChange{Size: &size})
			ok(t, err)
			return "f", letters(kib + 1)
		},
		"renamed": func(t *testing.T, tree store.Tree, f store.File) (string, string) {
			ok(t, tree.Rename(t.Context(), path(t, "f"), path(t, "g"), store.Replace))
			write(t, f, -1, "more")
			return "g", letters(5*kib) + "more"
		},
		"synced": func(t *testing.T, tree store.Tree, f store.File) (string, string) {
			ok(t, f.Sync(t.Context()))
			write(t, f, 10, "changed")
			return "f", letters(5 * kib)[:10] + "changed" + letters(5 * kib)[17:]
		},
		"extended": func(t *testing.T, tree store.Tree, f store.File) (string, string) {
			size := int64(7 * kib)
			_, err := f.SetAttr(t.Context(), store.AttrChange{Size: &size})
			ok(t, err)
			ok(t, f.Punch(t.Context(), 10, 2*kib))
			text := []byte(letters(5*kib) + strings.Repeat("\x00", 2*kib))
			clear(text[10 : 10+2*kib])
			return "f", string(text)
		},
	} {
		for mode, back := range map[string]bool{"": false, ", with write-back": true} {
			t.Run(what+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, opts := newStreams(t)
					opts.WriteBack = back
					c, tree := b.open(opts)
					f := create(t, tree, "f", false)
					write(t, f, 0, letters(5*kib))
					synctest.Wait()
					name, want := end(t, tree, f)
					closeFile(t, f)
					if name != "" {
						if got := readFile(t, tree, name); got != want {
							t.Errorf("read are %d bytes, want %d, or others", len(got), len(want))
						}
					}
					ok(t, c.Close(context.Background()))
					if name != "" && b.get("main/"+name) != want {
						t.Errorf("%s has other bytes", name)
					}
					for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/") {
						if ok(t, err); info.Key != "main/"+name && info.Key != "main/" {
							t.Errorf("there is %s", info.Key)
						}
					}
					b.ended(0)
				})
			})
		}
	}
}

// ended checks that no upload is left: each was given up or, but for so many,
// completed.
func (b *bucket) ended(failed int) {
	b.t.Helper()
	count := map[string]int{}
	for _, r := range b.faults.Requests() {
		if op, key, _ := strings.Cut(r, " "); strings.HasPrefix(key, "main/") {
			count[op]++
		}
	}
	if begun := count["ASSEMBLE"]; begun == 0 || count["COMPLETE"]-failed+count["ABORT"]+count["DISCARD"] != begun {
		b.t.Errorf("what was begun is not ended: %v", count)
	}
}

func TestNextMountGivesUpTheUploadsOfAKilledOne(t *testing.T) {
	for what, back := range map[string]bool{"write-through": false, "write-back": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, opts := newStreams(t)
				opts.WriteBack = back
				c, tree := b.open(opts)
				defer c.Close(context.Background())
				kept := create(t, tree, "kept", false)
				write(t, kept, 0, letters(3*kib))
				f := create(t, tree, "open", false)
				write(t, f, 0, letters(3*kib))
				synctest.Wait()
				if back {
					ok(t, kept.Flush(t.Context())) // which is a promise
				}
				dir := dead(t, c)
				b.faults.ResetRequests()
				c2, tree2 := b.open(Options{Dir: dir})
				synctest.Wait()
				if n := b.faults.Count("discard"); n != 2 {
					t.Errorf("%d uploads given up: %q", n, b.faults.Requests())
				}
				ok(t, c2.Sync(t.Context()))
				missing(t, tree2, "open")
				if back && b.get("main/kept") != letters(3*kib) {
					t.Error("what was acknowledged is not in the bucket")
				}
				ok(t, c2.Close(t.Context()))
				c3, _ := b.open(Options{Dir: dir})
				synctest.Wait()
				if n := b.faults.Count("discard"); n != 2 {
					t.Errorf("given up again: %q", b.faults.Requests())
				}
				ok(t, c3.Close(t.Context()))
			})
		})
	}
}

// A part that is on its way does not change: who writes there waits for it,
// and the part is sent again in the end.
func TestWritersWaitForAPartThatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		defer c.Close(context.Background())
		held := make(chan struct{})
		b.faults.Add(fault.Rule{Op: "putpart", Times: 2, Do: func(context.Context, *backend.Op) error { <-held; return nil }})
		f := create(t, tree, "f", false)
		text := letters(3 * kib)
		write(t, f, 0, text[:2*kib])
		synctest.Wait()
		written := false
		go func() { write(t, f, 100, "CHANGED"); written = true }()
		synctest.Wait()
		write(t, f, 2*kib, text[2*kib:]) // nobody waits behind it
		if synctest.Wait(); written {
			t.Error("a part on its way was changed")
		}
		close(held)
		synctest.Wait()
		closeFile(t, f)
		if got, want := b.get("main/f"), text[:100]+"CHANGED"+text[107:]; got != want || !written {
			t.Errorf("written %v, %d bytes, want %d, or others", written, len(got), len(want))
		}
	})
}

func TestAStreamThatFailsIsNoFailureOfTheFile(t *testing.T) {
	for _, rule := range []fault.Rule{
		{Op: "assemble", Err: backend.ErrTransient},
		{Op: "assemble", Err: backend.ErrUnsupported},
		{Op: "putpart", From: 2, Err: backend.ErrTransient},
		{Op: "putpart", From: 2, Err: backend.ErrTransient, After: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, opts := newStreams(t)
			c, tree := b.open(opts)
			b.faults.Add(rule)
			f := create(t, tree, "f", false)
			for off := 0; off < 6*kib; off += kib / 2 {
				write(t, f, int64(off), letters(6 * kib)[off:off+kib/2])
				synctest.Wait()
			}
			closeFile(t, f)
			if got := b.get("main/f"); got != letters(6*kib) {
				t.Errorf("%+v: the object has %d bytes, or others", rule, len(got))
			}
			ok(t, c.Close(context.Background()))
		})
	}
}

func TestTheEndOfAStreamFailsAsAnyPublication(t *testing.T) {
	for _, rule := range []fault.Rule{
		{Op: "putpart", Err: backend.ErrTransient},
		{Op: "complete", Err: backend.ErrTransient},
		{Op: "complete", Err: backend.ErrTransient, After: true},
		{Op: "copy", Err: backend.ErrTransient},
		{Op: "copy", Err: backend.ErrTransient, After: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, opts := newStreams(t)
			c, tree := b.open(opts)
			f := create(t, tree, "f", false)
			write(t, f, 0, letters(3*kib))
			synctest.Wait()
			write(t, f, -1, "end")
			mode := uint32(0o600)
			_, err := f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
			ok(t, err)
			b.faults.Add(rule)
			if err := f.Flush(t.Context()); !errors.Is(err, backend.ErrTransient) {
				t.Errorf("%+v: flush: %v", rule, err)
			}
			b.faults.Clear()
			write(t, f, -1, ", and more")
			closeFile(t, f)
			ok(t, c.Close(context.Background()))
			_, tree2 := b.open(Options{})
			e, err := tree2.Lookup(t.Context(), path(t, "f"))
			if ok(t, err); b.get("main/f") != letters(3*kib)+"end, and more" || e.Mode != store.ModeRegular|0o600 {
				t.Errorf("%+v: %+v", rule, e)
			}
			for info, err := range backend.ListRecursive(t.Context(), b.raw, "main/f.") {
				ok(t, err)
				t.Errorf("%+v: a conflict with itself: %s", rule, info.Key)
			}
		})
	}
}

// wantBeside fails the test unless the object of f has the one content, and one
// beside it the other.
func (b *bucket) wantBeside(theirs, ours string) {
	b.t.Helper()
	var kept []string
	for info, err := range backend.ListRecursive(b.t.Context(), b.raw, "main/f.") {
		ok(b.t, err)
		kept = append(kept, info.Key)
	}
	if len(kept) != 1 || b.get(kept[0]) != ours || b.get("main/f") != theirs {
		b.t.Errorf("kept: %q, and the file is %.20q", kept, b.get("main/f"))
	}
}

func TestAStreamThatLosesARaceIsStoredBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		defer c.Close(context.Background())
		f := create(t, tree, "f", false)
		write(t, f, 0, letters(3*kib))
		synctest.Wait()
		b.put("main/f", "theirs")
		if err := f.Flush(t.Context()); !errors.Is(err, store.ErrStale) {
			t.Errorf("flush: %v", err)
		}
		ok(t, f.Close(t.Context()))
		b.wantBeside("theirs", letters(3*kib))
		b.ended(1)
	})
}

// Attributes that were changed during a stream follow its content by a request
// of their own. Who replaces the file between the two has won a race as any other.
func TestAttributesThatFollowAStreamLoseARaceAsContentDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, opts := newStreams(t)
		c, tree := b.open(opts)
		f := create(t, tree, "f", false)
		write(t, f, 0, letters(3*kib))
		synctest.Wait()
		mode := uint32(0o600)
		_, err := f.SetAttr(t.Context(), store.AttrChange{Mode: &mode})
		ok(t, err)
		b.faults.Add(fault.Rule{Op: "complete", After: true, Do: func(context.Context, *backend.Op) error {
			b.put("main/f", "theirs")
			return nil
		}})
		if err := f.Flush(t.Context()); !errors.Is(err, store.ErrStale) {
			t.Errorf("flush: %v", err)
		}
		ok(t, f.Close(t.Context()))
		if p := c.Pending(); len(p) != 0 {
			t.Errorf("pending: %+v", p)
		}
		ok(t, c.Close(t.Context()))
		b.wantBeside("theirs", letters(3*kib))
	})
}

// What was written here is read here: no request fetches it, however it went
// into the bucket.
func TestWhatWasWrittenIsNotFetched(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"as a whole":             func(*Options) {},
		"with write-back":        func(o *Options) { o.WriteBack = true },
		"while it was written":   func(o *Options) { o.streamPart = mib },
		"both":                   func(o *Options) { o.streamPart, o.WriteBack = mib, true },
		"with nothing in memory": func(o *Options) { o.Memory = -1 },
		"as one to be patched":   func(o *Options) { o.patchFrom = mib },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBucket(t)
				opts := Options{MetadataTTL: time.Hour}
				change(&opts)
				c, tree := b.open(opts)
				defer c.Close(context.Background())
				for name, size := range map[string]int{"small": 10, "block": blockSize, "large": 3*mib + 5, "larger": chunkSize + mib} {
					putFile(t, tree, name, letters(size), false)
					ok(t, c.Sync(t.Context()))
					synctest.Wait()
					if n := c.Stats().StagedFiles; n != 0 {
						t.Errorf("%s: %d files are staged", name, n)
					}
					b.faults.ResetRequests()
					if got := readFile(t, tree, name); got != letters(size) {
						t.Errorf("%s: %d bytes, want %d, or others", name, len(got), size)
					}
					if n := b.faults.Count("get"); n != 0 {
						t.Errorf("%s: %q", name, b.faults.Requests())
					}
				}
			})
		})
	}
}

// A version that is being kept is not mixed with what is written next.
func TestAChangeWhileContentIsKept(t *testing.T) {
	b := newBucket(t)
	c, tree := b.open(Options{})
	text := letters(8 * mib)
	putFile(t, tree, "f", text, false)
	f := open(t, tree, "f", store.OpenFlags{Write: true})
	for off := int64(7 * mib); off >= 0; off -= mib {
		write(t, f, off, "CHANGED")
		text = text[:off] + "CHANGED" + text[off+7:]
	}
	closeFile(t, f)
	ok(t, c.Close(t.Context()))
	_, tree2 := b.open(Options{Dir: c.dir.root})
	if b.get("main/f") != text || readFile(t, tree2, "f") != text {
		t.Error("other bytes than were written")
	}
}
