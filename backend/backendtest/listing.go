package backendtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keifs/keifs/backend"
)

// lists checks a listing by the pages of several limits and by the helpers.
// Names are relative to the prefix of the test.
func (s *tester) lists(prefix string, delimited bool, names ...string) {
	s.Helper()
	want := make([]string, len(names))
	for i, name := range names {
		want[i] = s.key(name)
	}
	limits := []int{0, 1, 2, 3, 1000}
	switch { // small pages are told by few entries as well
	case len(want) > 1000:
		limits = []int{0, 600}
	case len(want) > 50:
		limits = []int{0, 37, 100, 1000}
	}
	for _, limit := range limits {
		got := s.list(backend.ListOptions{Prefix: s.key(prefix), Delimited: delimited, Limit: limit})
		if !slices.Equal(got, want) {
			s.Errorf("list %q, delimited %v, limit %d: %q, want %q", prefix, delimited, limit, got, want)
		}
	}
	var got []string
	if delimited {
		for entry, err := range backend.List(s.ctx, s.b, s.key(prefix)) {
			if err != nil {
				s.Fatal(err)
			}
			got = append(got, entry.Key)
		}
	} else {
		for info, err := range backend.ListRecursive(s.ctx, s.b, s.key(prefix)) {
			if err != nil {
				s.Fatal(err)
			}
			got = append(got, info.Key)
		}
	}
	if !slices.Equal(got, want) {
		s.Errorf("list %q, delimited %v, by the helper: %q, want %q", prefix, delimited, got, want)
	}
}

func listOrder(s *tester) {
	names := []string{
		"A", "Z/1", "a!", "a-b", "a.b", "a/b", "a/b-c", "a/b0", "a/c/d", "a/c/e/f", "a0", "a00/x", "ab", "b", "z", "~", "é", "日/本", "🦊",
	}
	if !slices.IsSorted(names) {
		s.Fatal("the names are not sorted")
	}
	for _, i := range []int{7, 3, 18, 0, 12, 5, 16, 1, 9, 14, 2, 17, 4, 11, 8, 6, 15, 13, 10} {
		s.put(names[i], []byte(names[i]))
	}
	s.lists("", false, names...)
	s.lists("", true, "A", "Z/", "a!", "a-b", "a.b", "a/", "a0", "a00/", "ab", "b", "z", "~", "é", "日/", "🦊")
	s.lists("a/", true, "a/b", "a/b-c", "a/b0", "a/c/")
	s.lists("a/", false, "a/b", "a/b-c", "a/b0", "a/c/d", "a/c/e/f")
	s.lists("a/c/", true, "a/c/d", "a/c/e/")
	s.lists("none/", true)
	s.lists("none/", false)
	s.lists("A/", true)

	_, err := s.b.ListPage(s.ctx, backend.ListOptions{Prefix: s.prefix, Limit: -1})
	s.fails("a negative limit", err, backend.ErrInvalid)
}

func listAfter(s *tester) {
	if !s.caps.ListAfter {
		return // what it would leave out is listed
	}
	s.putAll([]string{"a", "b!", "b/1", "b/2/x", "b/3", "b0", "c/1", "d"})
	for _, test := range []struct {
		after, prefix string
		delimited     bool
		want          []string
	}{
		{"", "", true, []string{"a", "b!", "b/", "b0", "c/", "d"}},
		{"a", "", true, []string{"b!", "b/", "b0", "c/", "d"}},
		{"b!", "", true, []string{"b/", "b0", "c/", "d"}},
		{"b/", "", true, []string{"b0", "c/", "d"}},
		{"b00", "", true, []string{"c/", "d"}},
		{"d", "", true, nil},
		{"b/", "", false, []string{"b/1", "b/2/x", "b/3", "b0", "c/1", "d"}},
		{"b/1", "", false, []string{"b/2/x", "b/3", "b0", "c/1", "d"}},
		{"b/2/", "b/", true, []string{"b/3"}},
		{"a", "b/", true, []string{"b/1", "b/2/", "b/3"}},
		{"c", "b/", true, nil},
	} {
		var want []string
		for _, name := range test.want {
			want = append(want, s.key(name))
		}
		for _, limit := range []int{0, 1, 2} {
			opts := backend.ListOptions{Prefix: s.key(test.prefix), Delimited: test.delimited, Limit: limit}
			if test.after != "" {
				opts.After = s.key(test.after)
			}
			if got := s.list(opts); !slices.Equal(got, want) {
				s.Errorf("behind %q of %q, delimited %v, limit %d: %q, want %q", test.after, test.prefix, test.delimited, limit, got, want)
			}
		}
	}
}

func listPrefix(s *tester) {
	for _, name := range []string{"ab", "ab/1", "abc", "abd/1", "abd/2/3", "ac", "b/abc"} {
		if name == "ab" && !s.caps.ObjectPrefix {
			continue
		}
		s.put(name, nil)
	}
	var object []string
	if s.caps.ObjectPrefix {
		object = []string{"ab"}
	}
	s.lists("ab", false, append(object, "ab/1", "abc", "abd/1", "abd/2/3")...)
	s.lists("ab", true, append(object, "ab/", "abc", "abd/")...)
	s.lists("abd", true, "abd/")
	s.lists("abd/2", true, "abd/2/")
	s.lists("abd/2/3", true, "abd/2/3")
	s.lists("abd/2/34", true)
	s.lists("abe", true)
	s.lists("bb", false)
}

func listManyPrefixes(s *tester) {
	var all, level []string
	for i := range 30 {
		for j := range 3 {
			all = append(all, fmt.Sprintf("d%02d/f%d", i, j))
		}
		level = append(level, fmt.Sprintf("d%02d/", i))
		if i%4 == 0 {
			// Objects whose names sort between a prefix and what it holds.
			for _, name := range []string{fmt.Sprintf("d%02d.txt", i), fmt.Sprintf("d%02d0", i)} {
				all, level = append(all, name), append(level, name)
			}
		}
	}
	s.putAll(all)
	slices.Sort(all)
	slices.Sort(level)
	s.lists("", true, level...)
	s.lists("", false, all...)
	got := s.list(backend.ListOptions{Prefix: s.prefix, Delimited: true, Limit: 7})
	if len(got) != len(level) {
		s.Errorf("pages of 7 give %d entries, want %d", len(got), len(level))
	}
}

func listManyPages(s *tester) {
	var all []string
	for i := range 1030 {
		all = append(all, fmt.Sprintf("dir/%04d", i))
	}
	s.putAll(all)
	s.lists("dir/", true, all...)
	s.lists("", true, "dir/")
	s.lists("", false, all...)
}

// putAll stores small objects, several at once.
func (s *tester) putAll(names []string) {
	s.Helper()
	var wg sync.WaitGroup
	for part := range slices.Chunk(names, (len(names)+15)/16) {
		wg.Go(func() {
			for _, name := range part {
				if _, err := s.b.Put(s.ctx, s.key(name), backend.Bytes([]byte(name)), backend.PutOptions{}); err != nil {
					s.Errorf("put: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func listIsStrong(s *tester) {
	if !s.caps.StrongList {
		// Nothing is promised but that what was there long ago is listed.
		return
	}
	var there []string
	for i := range 10 {
		name := strings.Repeat("n", i+1)
		s.put(name, nil)
		there = append(there, name)
		s.lists("", false, there...)
	}
	for len(there) > 0 {
		if err := s.b.Delete(s.ctx, s.key(there[0]), backend.Cond{}); err != nil {
			s.Fatal(err)
		}
		there = there[1:]
		s.lists("", true, there...)
	}
}
