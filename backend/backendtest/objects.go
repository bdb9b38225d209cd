package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keifs/keifs/backend"
)

func roundTrip(s *tester) {
	for i, size := range []int{0, 1, 4095, 1<<20 + 3} {
		name := fmt.Sprintf("size-%d", size)
		want := content(uint64(i), size)
		put := s.put(name, want)
		s.holds(name, want)
		stat, err := s.b.Stat(s.ctx, s.key(name))
		if err != nil {
			s.Fatal(err)
		}
		_, got := s.get(name)
		for call, info := range map[string]backend.Info{"stat": stat, "get": got} {
			if info.Key != s.key(name) || info.Size != int64(size) || info.ModTime.IsZero() || info.Metadata == nil {
				s.Errorf("%s of %d bytes tells %+v", call, size, info)
			}
			if info.ETag != put.ETag || info.ETag == "" || strings.Contains(info.ETag, `"`) {
				s.Errorf("%s tells ETag %q, put %q", call, info.ETag, put.ETag)
			}
		}
		page, err := s.b.ListPage(s.ctx, backend.ListOptions{Prefix: s.key(name)})
		if err != nil {
			s.Fatal(err)
		}
		if len(page.Objects) != 1 || len(page.Prefixes) != 0 || page.Next != "" {
			s.Fatalf("page %+v, want one object", page)
		}
		if o := page.Objects[0]; o.Key != stat.Key || o.Size != stat.Size || o.ETag != stat.ETag ||
			!o.ModTime.Equal(stat.ModTime) || o.Metadata != nil {
			s.Errorf("the listing tells %+v, stat %+v", o, stat)
		}
	}
}

func missingObject(s *tester) {
	_, err := s.b.Stat(s.ctx, s.key("none"))
	s.fails("stat", err, backend.ErrNotExist)
	for _, opts := range []backend.GetOptions{{}, {Offset: 5, Length: 5}, {IfMatch: "0123456789abcdef0123456789abcdef"}} {
		err = s.b.Get(s.ctx, s.key("none"), opts, func(backend.Info, io.Reader) error {
			s.Error("the callback is called for an object that is not there")
			return nil
		})
		s.fails("get", err, backend.ErrNotExist)
	}
	if there, err := backend.Exists(s.ctx, s.b, s.key("none")); there || err != nil {
		s.Errorf("exists: %v, %v", there, err)
	}
	if err := s.b.Delete(s.ctx, s.key("none"), backend.Cond{}); err != nil {
		s.Errorf("deleting what is not there: %v", err)
	}
	s.put("a", nil)
	if err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{}); err != nil {
		s.Error(err)
	}
	s.absent("a")
}

func overwrite(s *tester) {
	one := s.put("a", []byte("one"))
	two := s.put("a", []byte("two"))
	s.holds("a", []byte("two"))
	if one.ETag == two.ETag {
		s.Errorf("two contents have one ETag, %s", one.ETag)
	}
	s.put("a", content(1, 10000))
	s.put("a", []byte("short"))
	s.holds("a", []byte("short"))
}

