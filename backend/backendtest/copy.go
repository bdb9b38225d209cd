package backendtest

import (
	"maps"

	"github.com/keifs/keifs/backend"
)

// copier is the power to copy, if the bucket has it; without, it checks that
// what seems to have it refuses.
func (s *tester) copier() (backend.Copier, bool) {
	c, ok := backend.As[backend.Copier](s.b)
	if s.caps.Copy {
		if !ok {
			s.Fatal("Caps tells of copies, and there is no Copier")
		}
		return c, true
	}
	if ok {
		s.put("a", nil)
		_, err := c.Copy(s.ctx, s.key("a"), s.key("b"), backend.CopyOptions{})
		s.fails("copy", err, backend.ErrUnsupported)
		s.absent("b")
	}
	return nil, false
}

func copies(s *tester) {
	c, ok := s.copier()
	if !ok {
		return
	}
	for _, names := range [][2]string{{"a", "b"}, {"a", "dir/sub/b"}, {"with space+%41", "ünï cödé & <x>?#"}, {"marker/", "other/"}} {
		data := []byte("content of " + names[0])
		if names[0] == "marker/" {
			data = nil
		}
		attr := map[string]string{"mode": "33188", "of": "the source"}
		src := s.put(names[0], data, backend.PutOptions{Metadata: attr, ContentType: "text/x-keifs"})
		info, err := c.Copy(s.ctx, s.key(names[0]), s.key(names[1]), backend.CopyOptions{SourceETag: src.ETag})
		if err != nil {
			s.Fatalf("copy %q: %v", names, err)
		}
		s.holds(names[1], data)
		s.holds(names[0], data)
		stat, err := s.b.Stat(s.ctx, s.key(names[1]))
		if err != nil || stat.ETag != info.ETag || info.ETag == "" {
			s.Errorf("copy tells %+v, stat %+v, %v", info, stat, err)
		}
		if s.caps.Metadata && !maps.Equal(stat.Metadata, attr) {
			s.Errorf("the copy has metadata %q, want %q", stat.Metadata, attr)
		}
		if _, orig := s.get(names[0]); stat.ContentType != orig.ContentType { // some stores have a type of their own for folders
			s.Errorf("the copy has type %q, the source %q", stat.ContentType, orig.ContentType)
		}
	}
	big := content(3, 6<<20+1)
	s.put("big", big)
	if _, err := c.Copy(s.ctx, s.key("big"), s.key("a"), backend.CopyOptions{}); err != nil {
		s.Fatal(err)
	}
	s.holds("a", big)
	s.put("big", []byte("changed"))
	s.holds("a", big)

	_, err := c.Copy(s.ctx, s.key("none"), s.key("new"), backend.CopyOptions{})
	s.fails("a source that is not there", err, backend.ErrNotExist)
	_, err = c.Copy(s.ctx, s.key("big"), s.key("new"), backend.CopyOptions{SourceETag: stale})
	s.fails("another source", err, backend.ErrPrecondition)
	s.absent("new")
}

func copyMetadata(s *tester) {
	c, ok := s.copier()
	if !ok || !s.caps.Metadata {
		return
	}
	src := s.put("a", []byte("a"), backend.PutOptions{Metadata: map[string]string{"old": "1", "both": "1"}})
	check := func(name string, want map[string]string) {
		s.Helper()
		s.holds(name, []byte("a"))
		if stat, err := s.b.Stat(s.ctx, s.key(name)); err != nil || !maps.Equal(stat.Metadata, want) {
			s.Errorf("%s: %q, %v, want %q", name, stat.Metadata, err, want)
		}
	}
	replaced := map[string]string{"both": "2", "new": "%41+ &"}
	if _, err := c.Copy(s.ctx, s.key("a"), s.key("b"), backend.CopyOptions{Metadata: replaced}); err != nil {
		s.Fatal(err)
	}
	check("b", replaced)
	// The same key: only the metadata changes.
	info, err := c.Copy(s.ctx, s.key("a"), s.key("a"), backend.CopyOptions{SourceETag: src.ETag, Metadata: replaced})
	if err != nil {
		s.Fatal(err)
	}
	check("a", replaced)
	if stat, err := s.b.Stat(s.ctx, s.key("a")); err != nil || stat.ETag != info.ETag {
		s.Errorf("copy tells %+v, stat %+v, %v", info, stat, err)
	}
	if _, err := c.Copy(s.ctx, s.key("a"), s.key("a"), backend.CopyOptions{Metadata: map[string]string{}}); err != nil {
		s.Fatal(err)
	}
	check("a", map[string]string{})
	_, err = c.Copy(s.ctx, s.key("a"), s.key("a"), backend.CopyOptions{SourceETag: stale, Metadata: replaced})
	s.fails("another source", err, backend.ErrPrecondition)
	_, err = c.Copy(s.ctx, s.key("a"), s.key("a"), backend.CopyOptions{Metadata: map[string]string{"a": "x\ny"}})
	s.fails("bad metadata", err, backend.ErrInvalid)
	check("a", map[string]string{})
}

