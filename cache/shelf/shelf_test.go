package shelf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func opened(t *testing.T, path string, opts Options) *Shelf {
	t.Helper()
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func get(s *Shelf, key string) (value string, aging bool) {
	s.Read(func(get func([]byte) ([]byte, bool)) {
		v, a := get([]byte(key))
		value, aging = string(v), a
	})
	return value, aging
}

func put(t *testing.T, s *Shelf, pairs ...string) {
	t.Helper()
	var all []Pair
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, Pair{[]byte(pairs[i]), []byte(pairs[i+1])})
	}
	if err := s.Put(all); err != nil {
		t.Fatal(err)
	}
}

func TestValuesAreThereAgainForTheirOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shelf")
	s := opened(t, path, Options{Owner: "a"})
	put(t, s, "x", "1", "x/y", "2", "xz", "3")
	if err := s.Put([]Pair{{Key: []byte("xz")}}); err != nil {
		t.Fatal(err)
	}
	s.Close()

	s = opened(t, path, Options{Owner: "a"})
	for key, want := range map[string]string{"x": "1", "x/y": "2", "xz": ""} {
		if v, _ := get(s, key); v != want {
			t.Errorf("%s: %q", key, v)
		}
	}
	if err := s.Drop([]byte("x/")); err != nil {
		t.Fatal(err)
	}
	if v, _ := get(s, "x/y"); v != "" {
		t.Errorf("dropped: %q", v)
	}
	if v, _ := get(s, "x"); v != "1" {
		t.Errorf("not dropped: %q", v)
	}
	s.Close()

	s = opened(t, path, Options{Owner: "b"})
	if v, _ := get(s, "x"); v != "" {
		t.Errorf("for another owner: %q", v)
	}
}

func TestNoMoreIsKeptThanMay(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "shelf"), Options{Max: 100})
	for i := range 40 {
		put(t, s, fmt.Sprint("a", i), "v", fmt.Sprint("b", i), "v", "often", "v")
		if n := s.Len(); n > 102 {
			t.Fatalf("%d values", n)
		}
	}
	if v, aging := get(s, "often"); v != "v" || aging {
		t.Errorf("what is put again: %q %v", v, aging)
	}
	if v, aging := get(s, "a20"); v != "v" || !aging {
		t.Errorf("of the old generation: %q %v", v, aging)
	}
	put(t, s, "c0", "v")
	for i := range 60 {
		put(t, s, fmt.Sprint("d", i), "v")
	}
	if v, _ := get(s, "a0"); v != "" {
		t.Error("the oldest is still there")
	}
}

// A file of which anything has changed, or that was not closed, is begun anew.
func TestADamagedFileGivesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shelf")
	s := opened(t, path, Options{})
	for i := range 50 {
		put(t, s, fmt.Sprintf("key%02d", i), "value")
	}
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(path + ".sum")
	if err != nil {
		t.Fatal(err)
	}
	reopened := func(data, sum []byte) string {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".sum", sum, 0o600); err != nil {
			t.Fatal(err)
		}
		s := opened(t, path, Options{})
		defer s.Close()
		v, _ := get(s, "key07")
		return v
	}
	if got := reopened(whole, sum); got != "value" {
		t.Fatalf("whole: %q", got)
	}
	for at := 0; at < len(whole); at += 97 {
		broken := bytes.Clone(whole)
		broken[at] ^= 0x21
		if got := reopened(broken, sum); got != "" {
			t.Fatalf("changed at %d: %q", at, got)
		}
	}
	for at := 0; at < len(whole); at += os.Getpagesize() {
		if got := reopened(whole[:at], sum); got != "" {
			t.Fatalf("cut off at %d: %q", at, got)
		}
	}
	if got := reopened(whole, nil); got != "" {
		t.Fatalf("not closed: %q", got)
	}
}

// Who finds a file broken under its hands goes on without it.
func TestAFileThatIsCutOffWhileItIsOpenIsGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shelf")
	s := opened(t, path, Options{})
	put(t, s, "key", "value")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if v, _ := get(s, "key"); v != "" || s.There() {
		t.Errorf("%q", v)
	}
	if err := s.Put([]Pair{{[]byte("key"), []byte("value")}}); err != nil {
		t.Error(err)
	}
}