func ranges(s *tester) {
	data := content(7, 300_000)
	s.put("a", data)
	s.put("empty", nil)
	size := int64(len(data))
	for _, r := range []struct{ offset, length, from, to int64 }{
		{0, 0, 0, size}, {0, 1, 0, 1}, {0, size, 0, size}, {0, size + 100, 0, size},
		{1, 0, 1, size}, {size - 1, 0, size - 1, size}, {size - 1, 1, size - 1, size}, {size - 1, 100, size - 1, size},
		{100_000, 100_000, 100_000, 200_000},
		{size, 0, size, size}, {size, 1, size, size}, {size + 1, 0, size, size}, {size + 1000, 1000, size, size},
		{1 << 40, 0, size, size},
	} {
		got, info, err := read(s.ctx, s.b, s.key("a"), backend.GetOptions{Offset: r.offset, Length: r.length})
		if err != nil || !bytes.Equal(got, data[r.from:r.to]) {
			s.Errorf("range %d+%d: %s, %v, want bytes %d to %d", r.offset, r.length, brief(got), err, r.from, r.to)
		}
		if info.Size != size && r.from < r.to {
			s.Errorf("range %d+%d: the object's size is told as %d, want %d", r.offset, r.length, info.Size, size)
		}
	}
	for _, opts := range []backend.GetOptions{{}, {Length: 10}, {Offset: 1}, {Offset: 1, Length: 1}} {
		got, _, err := read(s.ctx, s.b, s.key("empty"), opts)
		if err != nil || len(got) > 0 {
			s.Errorf("range %+v of the empty object: %s, %v", opts, brief(got), err)
		}
	}
	for _, opts := range []backend.GetOptions{{Offset: -1}, {Length: -1}} {
		_, _, err := read(s.ctx, s.b, s.key("a"), opts)
		s.fails("a negative range", err, backend.ErrInvalid)
	}
}

func getIfMatch(s *tester) {
	old := s.put("a", []byte("one"))
	now := s.put("a", []byte("two"))
	data, info, err := read(s.ctx, s.b, s.key("a"), backend.GetOptions{IfMatch: now.ETag})
	if err != nil || string(data) != "two" || info.ETag != now.ETag {
		s.Errorf("%q, %+v, %v", data, info, err)
	}
	for _, opts := range []backend.GetOptions{{IfMatch: old.ETag}, {IfMatch: old.ETag, Offset: 1, Length: 1}, {IfMatch: old.ETag, Offset: 10}} {
		err = s.b.Get(s.ctx, s.key("a"), opts, func(backend.Info, io.Reader) error {
			s.Error("the callback is called for another version")
			return nil
		})
		s.fails("another version", err, backend.ErrPrecondition)
	}
}

func callbackError(s *tester) {
	s.put("a", content(1, 100_000))
	want := errors.New("of the callback")
	for _, part := range []int64{0, 10} {
		calls := 0
		err := s.b.Get(s.ctx, s.key("a"), backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
			calls++
			io.CopyN(io.Discard, body, part)
			return want
		})
		if err != want || calls != 1 {
			s.Errorf("after %d bytes: %v after %d calls", part, err, calls)
		}
	}
}

func callbackStopsEarly(s *tester) {
	data := content(1, 1<<20)
	s.put("a", data)
	for range 20 {
		err := s.b.Get(s.ctx, s.key("a"), backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
			_, err := io.ReadFull(body, make([]byte, 1))
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
	}
	s.holds("a", data)
}

// brokenSource claims size bytes and fails after those of data.
type brokenSource struct {
	*bytes.Reader
	size int64
	err  error
}

func (b brokenSource) Size() int64 { return b.size }

func (b brokenSource) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Reader.ReadAt(p, off)
	if err == io.EOF && b.err != nil {
		err = b.err
	}
	return n, err
}

func failingSource(s *tester) {
	broken := errors.New("the disk is gone")
	s.put("old", []byte("old"))
	for _, name := range []string{"old", "new"} {
		for _, cause := range []error{broken, nil} {
			src := brokenSource{bytes.NewReader(content(1, 100_000)), 3 << 20, cause}
			_, err := s.b.Put(s.ctx, s.key(name), src, backend.PutOptions{})
			if cause == nil {
				cause = io.ErrUnexpectedEOF
			}
			if !errors.Is(err, cause) {
				s.Errorf("%v, want %q", err, cause)
			}
		}
	}
	s.holds("old", []byte("old"))
	s.absent("new")
}

