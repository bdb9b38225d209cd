package store

import (
	"errors"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/keifs/keifs/backend"
)

func testOptions() *Options {
	return &Options{UID: 1000, GID: 1000, FileMode: 0o644, DirMode: 0o755}
}

func TestAttributesSurviveTheBucket(t *testing.T) {
	o := testOptions()
	at := time.Unix(1700000000, 123456789)
	for _, c := range []struct {
		attr Attr
		want map[string]string
	}{
		{Attr{Mode: ModeRegular | 0o644, UID: 1000, GID: 1000, Mtime: at}, map[string]string{"mtime": "1700000000.123456789"}},
		{Attr{Mode: ModeDir | 0o755, UID: 1000, GID: 1000, Mtime: time.Unix(0, 0)}, map[string]string{"mtime": "0"}},
		{Attr{Mode: ModeRegular | 0o4755, UID: 0, GID: 7, Mtime: time.Unix(-2, 500000000), Atime: at},
			map[string]string{"mode": "35309", "uid": "0", "gid": "7", "mtime": "-1.500000000", "atime": "1700000000.123456789"}},
		{Attr{Mode: ModeRegular | 0o644, UID: 1000, GID: 1000, Mtime: time.Unix(-1, 500000000), Atime: time.Unix(-1, 500000000)},
			map[string]string{"mtime": "-0.500000000"}},
		{Attr{Mode: ModeSymlink | 0o777, UID: 1000, GID: 1000, Mtime: at}, map[string]string{"mode": "41471", "mtime": "1700000000.123456789"}},
		{Attr{Mode: ModeDir | 0o1777, UID: 1000, GID: 1000, Mtime: time.Unix(5, 0), Xattrs: map[string][]byte{"user.a b": []byte("x\x00"), "user.c": {}}},
			map[string]string{"mode": "17407", "mtime": "5", "xattr": "%7B%22user.a%20b%22%3A%22eAA%3D%22%2C%22user.c%22%3A%22%22%7D"}},
		{Attr{Mode: ModeFIFO | 0o600, UID: 1000, GID: 1000, Mtime: at, Foreign: map[string]string{"owner": "me"}},
			map[string]string{"mode": "4480", "mtime": "1700000000.123456789", "owner": "me"}},
	} {
		c.attr.Ctime = time.Unix(1700000001, 5)
		c.want["ctime"] = "1700000001.000000005"
		m := o.encode(c.attr, true)
		if !maps.Equal(m, c.want) {
			t.Errorf("%+v is written as %v, want %v", c.attr, m, c.want)
		}
		if err := (backend.Caps{}).CheckMetadata("", "", m); err != nil {
			t.Error(err)
		}
		got := o.decode(backend.Info{Metadata: m, ModTime: time.Unix(9, 0)}, c.attr.Mode&ModeType == ModeDir)
		want := c.attr
		if want.Atime.Equal(want.Mtime) {
			want.Atime = time.Time{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v is read as\n%+v, want\n%+v", m, got, want)
		}
	}
}

// TestAttributesOfOtherToolsAreUnderstood has what the tools write.
func TestAttributesOfOtherToolsAreUnderstood(t *testing.T) {
	o := testOptions()
	date := time.Date(2023, 5, 11, 16, 54, 11, 523399602, time.UTC)
	for _, c := range []struct {
		name     string
		metadata map[string]string
		dir      bool
		want     Attr // without a Ctime, that of the object
	}{
		{"s3fs, a file", map[string]string{"mode": "33204", "uid": "1001", "gid": "1002", "mtime": "1683824051.523399602", "ctime": "1683824052", "atime": "1683824053.000000001"}, false,
			Attr{Mode: 0o100664, UID: 1001, GID: 1002, Mtime: date, Ctime: time.Unix(1683824052, 0), Atime: time.Unix(1683824053, 1)}},
		{"s3fs, a directory", map[string]string{"mode": "16893", "uid": "0", "gid": "0", "mtime": "1683824051"}, true,
			Attr{Mode: 0o040775, Mtime: time.Unix(1683824051, 0)}},
		{"s3fs, a symbolic link", map[string]string{"mode": "41471", "uid": "0", "gid": "0", "mtime": "1683824051"}, false,
			Attr{Mode: 0o120777, Mtime: time.Unix(1683824051, 0)}},
		{"s3fs, extended attributes", map[string]string{"xattr": "%7B%22user.k%22%3A%22dmFsdWU%3D%22%7D"}, false,
			Attr{Mode: 0o100644, UID: 1000, GID: 1000, Xattrs: map[string][]byte{"user.k": []byte("value")}}},
		{"rclone", map[string]string{"mtime": "1683824051.523399602", "md5chksum": "kA=="}, false,
			Attr{Mode: 0o100644, UID: 1000, GID: 1000, Mtime: date, Foreign: map[string]string{"md5chksum": "kA=="}}},
		{"rclone, fewer digits", map[string]string{"mtime": "1683824051.5"}, false,
			Attr{Mode: 0o100644, UID: 1000, GID: 1000, Mtime: time.Unix(1683824051, 500000000)}},
		{"rclone --metadata", map[string]string{"mode": "100664", "uid": "1001", "gid": "1002", "mtime": "2023-05-11T17:54:11.523399602+01:00", "btime": "2023-05-11T17:54:11+01:00"}, false,
			Attr{Mode: 0o100664, UID: 1001, GID: 1002, Mtime: date, Foreign: map[string]string{"btime": "2023-05-11T17:54:11+01:00"}}},
		{"rclone --metadata, a directory", map[string]string{"mode": "40755"}, true, Attr{Mode: 0o040755, UID: 1000, GID: 1000}},
		{"rclone --metadata, a sticky directory", map[string]string{"mode": "41777"}, true, Attr{Mode: 0o041777, UID: 1000, GID: 1000}},
		{"rclone --metadata, a link", map[string]string{"mode": "120777"}, false, Attr{Mode: 0o120777, UID: 1000, GID: 1000}},
		{"rclone --metadata, a FIFO", map[string]string{"mode": "10644"}, false, Attr{Mode: 0o010644, UID: 1000, GID: 1000}},
		{"octal by its first digit", map[string]string{"mode": "0100600"}, false, Attr{Mode: 0o100600, UID: 1000, GID: 1000}},
		{"geesefs", map[string]string{"mode": "420", "uid": "5", "gid": "6", "mtime": "1683824051"}, false,
			Attr{Mode: 0o100644, UID: 5, GID: 6, Mtime: time.Unix(1683824051, 0)}},
		{"geesefs, a symbolic link", map[string]string{"--symlink-target": "a%20b"}, false,
			Attr{Mode: 0o120777, UID: 1000, GID: 1000, Foreign: map[string]string{"--symlink-target": "a%20b"}}},
		{"gcsfuse", map[string]string{"gcsfuse_mtime": "2023-05-11T16:54:11.523399602Z"}, false, Attr{Mode: 0o100644, UID: 1000, GID: 1000, Mtime: date}},
		{"gcsfuse, a symbolic link", map[string]string{"gcsfuse_symlink_target": "../t"}, false,
			Attr{Mode: 0o120777, UID: 1000, GID: 1000, Foreign: map[string]string{"gcsfuse_symlink_target": "../t"}}},
		{"gcloud storage", map[string]string{"goog-reserved-posix-mode": "750", "goog-reserved-posix-uid": "3", "goog-reserved-posix-gid": "4", "goog-reserved-file-mtime": "1683824051", "goog-reserved-file-atime": "1683824052"}, false,
			Attr{Mode: 0o100750, UID: 3, GID: 4, Mtime: time.Unix(1683824051, 0), Atime: time.Unix(1683824052, 0)}},
		{"gcloud storage, a symbolic link", map[string]string{"goog-reserved-file-is-symlink": "true"}, false,
			Attr{Mode: 0o120777, UID: 1000, GID: 1000, Foreign: map[string]string{"goog-reserved-file-is-symlink": "true"}}},
		{"nonsense", map[string]string{"mode": "rw-r--r--", "uid": "-1", "gid": "4294967295", "mtime": "yesterday", "atime": "1683824051000", "xattr": "%zz"}, false,
			Attr{Mode: 0o100644, UID: 1000, GID: 1000}},
		{"a directory that says it is a file", map[string]string{"mode": "33188"}, true, Attr{Mode: 0o040755, UID: 1000, GID: 1000}},
		{"a device", map[string]string{"mode": "8612"}, false, Attr{Mode: 0o100644, UID: 1000, GID: 1000}},
		{"nanoseconds", map[string]string{"mtime": "1683824051523399602"}, false, Attr{Mode: 0o100644, UID: 1000, GID: 1000}},
	} {
		mod := time.Unix(77, 0)
		got := o.decode(backend.Info{Metadata: c.metadata, ModTime: mod}, c.dir)
		if c.want.Mtime.IsZero() {
			c.want.Mtime = mod
		}
		if c.want.Ctime.IsZero() {
			c.want.Ctime = mod
		}
		if !got.Mtime.Equal(c.want.Mtime) || !got.Atime.Equal(c.want.Atime) || !got.Ctime.Equal(c.want.Ctime) {
			t.Errorf("%s: times %v %v %v", c.name, got.Mtime, got.Atime, got.Ctime)
		}
		for _, a := range []*Attr{&got, &c.want} {
			a.Mtime, a.Atime, a.Ctime = time.Time{}, time.Time{}, time.Time{}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.name, got, c.want)
		}
	}
}

