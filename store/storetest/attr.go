package storetest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keifs/keifs/store"
)

// when is a time that no clock makes by chance.
var when = time.Unix(1_000_000_000, 123_456_789)

// hasAttr checks what an entry has of the attributes in want.
func (e *env) hasAttr(what string, got store.Entry, want store.Attr) {
	e.t.Helper()
	equal(e, what+": mode", strconv.FormatUint(uint64(got.Mode), 8), strconv.FormatUint(uint64(want.Mode), 8))
	equal(e, what+": uid", got.UID, want.UID)
	equal(e, what+": gid", got.GID, want.GID)
	if !got.Mtime.Equal(want.Mtime) {
		e.t.Errorf("%s: mtime: got %v; want %v", what, got.Mtime, want.Mtime)
	}
	equal(e, what+": xattrs", showXattrs(got.Xattrs), showXattrs(want.Xattrs))
}

func showXattrs(m map[string][]byte) string {
	var s []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		s = append(s, strconv.Quote(name)+"="+strconv.Quote(string(m[name])))
	}
	return strings.Join(s, " ")
}

func (e *env) setAttr(tree store.Tree, name string, change store.AttrChange) store.Entry {
	e.t.Helper()
	entry, err := tree.SetAttr(e.ctx, e.path(name), change)
	e.ok(err)
	return entry
}

func xattr(name, value string) store.AttrChange {
	return store.AttrChange{Xattr: &store.XattrChange{Name: name, Value: []byte(value)}}
}