func metadata(s *tester) {
	want := map[string]string{
		"mode": "33188", "mtime": "1700000000.123456789", "x-with_both": "a b  c", "empty-not": "0",
		"xattr": `{"user.a":"YWJj"}`, "punctuation": `%41+&<>"';=,\/`, "long": strings.Repeat("x", 500),
	}
	opts := backend.PutOptions{Metadata: want, ContentType: "text/x-keifs"}
	given := maps.Clone(want)
	s.put("a", []byte("a"), backend.PutOptions{Metadata: given, ContentType: opts.ContentType})
	clear(given) // belongs to the caller again
	check := func(name string, want map[string]string, contentType string) {
		s.Helper()
		if !s.caps.Metadata {
			want = nil
		}
		stat, err := s.b.Stat(s.ctx, s.key(name))
		if err != nil {
			s.Fatal(err)
		}
		_, got := s.get(name)
		for _, info := range []backend.Info{stat, got} {
			if info.Metadata == nil || !maps.Equal(info.Metadata, want) {
				s.Errorf("%s has metadata %q, want %q", name, info.Metadata, want)
			}
			if s.caps.Metadata && info.ContentType != contentType {
				s.Errorf("%s has type %q, want %q", name, info.ContentType, contentType)
			}
		}
		stat.Metadata["changed"] = "by the caller"
	}
	check("a", want, opts.ContentType)
	check("a", want, opts.ContentType)
	s.put("a", []byte("a"), backend.PutOptions{Metadata: map[string]string{"other": "1"}})
	check("a", map[string]string{"other": "1"}, "application/octet-stream")
	s.put("a", []byte("a"))
	check("a", map[string]string{}, "application/octet-stream")

	for _, bad := range []map[string]string{
		{"": "x"}, {"Upper": "x"}, {"a b": "x"}, {"a:": "x"}, {"a": "x\r\ny: z"}, {"a": "\x00"}, {"a": " x"}, {"ü": "x"}, {"a": "ü"},
	} {
		_, err := s.b.Put(s.ctx, s.key("bad"), backend.Bytes(nil), backend.PutOptions{Metadata: bad})
		s.fails(fmt.Sprintf("metadata %q", bad), err, backend.ErrInvalid)
	}
	if n := s.caps.MaxMetadata; n > 0 {
		_, err := s.b.Put(s.ctx, s.key("bad"), backend.Bytes(nil), backend.PutOptions{Metadata: map[string]string{"a": strings.Repeat("x", n)}})
		s.fails("too much metadata", err, backend.ErrTooLarge)
		most := map[string]string{"a": strings.Repeat("x", n-1)}
		s.put("most", nil, backend.PutOptions{Metadata: most})
		check("most", most, "application/octet-stream")
	}
	s.absent("bad")
}

func folderMarkers(s *tester) {
	attr := map[string]string{"mode": "16877"}
	put := s.put("dir/", nil, backend.PutOptions{Metadata: attr})
	stat, err := s.b.Stat(s.ctx, s.key("dir/"))
	if err != nil || stat.Size != 0 || stat.ETag != put.ETag || s.caps.Metadata && !maps.Equal(stat.Metadata, attr) {
		s.Fatalf("%+v, %v", stat, err)
	}
	s.holds("dir/", nil)
	s.lists("", true, "dir/")
	s.lists("", false, "dir/")
	s.lists("dir/", true, "dir/")
	s.put("dir/a", nil)
	s.put("dir/sub/b", nil)
	s.lists("dir/", true, "dir/", "dir/a", "dir/sub/")
	s.lists("dir/", false, "dir/", "dir/a", "dir/sub/b")
	_, err = s.b.Stat(s.ctx, s.key("dir/sub/"))
	s.fails("a folder without a marker", err, backend.ErrNotExist)

	// The marker and what lies below it go each on its own.
	if err := s.b.Delete(s.ctx, s.key("dir/"), backend.Cond{}); err != nil {
		s.Fatal(err)
	}
	_, err = s.b.Stat(s.ctx, s.key("dir/"))
	s.fails("a deleted marker", err, backend.ErrNotExist)
	s.lists("dir/", true, "dir/a", "dir/sub/")
	s.put("dir/sub/", nil)
	for _, name := range []string{"dir/sub/b", "dir/a"} {
		if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
			s.Fatal(err)
		}
	}
	s.lists("", false, "dir/sub/")
	if err := s.b.Delete(s.ctx, s.key("dir/sub/"), backend.Cond{}); err != nil {
		s.Fatal(err)
	}
	s.lists("", false)
}