func copyConditions(s *tester) {
	c, ok := s.copier()
	if !ok {
		return
	}
	s.put("src", []byte("source"))
	old := s.put("dst", []byte("one"))
	now := s.put("dst", []byte("two"))
	do := func(dst string, cond backend.Cond) error {
		_, err := c.Copy(s.ctx, s.key("src"), s.key(dst), backend.CopyOptions{Cond: cond})
		return err
	}
	if !s.caps.CondCopy {
		for _, cond := range []backend.Cond{{IfAbsent: true}, {IfMatch: old.ETag}, {IfMatch: now.ETag}} {
			s.fails("a condition", do("dst", cond), backend.ErrUnsupported)
		}
		s.holds("dst", []byte("two"))
		return
	}
	s.fails("over what is there", do("dst", backend.Cond{IfAbsent: true}), backend.ErrPrecondition)
	s.fails("over another version", do("dst", backend.Cond{IfMatch: old.ETag}), backend.ErrPrecondition)
	s.fails("over nothing", do("none", backend.Cond{IfMatch: stale}), backend.ErrPrecondition)
	s.absent("none")
	s.holds("dst", []byte("two"))
	if err := do("dst", backend.Cond{IfMatch: now.ETag}); err != nil {
		s.Error(err)
	}
	s.holds("dst", []byte("source"))
	s.oneWinner(race(16, func(int) error { return do("new", backend.Cond{IfAbsent: true}) }))
	s.holds("new", []byte("source"))
}

func batchDelete(s *tester) {
	d, ok := backend.As[backend.BatchDeleter](s.b)
	if !ok {
		return
	}
	all := []backend.Deletion{{Key: s.key("never there")}}
	for _, name := range append([]string{"dir/", "dir/a", "dir/sub/b"}, plainOddKeys...) {
		s.put(name, nil)
		all = append(all, backend.Deletion{Key: s.key(name)})
	}
	s.put("stays", nil)
	errs, err := d.DeleteBatch(s.ctx, all)
	if err != nil || len(errs) != len(all) {
		s.Fatalf("%d results for %d keys, %v", len(errs), len(all), err)
	}
	for i, err := range errs {
		if err != nil {
			s.Errorf("%q: %v", all[i].Key, err)
		}
	}
	s.lists("", false, "stays")

	if errs, err := d.DeleteBatch(s.ctx, nil); err != nil || len(errs) != 0 {
		s.Errorf("a batch of none: %v, %v", errs, err)
	}
	many := make([]backend.Deletion, 1001)
	for i := range many {
		many[i].Key = s.key("stays")
	}
	_, err = d.DeleteBatch(s.ctx, many)
	s.fails("more than 1000 keys", err, backend.ErrInvalid)
	s.lists("", false, "stays")
}