// attributes are the promises about modes, owners, times and xattrs.
func attributes() []test {
	all := store.AttrChange{Mode: new(uint32(0o640)), UID: new(uint32(1000)), GID: new(uint32(100)), Mtime: &when}
	want := store.Attr{Mode: store.ModeRegular | 0o640, UID: 1000, GID: 100, Mtime: when}
	return []test{
		{name: "attributes of a file are kept, and its content", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.hasAttr("set", e.setAttr(e.tree, "f", all), want)
			e.hasAttr("looked up", e.lookup(e.tree, "f"), want)
			equal(e, "content", e.get(e.tree, "f"), "content")
			e.remount()
			e.hasAttr("remounted", e.lookup(e.tree, "f"), want)
			f := e.openRead(e.tree, "f")
			e.hasAttr("opened", e.stat(f), want)
			e.close(f)
			equal(e, "size", e.lookup(e.tree, "f").Size, 7)
		}},
		{name: "attributes are metadata that s3fs and rclone read", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.setAttr(e.tree, "f", all)
			_, info := e.object("main/f")
			equal(e, "mode", info.Metadata["mode"], "33184")
			equal(e, "uid", info.Metadata["uid"], "1000")
			equal(e, "gid", info.Metadata["gid"], "100")
			equal(e, "mtime", info.Metadata["mtime"], "1000000000.123456789")
		}},
		{name: "attributes of a file that is being written are published with it", needs: metadata, run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			entry, err := f.SetAttr(e.ctx, all)
			e.ok(err)
			e.hasAttr("set", entry, want)
			e.hasAttr("looked up", e.lookup(e.tree, "f"), want)
			g := e.openRead(e.tree, "f")
			e.hasAttr("of another handle", e.stat(g), want)
			e.close(g)
			e.close(f)
			e.hasAttr("closed", e.lookup(e.tree, "f"), want)
			e.remount()
			e.hasAttr("remounted", e.lookup(e.tree, "f"), want)
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "attributes set by name reach the open file, dirty or not", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openFile(e.tree, "f")
			e.setAttr(e.tree, "f", store.AttrChange{Mode: new(uint32(0o600))})
			equal(e, "mode", e.stat(f).Mode, uint32(store.ModeRegular|0o600))
			equal(e, "content", e.content(f), "content")
			e.write(f, 0, "C")
			e.setAttr(e.tree, "f", store.AttrChange{UID: new(uint32(7))})
			equal(e, "uid", e.stat(f).UID, 7)
			e.flush(f)
			e.setAttr(e.tree, "f", store.AttrChange{GID: new(uint32(8))})
			e.write(f, 1, "O")
			e.close(f)
			e.remount()
			got := e.lookup(e.tree, "f")
			equal(e, "mode", got.Mode, uint32(store.ModeRegular|0o600))
			equal(e, "uid", got.UID, 7)
			equal(e, "gid", got.GID, 8)
			equal(e, "content", e.get(e.tree, "f"), "COntent")
			equal(e, "conflicts", len(e.conflictCopies("f")), 0)
		}},
		{name: "attributes given at creation are kept", needs: metadata, run: func(e *env) {
			attr := store.Attr{Mode: store.ModeRegular | 0o2751, UID: 12, GID: 34, Mtime: when, Xattrs: map[string][]byte{"user.a": []byte("1")}}
			for _, exclusive := range []bool{false, true} {
				name := "f" + strconv.FormatBool(exclusive)
				f, err := e.tree.Create(e.ctx, e.path(name), attr, exclusive)
				e.ok(err)
				e.hasAttr("open", e.stat(f), attr)
				e.close(f)
				e.hasAttr("closed", e.lookup(e.tree, name), attr)
			}
			e.remount()
			e.hasAttr("remounted", e.lookup(e.tree, "ffalse"), attr)
			e.hasAttr("remounted", e.lookup(e.tree, "ftrue"), attr)
		}},
		{name: "times before 1970 and to the nanosecond come back", needs: metadata, run: func(e *env) {
			for _, at := range []time.Time{time.Unix(-1_000_000, 999_999_999), time.Unix(0, 0), time.Unix(-1, 1), time.Unix(5e9, 1)} {
				e.put(e.tree, "f", "x")
				e.setAttr(e.tree, "f", store.AttrChange{Mtime: &at})
				e.remount()
				if got := e.lookup(e.tree, "f").Mtime; !got.Equal(at) {
					e.t.Errorf("mtime %v; want %v", got, at)
				}
			}
		}},
		{name: "writing moves the time on, and setting it after writing holds", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "x")
			e.setAttr(e.tree, "f", store.AttrChange{Mtime: &when})
			f := e.openFile(e.tree, "f")
			before := time.Now()
			e.write(f, 0, "y")
			if got := e.stat(f).Mtime; got.Before(before.Add(-time.Second)) {
				e.t.Errorf("mtime after a write: %v", got)
			}
			_, err := f.SetAttr(e.ctx, store.AttrChange{Mtime: &when})
			e.ok(err)
			e.close(f)
			equal(e, "mtime", e.lookup(e.tree, "f").Mtime.Equal(when), true)
			e.remount()
			equal(e, "mtime", e.lookup(e.tree, "f").Mtime.Equal(when), true)
		}},
		{name: "what a flush says of the time is what a lookup says", needs: metadata, run: func(e *env) {
			f := e.create(e.tree, "f")
			e.write(f, 0, "content")
			e.flush(f)
			mtime := e.stat(f).Mtime
			e.close(f)
			e.remount()
			if got := e.lookup(e.tree, "f").Mtime; !got.Equal(mtime) {
				e.t.Errorf("mtime %v became %v", mtime, got)
			}
		}},
		{name: "attributes of a directory are kept", needs: metadata, run: func(e *env) {
			_, err := e.tree.Mkdir(e.ctx, e.path("d"), store.Attr{Mode: store.ModeDir | 0o1777, UID: 3, GID: 4, Mtime: when})
			e.ok(err)
			e.hasAttr("made", e.lookup(e.tree, "d"), store.Attr{Mode: store.ModeDir | 0o1777, UID: 3, GID: 4, Mtime: when})
			e.putObject("main/implicit/x", "x")
			for _, name := range []string{"d", "implicit"} {
				entry := e.setAttr(e.tree, name, all)
				want := want
				want.Mode = store.ModeDir | 0o640
				e.hasAttr("set", entry, want)
				equal(e, "dir", entry.IsDir(), true)
				e.remount()
				e.hasAttr("remounted", e.lookup(e.tree, name), want)
			}
			equal(e, "names", e.names(e.tree, "implicit"), "x")
		}},
		{name: "attributes of the root of a branch are kept", needs: metadata, run: func(e *env) {
			e.setAttr(e.tree, "", store.AttrChange{Mode: new(uint32(0o700))})
			e.remount()
			equal(e, "mode", e.lookup(e.tree, "").Mode, uint32(store.ModeDir|0o700))
		}},
		{name: "extended attributes are set, replaced and removed", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			e.mkdir(e.tree, "d")
			for _, name := range []string{"f", "d"} {
				set := func(x store.XattrChange) error {
					_, err := e.tree.SetAttr(e.ctx, e.path(name), store.AttrChange{Xattr: &x})
					return err
				}
				e.want(set(store.XattrChange{Name: "user.a", Value: []byte("1"), Replace: true}), store.ErrNoXattr)
				e.want(set(store.XattrChange{Name: "user.a"}), store.ErrNoXattr)
				e.ok(set(store.XattrChange{Name: "user.a", Value: []byte("1"), Create: true}))
				e.want(set(store.XattrChange{Name: "user.a", Value: []byte("2"), Create: true}), store.ErrExist)
				e.ok(set(store.XattrChange{Name: "user.a", Value: []byte("3\x00\xff \"%"), Replace: true}))
				e.ok(set(store.XattrChange{Name: "user.empty", Value: []byte{}}))
				e.ok(set(store.XattrChange{Name: "user.ü", Value: []byte("x")}))
				const want = `"user.a"="3\x00\xff \"%" "user.empty"="" "user.ü"="x"`
				equal(e, "xattrs", showXattrs(e.lookup(e.tree, name).Xattrs), want)
				e.remount()
				equal(e, "xattrs", showXattrs(e.lookup(e.tree, name).Xattrs), want)
				e.ok(set(store.XattrChange{Name: "user.a"}))
				e.remount()
				equal(e, "xattrs", showXattrs(e.lookup(e.tree, name).Xattrs), `"user.empty"="" "user.ü"="x"`)
			}
			equal(e, "content", e.get(e.tree, "f"), "content")
		}},
		{name: "extended attributes that cannot be stored are refused at once", needs: metadata, run: func(e *env) {
			e.put(e.tree, "f", "content")
			f := e.openFile(e.tree, "f")
			e.write(f, 0, "C")
			sizes := []int{100_000}
			if limit := e.raw.Caps().MaxMetadata; limit > 0 {
				sizes = append(sizes, limit)
			}
			for _, size := range sizes {
				_, err := f.SetAttr(e.ctx, xattr("user.big", strings.Repeat("x", size)))
				e.want(err, store.ErrTooBig)
			}
			e.close(f)
			for _, size := range sizes {
				_, err := e.tree.SetAttr(e.ctx, e.path("f"), xattr("user.big", strings.Repeat("x", size)))
				e.want(err, store.ErrTooBig)
			}
			equal(e, "content", e.get(e.tree, "f"), "Content")
		}},
		{name: "a size is set by name", run: func(e *env) {
			e.put(e.tree, "f", "0123456789")
			for _, size := range []int64{4, 6, 0, 3} {
				entry := e.setAttr(e.tree, "f", store.AttrChange{Size: new(size)})
				equal(e, "size", entry.Size, size)
				equal(e, "size", e.lookup(e.tree, "f").Size, size)
			}
			data, _ := e.object("main/f")
			equal(e, "object", data, "\x00\x00\x00")
			e.mkdir(e.tree, "d")
			_, err := e.tree.SetAttr(e.ctx, e.path("d"), store.AttrChange{Size: new(int64(0))})
			e.want(err, store.ErrIsDir)
		}},
		{name: "attributes of nothing are an error", run: func(e *env) {
			_, err := e.tree.SetAttr(e.ctx, e.path("nothing"), store.AttrChange{Mode: new(uint32(0o600))})
			e.want(err, store.ErrNotExist)
			_, err = e.tree.SetAttr(e.ctx, e.path("nothing"), store.AttrChange{Size: new(int64(1))})
			e.want(err, store.ErrNotExist)
		}},
	}
}