func cancelledContext(s *tester) {
	info := s.put("a", content(1, 1<<20))
	ctx, cancel := context.WithCancel(s.ctx)
	err := s.b.Get(ctx, s.key("a"), backend.GetOptions{}, func(_ backend.Info, body io.Reader) error {
		cancel()
		_, err := io.Copy(io.Discard, body)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		s.Errorf("get that is cancelled in the middle: %v", err)
	}
	check := func(what string, err error) {
		s.Helper()
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	_, err = s.b.Stat(ctx, s.key("a"))
	check("stat", err)
	_, _, err = read(ctx, s.b, s.key("a"), backend.GetOptions{})
	check("get", err)
	_, err = s.b.Put(ctx, s.key("b"), backend.Bytes(nil), backend.PutOptions{})
	check("put", err)
	check("delete", s.b.Delete(ctx, s.key("a"), backend.Cond{}))
	_, err = s.b.ListPage(ctx, backend.ListOptions{Prefix: s.prefix})
	check("list", err)
	if c, ok := backend.As[backend.Copier](s.b); ok && s.caps.Copy {
		_, err = c.Copy(ctx, s.key("a"), s.key("b"), backend.CopyOptions{})
		check("copy", err)
	}
	if a, ok := backend.As[backend.Assembler](s.b); ok {
		_, err = a.Assemble(ctx, s.key("b"), backend.PutOptions{})
		check("assemble", err)
	}
	if d, ok := backend.As[backend.BatchDeleter](s.b); ok {
		_, err = d.DeleteBatch(ctx, []backend.Deletion{{Key: s.key("a")}})
		check("deletebatch", err)
	}
	s.absent("b")
	if stat, err := s.b.Stat(s.ctx, s.key("a")); err != nil || stat.ETag != info.ETag {
		s.Errorf("%+v, %v", stat, err)
	}
}

// wholeOrNotAtAll has readers, writers and listers at a few keys at once: what
// is read is always one whole version.
func wholeOrNotAtAll(s *tester) {
	const keys, rounds = 3, 25
	version := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 50_000+1000*i) }
	for k := range keys {
		s.put(fmt.Sprint(k), version(0))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range rounds {
				name := fmt.Sprint(i % keys)
				if i%10 == 9 && w == 0 {
					if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
						s.Error(err)
					}
				}
				if _, err := s.b.Put(s.ctx, s.key(name), backend.Bytes(version(w*rounds+i)), backend.PutOptions{}); err != nil {
					s.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := range rounds {
				data, info, err := read(s.ctx, s.b, s.key(fmt.Sprint(i%keys)), backend.GetOptions{})
				if errors.Is(err, backend.ErrNotExist) {
					continue
				}
				if err != nil {
					s.Error(err)
				} else if len(data) == 0 || !bytes.Equal(data, version(int(data[0]))) || info.Size != int64(len(data)) {
					s.Errorf("a mix was read: %s, told as %d bytes", brief(data), info.Size)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				page, err := s.b.ListPage(s.ctx, backend.ListOptions{Prefix: s.prefix})
				// versitygw shows for a moment what is about to take a name.
				page.Objects = slices.DeleteFunc(page.Objects, func(o backend.Info) bool { return strings.Contains(o.Key, ".sgwtmp.") })
				if err != nil || len(page.Objects) > keys {
					s.Errorf("%+v, %v", page, err)
				}
			}
		})
	}
	wg.Wait()
}