func TestDigestsOfOtherToolsGoWithTheContent(t *testing.T) {
	a := Attr{Mode: ModeRegular | 0o644, Foreign: map[string]string{"md5chksum": "x", "kept": "y", "bad": "tab\t", "gcsfuse_mtime": "z"}}
	o := &Options{FileMode: 0o644}
	if m := o.encode(a, true); m["md5chksum"] != "" || m["kept"] != "y" || len(m) != 3 {
		t.Errorf("changed: %v", m)
	}
	if m := o.encode(a, false); m["md5chksum"] != "x" || m["kept"] != "y" || len(m) != 4 {
		t.Errorf("unchanged: %v", m)
	}
}

func TestChangesOfAttributesAreChecked(t *testing.T) {
	base := Attr{Mode: ModeRegular | 0o644, Mtime: time.Unix(1, 0), Xattrs: map[string][]byte{"user.a": []byte("1")}}
	for _, c := range []struct {
		name   string
		change XattrChange
		want   error
	}{
		{"set", XattrChange{Name: "user.b", Value: []byte("x")}, nil},
		{"set to nothing", XattrChange{Name: "user.b", Value: []byte{}}, nil},
		{"replace", XattrChange{Name: "user.a", Value: []byte("x"), Replace: true}, nil},
		{"remove", XattrChange{Name: "user.a"}, nil},
		{"create what is there", XattrChange{Name: "user.a", Value: []byte("x"), Create: true}, ErrExist},
		{"replace what is not", XattrChange{Name: "user.b", Value: []byte("x"), Replace: true}, ErrNoXattr},
		{"remove what is not", XattrChange{Name: "user.b"}, ErrNoXattr},
		{"too long a value", XattrChange{Name: "user.b", Value: make([]byte, 65<<10)}, ErrTooBig},
		{"no name", XattrChange{Value: []byte("x")}, ErrInvalid},
	} {
		got, err := AttrChange{Xattr: &c.change}.Apply(base)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && !reflect.DeepEqual(got.Xattrs[c.change.Name], c.change.Value) {
			t.Errorf("%s: %q", c.name, got.Xattrs)
		}
		if len(base.Xattrs) != 1 || string(base.Xattrs["user.a"]) != "1" {
			t.Fatalf("%s changed the original: %q", c.name, base.Xattrs)
		}
	}

	mode, uid, mtime := uint32(ModeDir|0o4711), uint32(7), time.Unix(2, 0)
	got, err := AttrChange{Mode: &mode, UID: &uid, Mtime: &mtime}.Apply(base)
	if err != nil || got.Mode != ModeRegular|0o4711 || got.UID != 7 || !got.Mtime.Equal(mtime) || !got.Atime.Equal(base.Mtime) || time.Since(got.Ctime) > time.Minute {
		t.Errorf("%+v %v", got, err)
	}
	got, err = AttrChange{Atime: &mtime}.Apply(got)
	if err != nil || !got.Atime.IsZero() {
		t.Errorf("an access time that is the other: %+v %v", got, err)
	}
	link := Attr{Mode: ModeSymlink | 0o777}
	if got, err := (AttrChange{Mode: &mode}).Apply(link); err != nil || got.Mode != link.Mode {
		t.Errorf("chmod of a symbolic link: %o %v", got.Mode, err)
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add("33188", "1000", "1683824051.523399602", "%7B%22user.k%22%3A%22dmFsdWU%3D%22%7D", false)
	f.Add("0755", "-1", "2023-05-11T16:54:11.523399602Z", "{}", true)
	f.Add("41777", "0x10", "-0.5", "%7B%22%22%3A%22%22%7D", true)
	f.Fuzz(func(t *testing.T, mode, id, at, xattr string, dir bool) {
		o := testOptions()
		in := map[string]string{
			"mode": mode, "uid": id, "gid": id, "mtime": at, "atime": at, "gcsfuse_mtime": at,
			"xattr": xattr, "goog-reserved-posix-mode": mode, "gcsfuse_symlink_target": xattr,
		}
		a := o.decode(backend.Info{Metadata: in, ModTime: time.Unix(1, 0)}, dir)
		if a.Mode&ModeType == ModeDir != dir || a.Mode>>16 != 0 {
			t.Fatalf("mode %q is %o", mode, a.Mode)
		}
		// What is written is read as the same, and written as the same again.
		m := o.encode(a, false)
		if err := (backend.Caps{}).CheckMetadata("", "", m); err != nil {
			t.Fatal(err)
		}
		b := o.decode(backend.Info{Metadata: m, ModTime: time.Unix(2, 0)}, dir)
		if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !a.Mtime.Equal(b.Mtime) || !a.Ctime.Equal(b.Ctime) ||
			len(a.Xattrs) != len(b.Xattrs) || len(a.Xattrs) > 0 && !reflect.DeepEqual(a.Xattrs, b.Xattrs) {
			t.Fatalf("%+v\nis written as %v\nand read as %+v", a, m, b)
		}
		if again := o.encode(b, false); !maps.Equal(m, again) {
			t.Fatalf("%v, and then %v", m, again)
		}
	})
}
