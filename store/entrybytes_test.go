package store

import (
	"reflect"
	"testing"
	"time"
)

func TestAnEntryIsHadBackFromItsBytes(t *testing.T) {
	at := time.Unix(1_700_000_000, 123)
	for _, e := range []Entry{
		{Name: "plain", Attr: Attr{Mode: ModeRegular | 0o644, Mtime: at, Ctime: at}, Size: 7, Version: "v"},
		{
			Name: "all", Size: 1 << 40, Version: "0123-4", Marker: true, stamped: true, Changed: at, Holds: Times{-5, 7},
			Attr: Attr{
				Mode: ModeDir | 0o7777, UID: 1<<32 - 2, GID: 3, Mtime: time.Unix(-1, 999_999_999), Atime: at, Ctime: at,
				Xattrs: map[string][]byte{"a": nil, "b": {0, 1}}, ContentType: "text/plain", Foreign: map[string]string{"x": "y"},
			},
		},
	} {
		data := e.AppendBytes(nil)
		got, err := EntryFrom(e.Name, data)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%v:\n got %+v\nwant %+v", err, got, e)
		}
		for n := range data {
			if _, err := EntryFrom(e.Name, data[:n]); err == nil {
				t.Errorf("%s: taken with %d of %d bytes", e.Name, n, len(data))
			}
		}
	}
}

func FuzzEntryFrom(f *testing.F) {
	f.Add([]byte{})
	f.Add(Entry{Version: "v", Attr: Attr{Xattrs: map[string][]byte{"a": {1}}, Mtime: time.Unix(1, 2)}}.AppendBytes(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := EntryFrom("n", data)
		if err != nil {
			return
		}
		again, err := EntryFrom("n", e.AppendBytes(nil))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%v: %+v, %+v", err, e, again)
		}
	})
}
