package storetest

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/keifs/keifs/store"
)

// contents are the promises about bytes.
func contents() []test {
	return []test{
		{name: "what was flushed is in the bucket, byte for byte", run: func(e *env) {
			f := e.create(e.tree, "a.txt")
			e.write(f, 0, "hello")
			e.flush(f)
			data, _ := e.object("main/a.txt")
			equal(e, "object", data, "hello")
			e.write(f, 5, ", world")
			e.flush(f)
			data, _ = e.object("main/a.txt")
			equal(e, "object", data, "hello, world")
			e.write(f, 0, "J")
			e.ok(f.Sync(e.ctx))
			data, _ = e.object("main/a.txt")
			equal(e, "object", data, "Jello, world")
			e.close(f)
			e.remount()
			equal(e, "content", e.get(e.tree, "a.txt"), "Jello, world")
		}},
		{name: "an empty file is an empty object", run: func(e *env) {
			e.close(e.create(e.tree, "empty"))
			data, _ := e.object("main/empty")
			equal(e, "object", data, "")
			equal(e, "size", e.lookup(e.tree, "empty").Size, 0)
			e.remount()
			equal(e, "content", e.get(e.tree, "empty"), "")
			equal(e, "regular", e.lookup(e.tree, "empty").IsRegular(), true)
		}},
		{name: "bytes are written at any offset and holes are zeros", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 10, "ten")
			equal(e, "content", e.content(f), strings.Repeat("\x00", 10)+"ten")
			e.write(f, 0, "zero")
			e.write(f, 12, "NNN")
			equal(e, "content", e.content(f), "zero\x00\x00\x00\x00\x00\x00teNNN")
			e.close(f)
			equal(e, "content", e.get(e.tree, "f"), "zero\x00\x00\x00\x00\x00\x00teNNN")

			g := e.openFile(e.tree, "f")
			e.write(g, 3, "***")
			e.write(g, 20, "!")
			e.close(g)
			data, _ := e.object("main/f")
			equal(e, "object", data, "zer***\x00\x00\x00\x00teNNN\x00\x00\x00\x00\x00!")
		}},
		{name: "a file cut and grown again has zeros where it was cut", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			f := e.openFile(e.tree, "f")
			for _, size := range []int64{4, 8} {
				entry, err := f.SetAttr(e.ctx, store.AttrChange{Size: new(size)})
				e.ok(err)
				equal(e, "size", entry.Size, size)
			}
			equal(e, "content", e.content(f), "0123\x00\x00\x00\x00")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "0123\x00\x00\x00\x00")
		}},
		{name: "a file grown by its size alone reads as zeros", run: func(e *env) {
			f := e.create(e.tree, "f")
			_, err := f.SetAttr(e.ctx, store.AttrChange{Size: new(int64(100_000))})
			e.ok(err)
			e.write(f, 50_000, "x")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "same", data == strings.Repeat("\x00", 50_000)+"x"+strings.Repeat("\x00", 49_999), true)
		}},
		{name: "opening with truncation drops the content", run: func(e *env) {
			e.put(e.tree, "f", "old content")
			f, err := e.tree.Open(e.ctx, e.path("f"), store.OpenFlags{Write: true, Truncate: true})
			e.ok(err)
			equal(e, "size", e.stat(f).Size, 0)
			equal(e, "content", e.content(f), "")
			equal(e, "looked up size", e.lookup(e.tree, "f").Size, 0)
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "")
		}},
		{name: "punching makes zeros within the size", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			f := e.openFile(e.tree, "f")
			e.ok(f.Punch(e.ctx, 2, 3))
			e.ok(f.Punch(e.ctx, 8, 100))
			e.ok(f.Punch(e.ctx, 50, 10))
			equal(e, "content", e.content(f), "01\x00\x00\x00567\x00\x00")
			e.close(f)
			data, _ := e.object("main/f")
			equal(e, "object", data, "01\x00\x00\x00567\x00\x00")
		}},
		{name: "appends never overwrite each other", run: func(e *env) {
			e.put(e.tree, "log", "begin\n")
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					f, err := e.tree.Open(e.ctx, e.path("log"), store.OpenFlags{Write: true})
					if err != nil {
						e.t.Error(err)
						return
					}
					for range 25 {
						if _, err := f.WriteAt(e.ctx, []byte("line of "+itoa(i)+"\n"), -1); err != nil {
							e.t.Error(err)
						}
					}
					if err := f.Flush(e.ctx); err != nil {
						e.t.Error(err)
					}
					if err := f.Close(e.ctx); err != nil {
						e.t.Error(err)
					}
				})
			}
			wg.Wait()
			data, _ := e.object("main/log")
			for i := range 8 {
				equal(e, "lines of "+itoa(i), strings.Count(data, "line of "+itoa(i)+"\n"), 25)
			}
			equal(e, "size", len(data), 6+8*25*10)
		}},
		{name: "reads are short only at the end", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			check := func(f store.File) {
				e.t.Helper()
				for _, c := range []struct {
					off  int64
					n    int
					want string
					err  error
				}{
					{0, 4, "0123", nil}, {8, 4, "89", nil}, {0, 100, "0123456789", nil}, {9, 1, "9", nil},
					{10, 4, "", io.EOF}, {11, 4, "", io.EOF}, {1 << 40, 4, "", io.EOF}, {3, 0, "", nil},
				} {
					p := bytes.Repeat([]byte("#"), c.n)
					n, err := f.ReadAt(e.ctx, p, c.off)
					equal(e, "read at "+itoa(int(c.off)), string(p[:n]), c.want)
					if err != c.err {
						e.t.Errorf("read %d at %d: %v; want %v", c.n, c.off, err, c.err)
					}
				}
			}
			f := e.openFile(e.tree, "f")
			check(f)
			e.write(f, 0, "0") // dirty now
			check(f)
			e.flush(f)
			check(f)
			e.close(f)
		}},
		{name: "seeking finds the data and the end", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			f := e.openRead(e.tree, "f")
			off, err := f.Seek(e.ctx, 4, false)
			e.ok(err)
			equal(e, "data", off, 4)
			off, err = f.Seek(e.ctx, 4, true)
			e.ok(err)
			equal(e, "hole", off, 10)
			_, err = f.Seek(e.ctx, 10, false)
			e.want(err, store.ErrNoData)
			_, err = f.Seek(e.ctx, 11, true)
			e.want(err, store.ErrNoData)
			e.close(f)
			g := e.create(e.tree, "empty")
			_, err = g.Seek(e.ctx, 0, false)
			e.want(err, store.ErrNoData)
			e.close(g)
		}},
		{name: "a seek skips no data and shows no data as a hole", run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 1<<20, "island")
			_, err := f.SetAttr(e.ctx, store.AttrChange{Size: new(int64(3 << 20))})
			e.ok(err)
			data, err := f.Seek(e.ctx, 0, false)
			e.ok(err)
			equal(e, "data begins in time", data <= 1<<20, true)
			hole, err := f.Seek(e.ctx, 1<<20, true)
			e.ok(err)
			equal(e, "hole begins late enough", hole >= 1<<20+6 && hole <= 3<<20, true)
			e.close(f)
		}},
		{name: "a larger file is read and changed in pieces", run: func(e *env) {
			want := make([]byte, 1<<20+17)
			for i := range want {
				want[i] = byte(i * 7 >> 8)
			}
			f := e.create(e.tree, "big")
			for off := 0; off < len(want); off += 100_000 {
				e.write(f, int64(off), string(want[off:min(off+100_000, len(want))]))
			}
			e.close(f)
			data, _ := e.object("main/big")
			equal(e, "same", data == string(want), true)
			e.remount()
			f = e.openFile(e.tree, "big")
			p := make([]byte, 1000)
			for _, off := range []int64{700_000, 5, 1<<19 - 500, 1<<20 + 17 - 1000} {
				n, err := f.ReadAt(e.ctx, p, off)
				e.ok(err)
				equal(e, "same", bytes.Equal(p[:n], want[off:off+1000]), true)
			}
			e.write(f, 1<<19, "changed")
			copy(want[1<<19:], "changed")
			e.close(f)
			data, _ = e.object("main/big")
			equal(e, "same", data == string(want), true)
			equal(e, "same", e.get(e.tree, "big") == string(want), true)
		}},
		{name: "a whole file is copied, or the caller is told to", run: func(e *env) {
			e.put(e.tree, "from", "content to copy")
			src, dst := e.openRead(e.tree, "from"), e.create(e.tree, "to")
			n, err := dst.CopyFrom(e.ctx, src, 0, 0, 1<<20)
			if err == nil {
				equal(e, "copied", n, 15)
				equal(e, "content", e.content(dst), "content to copy")
				e.write(dst, 0, "C")
			} else {
				e.want(err, store.ErrUnsupported)
				e.write(dst, 0, "Content to copy")
			}
			e.close(src)
			e.close(dst)
			data, _ := e.object("main/to")
			equal(e, "object", data, "Content to copy")
			equal(e, "source", e.get(e.tree, "from"), "content to copy")
		}},
		{name: "a copy takes what was written and not published", run: func(e *env) {
			e.put(e.tree, "from", "old")
			src, dst := e.openFile(e.tree, "from"), e.create(e.tree, "to")
			e.write(src, 0, "NEW!")
			n, err := dst.CopyFrom(e.ctx, src, 0, 0, 4)
			if err != nil {
				e.want(err, store.ErrUnsupported)
				e.write(dst, 0, "NEW!")
				n = 4
			}
			equal(e, "copied", n, 4)
			e.close(dst)
			e.close(src)
			equal(e, "content", e.get(e.tree, "to"), "NEW!")
		}},
	}
}