func versions(s *tester) {
	if !s.caps.Versions {
		s.put("a", []byte("a"))
		_, _, err := read(s.ctx, s.b, s.key("a"), backend.GetOptions{VersionID: "v1"})
		s.fails("a version of an unversioned bucket", err, backend.ErrUnsupported)
		if c, ok := backend.As[backend.Copier](s.b); ok && s.caps.Copy {
			_, err := c.Copy(s.ctx, s.key("a"), s.key("b"), backend.CopyOptions{SourceVersion: "v1"})
			s.fails("a copy of a version of an unversioned bucket", err, backend.ErrUnsupported)
		}
		return
	}
	v, ok := backend.As[backend.Versioner](s.b)
	if !ok {
		s.Fatal("Caps tells of versions, and there is no Versioner")
	}
	var ids []string
	for _, data := range []string{"one", "two", "three"} {
		ids = append(ids, s.put("a", []byte(data)).VersionID)
	}
	s.put("a/b", nil)
	s.put("b", nil)
	if err := s.b.Delete(s.ctx, s.key("a"), backend.Cond{}); err != nil {
		s.Fatal(err)
	}
	s.absent("a")
	for i, data := range []string{"one", "two", "three"} {
		got, info, err := read(s.ctx, s.b, s.key("a"), backend.GetOptions{VersionID: ids[i]})
		if err != nil || string(got) != data || info.VersionID != ids[i] {
			s.Errorf("version %s: %q, %+v, %v", ids[i], got, info, err)
		}
	}
	for _, limit := range []int{0, 1, 2, 3, 4, 5} {
		var got []string
		opts := backend.ListOptions{Prefix: s.key("a"), Limit: limit}
		for range 100 {
			page, err := v.VersionsPage(s.ctx, opts)
			if err != nil {
				s.Fatal(err)
			}
			for _, version := range page.Versions {
				what := version.Key[len(s.prefix):]
				switch {
				case version.Deleted:
					what += " deleted"
				case what == "a":
					what += " " + map[string]string{ids[0]: "one", ids[1]: "two", ids[2]: "three"}[version.VersionID]
				}
				if version.Latest {
					what += " latest"
				}
				got = append(got, what)
			}
			if opts.Token = page.Next; opts.Token == "" {
				break
			}
		}
		s.equal("versions", got, []string{"a deleted latest", "a three", "a two", "a one", "a/b latest"})
	}
	for after, want := range map[string][]string{"": {"a", "a", "a", "a", "a/b", "b"}, "a": {"a/b", "b"}, "a/": {"a/b", "b"}, "b": nil} {
		opts := backend.ListOptions{Prefix: s.prefix, Limit: 2}
		if after != "" {
			opts.After = s.key(after)
		}
		var got []string
		for range 100 {
			page, err := v.VersionsPage(s.ctx, opts)
			if err != nil {
				s.Fatal(err)
			}
			for _, version := range page.Versions {
				got = append(got, version.Key[len(s.prefix):])
			}
			if opts.Token = page.Next; opts.Token == "" {
				break
			}
		}
		s.equal("versions behind "+after, got, want)
	}
	versionCopies(s, ids)
}

// versionCopies copies versions of an object that is deleted.
func versionCopies(s *tester, ids []string) {
	c, ok := backend.As[backend.Copier](s.b)
	if !ok || !s.caps.Copy {
		return
	}
	for i, data := range []string{"one", "two", "three"} {
		for _, metadata := range []map[string]string{nil, {"n": "1"}} {
			if _, err := c.Copy(s.ctx, s.key("a"), s.key("copy"), backend.CopyOptions{SourceVersion: ids[i], Metadata: metadata}); err != nil {
				s.Fatal(err)
			}
			s.holds("copy", []byte(data))
		}
	}
	s.put("a", []byte("four"))
	etag := s.put("c", []byte("one")).ETag
	if _, err := c.Copy(s.ctx, s.key("a"), s.key("copy"), backend.CopyOptions{SourceVersion: ids[0], SourceETag: etag}); err != nil {
		s.Errorf("a version that has the ETag: %v", err)
	}
	_, err := c.Copy(s.ctx, s.key("a"), s.key("new"), backend.CopyOptions{SourceVersion: ids[1], SourceETag: etag})
	s.fails("a version with another ETag", err, backend.ErrPrecondition)
	s.absent("new")
}

func rename(s *tester) {
	r, ok := backend.As[backend.Renamer](s.b)
	if !ok {
		return
	}
	attr := map[string]string{"mode": "33188"}
	s.put("a", []byte("a"), backend.PutOptions{Metadata: attr})
	info, err := r.Rename(s.ctx, s.key("a"), s.key("dir/b"), backend.Cond{})
	if err != nil {
		s.Fatal(err)
	}
	s.absent("a")
	s.holds("dir/b", []byte("a"))
	stat, err := s.b.Stat(s.ctx, s.key("dir/b"))
	if err != nil || stat.ETag != info.ETag || s.caps.Metadata && !maps.Equal(stat.Metadata, attr) {
		s.Errorf("rename tells %+v, stat %+v, %v", info, stat, err)
	}
	_, err = r.Rename(s.ctx, s.key("a"), s.key("c"), backend.Cond{})
	s.fails("a source that is not there", err, backend.ErrNotExist)

	other := s.put("other", []byte("other"))
	_, err = r.Rename(s.ctx, s.key("dir/b"), s.key("other"), backend.Cond{IfAbsent: true})
	s.fails("over what is there", err, backend.ErrPrecondition)
	_, err = r.Rename(s.ctx, s.key("dir/b"), s.key("other"), backend.Cond{IfMatch: stale})
	s.fails("over another version", err, backend.ErrPrecondition)
	s.holds("dir/b", []byte("a"))
	s.holds("other", []byte("other"))
	if _, err := r.Rename(s.ctx, s.key("dir/b"), s.key("other"), backend.Cond{IfMatch: other.ETag}); err != nil {
		s.Error(err)
	}
	s.holds("other", []byte("a"))
	s.lists("", false, "other")
}
