package store

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestNamesAndKeysStandForEachOther(t *testing.T) {
	for _, c := range []struct{ name, key string }{
		{"notes.txt", "notes.txt"},
		{"ünïcode", "ünïcode"},
		{"a%2Fb", "a%2Fb"},
		{"new\nline", "new\nline"},
		{"%", "%"},
		{"!%", "!%"},
		{"\xff", "%!%FF"},
		{"a%\xff/"[:3], "%!a%25%FF"},
		{"%!", ""},
		{"%!%2E", "."},
		{"%!%2E%2E", ".."},
		{"%!a%00b", "a\x00b"},
		{"%!%FE", "\xfe"},
		{"%!%25!x", "%!x"},
		{"%!%25!", "%!"},
		{"%!%25!%25FF%25", "%!%FF%"},
		{"%!%25!%2525!%25FF", "%!%25!%FF"},
	} {
		if got := displayName(c.key); got != c.name {
			t.Errorf("key %q is shown as %q, want %q", c.key, got, c.name)
		}
		key, shadow, err := keyComponent(c.name)
		if err != nil || shadow || key != c.key {
			t.Errorf("name %q stands for %q, %v, %v; want %q", c.name, key, shadow, err, c.key)
		}
	}
}

func TestAnObjectInTheShadowOfADirectoryHasAName(t *testing.T) {
	for _, component := range []string{"a", "ü", "a%b", "..."} {
		name, ok := shadowName(component)
		if !ok {
			t.Fatalf("%q has none", component)
		}
		key, shadow, err := keyComponent(name)
		if err != nil || !shadow || key != component {
			t.Errorf("%q, in the shadow %q, stands for %q, %v, %v", component, name, key, shadow, err)
		}
	}
	for _, component := range []string{"", "..", "%!x", "%!%FF", strings.Repeat("a", 254)} {
		if name, ok := shadowName(component); ok {
			t.Errorf("%q is %q", component, name)
		}
	}
}

func TestMalformedEscapedNamesAreRefused(t *testing.T) {
	for _, name := range []string{
		"%!%", "%!%2", "%!%zz", "%!%2e", "%!%41", "%!%2F", "%!..%2F..%2Fother", "%!..", "%!%!", "%!\xff",
		"%!%25!%25FF", // the key %!%FF is the name \xff
	} {
		if key, shadow, err := keyComponent(name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q stands for %q, %v, %v", name, key, shadow, err)
		}
	}
}

func FuzzNamesAndKeys(f *testing.F) {
	for _, s := range []string{"a", "", ".", "..", "%!", "%!%FF", "\xff", "%!%25!%FF", "a\x00", "%!a", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			return
		}
		if !strings.Contains(s, "/") { // a key component
			name := displayName(s)
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
				t.Fatalf("key %q is shown as %q", s, name)
			}
			key, shadow, err := keyComponent(name)
			if err != nil || shadow || key != s {
				t.Fatalf("key %q is shown as %q, which is key %q, %v, %v", s, name, key, shadow, err)
			}
			if name, ok := shadowName(s); ok {
				key, shadow, err := keyComponent(name)
				if err != nil || !shadow || key != s {
					t.Fatalf("key %q in the shadow is %q, which is key %q, %v, %v", s, name, key, shadow, err)
				}
			}
		}
		if checkName(s) == nil { // a name
			key, shadow, err := keyComponent(s)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(key, "/") {
				t.Fatalf("name %q is key %q", s, key)
			}
			name := displayName(key)
			if shadow {
				name, _ = shadowName(key)
			}
			if name != s {
				t.Fatalf("name %q is key %q, which is shown as %q", s, key, name)
			}
			if utf8.ValidString(s) && !utf8.ValidString(key) && !strings.HasPrefix(s, escapeMark) {
				t.Fatalf("name %q is key %q", s, key)
			}
		}
	})
}

func TestPathsCannotLeaveTheirBranch(t *testing.T) {
	long := strings.Repeat("n", MaxName)
	for rel, want := range map[string]error{
		"": nil, ".": nil, "a": nil, "a/b/c": nil, "...": nil, "a/..b": nil, long: nil, "\xff/%!": nil,
		"/": ErrBadName, "/a": ErrBadName, "a/": ErrBadName, "a//b": ErrBadName, "..": ErrBadName, "a/../b": ErrBadName,
		"a/..": ErrBadName, "./a": ErrBadName, "a\x00": ErrBadName, "a/%!%zz": ErrBadName, long + "n": ErrNameTooLong,
	} {
		if err := ValidateRel(rel); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%.20q: %v, want %v", rel, err, want)
		}
	}
}

func TestPathsComposeAndComeApart(t *testing.T) {
	parse := func(s string) Path {
		p, err := ParsePath(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := parse("a/b")
	q, err := p.Join("c")
	if err != nil || q != parse("a/b/c") || q.Dir() != p || q.Name() != "c" || q.Dir().Dir().Dir() != (Path{}) || (Path{}).Dir() != (Path{}) {
		t.Errorf("%v %v", q, err)
	}
	if _, err := p.Join("c/d"); !errors.Is(err, ErrBadName) {
		t.Errorf("a name with a slash: %v", err)
	}
	for _, c := range []struct {
		p, q string
		want bool
	}{{"a", "a", true}, {"a", "a/b", true}, {"a", "ab", false}, {"", "a", true}, {"a/b", "a", false}} {
		if got := parse(c.p).Contains(parse(c.q)); got != c.want {
			t.Errorf("%q contains %q: %v", c.p, c.q, got)
		}
	}
	for _, c := range [][4]string{{"a/b", "a", "x", "x/b"}, {"a", "a", "x/y", "x/y"}, {"a/b", "", "x", "x/a/b"}, {"a/b", "a", "", "b"}} {
		if got := parse(c[0]).Rebase(parse(c[1]), parse(c[2])); got != parse(c[3]) {
			t.Errorf("%q from %q to %q is %q", c[0], c[1], c[2], got)
		}
	}
}

func TestManifestKeysAreKnown(t *testing.T) {
	for key, want := range map[string]bool{
		".kei/commits/manifest-" + strings.Repeat("0f", 32) + ".json": true,
		".kei/commits/manifest-.json":                                 false,
		".kei/commits/manifest-xyz.json":                              false,
		".kei/commits/manifest-ab/cd.json":                            false,
		".kei/commits/manifest-ab.txt":                                false,
		"main/.kei/commits/manifest-ab.json":                          false,
		".kei/ranges/ab.parquet":                                      false,
	} {
		if got := IsManifestKey(key); got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
}

func TestShortHashIsTheSameEverywhere(t *testing.T) {
	if got := ShortHash("keifs"); got != "501aed2a0a5e" || got != ShortHash([]byte("keifs")) {
		t.Errorf("%q", got)
	}
}
