package backendtest

import (
	"errors"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
)

// plainOddKeys are possible in every store.
var plainOddKeys = []string{
	"with space", " leading and trailing ", "plus+plus", "per%20cent", "100%", "am&per&sand", "less<and>more", `quote"s'`,
	"semi;colon", "question?mark=1", "hash#tag", "star*", "brackets[x]{y}", "caret^", "tilde~", "pipe|", "back`tick", "dollar$", "at@host",
	"comma,", "colon:", "equals=", "ümläut", "日本語", "emoji-🦊", "e\u0301-decomposed", "\u00e9-composed", ".hidden", "-", "x/.y/..z",
}

// perhapsKeys are possible in some stores; the others refuse them.
var perhapsKeys = []string{
	`back\slash`, "...", "dot.", "new\nline", "tab\t", "carriage\rreturn", "bell\a", "escape\x1b", "delete\x7f", "nul\x00", "not-utf8-\xff\xfe", "\uffff",
	strings.Repeat("n", 255), strings.Repeat("n", 256),
}

// pathKeys are those which a store made of directories cannot have.
var pathKeys = []string{"a//b", "a/./b", "a/../b", "a/..", "/a", "a//"}

func oddKeys(s *tester) {
	var stored []string
	for _, name := range slices.Concat(plainOddKeys, perhapsKeys) {
		data := []byte("content of " + name)
		info, err := s.b.Put(s.ctx, s.key(name), backend.Bytes(data), backend.PutOptions{})
		if err != nil && slices.Contains(perhapsKeys, name) {
			s.fails("putting "+name, err, backend.ErrBadKey)
			s.neverThere(name)
			continue
		}
		if err != nil {
			s.Errorf("%q: %v", name, err)
			continue
		}
		stored = append(stored, name)
		s.holds(name, data)
		if stat, err := s.b.Stat(s.ctx, s.key(name)); err != nil || stat.Key != s.key(name) || stat.ETag != info.ETag {
			s.Errorf("%q: %+v, %v", name, stat, err)
		}
	}
	slices.Sort(stored)
	s.lists("", false, stored...)
	for _, name := range stored {
		s.lists(name, false, slices.DeleteFunc(slices.Clone(stored), func(k string) bool { return !strings.HasPrefix(k, name) })...)
		if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
			s.Errorf("%q: %v", name, err)
		}
	}
	s.lists("", false)

	// A store may take these without listing them; it must not mix them up
	// with others, nor fail in any other way than by refusing them.
	for _, name := range pathKeys {
		data := []byte("content of " + name)
		if _, err := s.b.Put(s.ctx, s.key(name), backend.Bytes(data), backend.PutOptions{}); err != nil {
			s.fails("putting "+name, err, backend.ErrBadKey)
			s.neverThere(name)
			continue
		}
		s.holds(name, data)
		if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
			s.Errorf("%q: %v", name, err)
		}
	}
}

// neverThere checks that an impossible key is refused or missed by all calls.
func (s *tester) neverThere(name string) {
	s.Helper()
	check := func(what string, err error, kinds ...error) {
		s.Helper()
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return
			}
		}
		s.Errorf("%s of the impossible key %q: %v", what, name, err)
	}
	_, err := s.b.Stat(s.ctx, s.key(name))
	check("stat", err, backend.ErrNotExist, backend.ErrBadKey)
	_, _, err = read(s.ctx, s.b, s.key(name), backend.GetOptions{})
	check("get", err, backend.ErrNotExist, backend.ErrBadKey)
	if err := s.b.Delete(s.ctx, s.key(name), backend.Cond{}); err != nil {
		check("delete", err, backend.ErrBadKey)
	}
}

func badKeys(s *tester) {
	s.put("a", []byte("a"))
	bad := []string{""}
	if n := s.caps.MaxKey; n > 0 {
		// Many short components, so that it is the length alone.
		long := s.prefix + strings.Repeat("0123456/", n/8+1)
		bad = append(bad, long[:n]+"x")
	}
	for _, key := range bad {
		_, err := s.b.Put(s.ctx, key, backend.Bytes([]byte("x")), backend.PutOptions{})
		s.fails("put", err, backend.ErrBadKey)
		if c, ok := backend.As[backend.Copier](s.b); ok && s.caps.Copy {
			_, err := c.Copy(s.ctx, s.key("a"), key, backend.CopyOptions{})
			s.fails("copy", err, backend.ErrBadKey)
		}
		if a, ok := backend.As[backend.Assembler](s.b); ok {
			_, err := a.Assemble(s.ctx, key, backend.PutOptions{})
			s.fails("assemble", err, backend.ErrBadKey)
		}
		_, err = s.b.Stat(s.ctx, key)
		s.fails("stat", err, backend.ErrBadKey)
		_, _, err = read(s.ctx, s.b, key, backend.GetOptions{})
		s.fails("get", err, backend.ErrBadKey)
		s.fails("delete", s.b.Delete(s.ctx, key, backend.Cond{}), backend.ErrBadKey)
	}
	s.holds("a", []byte("a"))
}

func objectAndPrefix(s *tester) {
	s.put("a", []byte("object"))
	s.put("b/c", []byte("below"))
	for _, name := range []string{"a/b", "a/b/c", "a/", "b"} {
		_, err := s.b.Put(s.ctx, s.key(name), backend.Bytes(nil), backend.PutOptions{})
		if !s.caps.ObjectPrefix {
			s.fails("putting "+name, err, backend.ErrBadKey)
			s.neverThere(name)
		} else if err != nil {
			s.Errorf("putting %s: %v", name, err)
		}
	}
	s.holds("a", []byte("object"))
	s.holds("b/c", []byte("below"))
	if !s.caps.ObjectPrefix {
		s.lists("", false, "a", "b/c")
		return
	}
	s.lists("", false, "a", "a/", "a/b", "a/b/c", "b", "b/c")
	s.lists("", true, "a", "a/", "b", "b/")
	if err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{}); err != nil {
		s.Fatal(err)
	}
	s.lists("", false, "a/", "a/b", "a/b/c", "b", "b/c")
}