// links are the promises about entries that are neither files nor directories.
func links() []test {
	return []test{
		{name: "a symbolic link keeps its target", needs: metadata, run: func(e *env) {
			for name, target := range map[string]string{"l": "dir/target", "abs": "/a/b", "odd": "caf\xe9 \n%", "long": strings.Repeat("t", 4000)} {
				entry, err := e.tree.Mknod(e.ctx, e.path(name), store.Attr{Mode: store.ModeSymlink | 0o777, UID: 5}, target)
				e.ok(err)
				equal(e, "symlink", entry.IsSymlink(), true)
				equal(e, "size", entry.Size, int64(len(target)))
				e.remount()
				entry = e.lookup(e.tree, name)
				equal(e, "symlink", entry.IsSymlink(), true)
				equal(e, "size", entry.Size, int64(len(target)))
				equal(e, "uid", entry.UID, 5)
				got, err := e.tree.Readlink(e.ctx, e.path(name))
				e.ok(err)
				equal(e, "target", got, target)
				_, info := e.object("main/" + name)
				equal(e, "mode", info.Metadata["mode"], "41471")
			}
			e.ok(e.rename(e.tree, "l", "moved", store.Replace))
			got, err := e.tree.Readlink(e.ctx, e.path("moved"))
			e.ok(err)
			equal(e, "target", got, "dir/target")
			e.remove(e.tree, "moved")
			e.missing(e.tree, "moved")
		}},
		{name: "reading the target of what is no link is an error", run: func(e *env) {
			e.put(e.tree, "f", "x")
			_, err := e.tree.Readlink(e.ctx, e.path("f"))
			e.want(err, store.ErrInvalid)
			_, err = e.tree.Readlink(e.ctx, e.path("nothing"))
			e.want(err, store.ErrNotExist)
		}},
		{name: "FIFOs, sockets and plain nodes are kept; devices are refused", needs: metadata, run: func(e *env) {
			for name, mode := range map[string]uint32{"fifo": store.ModeFIFO | 0o644, "socket": store.ModeSocket | 0o755, "plain": store.ModeRegular | 0o600} {
				_, err := e.tree.Mknod(e.ctx, e.path(name), store.Attr{Mode: mode}, "")
				e.ok(err)
				_, err = e.tree.Mknod(e.ctx, e.path(name), store.Attr{Mode: mode}, "")
				e.want(err, store.ErrExist)
				e.remount()
				equal(e, "mode", e.lookup(e.tree, name).Mode, mode)
			}
			for _, device := range []uint32{0o020000, 0o060000} {
				_, err := e.tree.Mknod(e.ctx, e.path("dev"), store.Attr{Mode: device | 0o600}, "")
				e.want(err, store.ErrUnsupported)
			}
			equal(e, "content", e.get(e.tree, "plain"), "")
			_, err := e.tree.Mknod(e.ctx, e.path("nothing/fifo"), store.Attr{Mode: store.ModeFIFO | 0o644}, "")
			e.want(err, store.ErrNotExist)
		}},
	}
}
