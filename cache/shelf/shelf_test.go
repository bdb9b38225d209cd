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
	if err := s.PutAside([]Pair{{[]byte("later"), []byte("4")}}); err != nil {
		t.Fatal(err)
	}
	s.Close()

	s = opened(t, path, Options{Owner: "a"})
	for key, want := range map[string]string{"x": "1", "x/y": "2", "xz": "", "later": ""} {
		if v, _ := get(s, key); v != want {
			t.Errorf("%s: %q", key, v)
		}
	}
	for _, want := range []int{1, 0} {
		if pairs, err := s.TakeAside(); err != nil || len(pairs) != want {
			t.Errorf("aside: %q, %v", pairs, err)
		}
	}
	if err := s.Drop([]byte("x/")); err != nil {
		t.Fatal(err)
	}
	if v, _ := get(s, "x/y"); v != "" {
		t.Errorf("dropped: %q", v)
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

// No damage to the file makes a value another one, or Open fail.
func TestADamagedFileGivesNothingWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shelf")
	s := opened(t, path, Options{})
	value := string(bytes.Repeat([]byte("value "), 20))
	for i := range 20 {
		put(t, s, fmt.Sprintf("key%02d", i), value)
	}
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte("value value"))
	for at >= 0 && at < len(whole) {
		broken := bytes.Clone(whole)
		broken[at+3] ^= 0x20
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		s := opened(t, path, Options{})
		for i := range 20 {
			if v, _ := get(s, fmt.Sprintf("key%02d", i)); v != value && v != "" {
				t.Fatalf("a damaged value: %q", v)
			}
		}
		s.Close()
		next := bytes.Index(whole[at+len(value):], []byte("value value"))
		if next < 0 {
			break
		}
		at += len(value) + next
	}
	for _, n := range []int{0, 10, 5000} {
		if err := os.WriteFile(path, bytes.Repeat([]byte{7}, n), 0o600); err != nil {
			t.Fatal(err)
		}
		s := opened(t, path, Options{})
		put(t, s, "new", "v")
		if v, _ := get(s, "new"); v != "v" {
			t.Errorf("after %d bytes of something else: %q", n, v)
		}
		s.Close()
	}
}
