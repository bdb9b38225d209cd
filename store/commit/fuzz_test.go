package commit

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/keifs/keifs/backend"
)

// file is a range file of a few entries, and its description.
func file(t testing.TB, entries ...Entry) ([]byte, Range) {
	t.Helper()
	var canonical []byte
	var desc Range
	for _, e := range entries {
		canonical = e.append(canonical)
		if desc.Entries == 0 {
			desc.First = e.Path
		}
		desc.Last = e.Path
		desc.Entries++
		desc.Bytes += e.Size
	}
	desc.ID = rangeID(canonical)
	data, err := encodeRange(canonical)
	if err != nil {
		t.Fatal(err)
	}
	return data, desc
}

func full() Entry {
	return Entry{
		Path: "link", Key: "dev/link", ETag: "e", VersionID: "v1", Size: 3, Mode: 0o120777, UID: 1<<32 - 2, GID: 7,
		Mtime: -1, Modified: 42, Target: "../x", Xattr: "%7B%7D",
	}
}

func TestARangeIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	entries := []Entry{entry("a", 1), entry("b/", 2), full()}
	data, desc := file(t, entries...)
	d, err := decodeRange(data, desc)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range entries {
		if got := d.entry(i); got != want {
			t.Errorf("read %+v, written %+v", got, want)
		}
	}
}

func TestARangeThatIsNotWhatItsNameSaysIsRefused(t *testing.T) {
	t.Parallel()
	data, desc := file(t, entry("a", 1), entry("b", 2))
	other, _ := file(t, entry("a", 1), entry("b", 3))
	evil := entry("../b", 1)
	evil2 := entry("b", 2)
	evil2.Key = ".kei/branches/main.json"
	outside, outsideDesc := file(t, evil, entry("b", 2))
	record, recordDesc := file(t, entry("a", 1), evil2)
	unsorted, unsortedDesc := file(t, entry("b", 1), entry("a", 2))
	wrong := desc
	wrong.Entries = 3
	for name, c := range map[string]struct {
		data []byte
		desc Range
	}{
		"other entries": {other, desc}, "outside": {outside, outsideDesc}, "records": {record, recordDesc},
		"unsorted": {unsorted, unsortedDesc}, "count": {data, wrong}, "cut off": {data[:len(data)/2], desc}, "empty": {nil, desc},
	} {
		if _, err := decodeRange(c.data, c.desc); !errors.Is(err, backend.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRange(f *testing.F) {
	data, desc := file(f, entry("a", 1), entry("b/", 2), full())
	f.Add(data)
	f.Add(data[:len(data)-9])
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := decodeRange(data, desc)
		switch {
		case err != nil && !errors.Is(err, backend.ErrCorrupt):
			t.Fatal(err)
		case err == nil && (d.len() != 3 || d.entry(2) != full()):
			t.Fatal("accepted another range")
		}
	})
}

func FuzzManifest(f *testing.F) {
	_, desc := file(f, entry("a", 1))
	m := Manifest{Branch: "main", Message: "m", Author: "a", Parents: []string{desc.ID}}
	m.SetRanges([]Range{desc})
	data, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1,"parents":[],"ranges":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(sum(data), data)
		if err != nil {
			if !errors.Is(err, backend.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		n, err := ParseManifest(sum(again), again)
		if err != nil {
			t.Fatal(err)
		}
		n.ID, m.ID = "", ""
		a, errA := json.Marshal(m)
		b, errB := json.Marshal(n)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Fatal(fmt.Sprintf("%s became %s", a, b), errA, errB)
		}
	})
}
