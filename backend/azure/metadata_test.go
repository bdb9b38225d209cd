package azure

import (
	"regexp"
	"strings"
	"testing"
)

var (
	identifier = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	metaName   = regexp.MustCompile(`^[a-z0-9_-]+$`)
	plainName  = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
)

// FuzzMetadataNames: every name that package backend allows becomes an
// identifier, and itself again, whatever HTTP does with its case.
func FuzzMetadataNames(f *testing.F) {
	for _, name := range []string{
		"mode", "keifs-nonce", "a_b", "-", "_", "--", "__", "_2d", "_5f", "_5f2d", "-2d", "_-2d", "9", "99", "_39", "_39a", "_5f39", "a_39", "a9", "_2", "x-with_both",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !metaName.MatchString(name) {
			return
		}
		azure := metadataName(name)
		if !identifier.MatchString(azure) {
			t.Errorf("%q becomes %q, no identifier", name, azure)
		}
		if plainName.MatchString(name) && azure != name {
			t.Errorf("%q becomes %q", name, azure)
		}
		for _, told := range []string{azure, strings.ToUpper(azure), strings.ToUpper(azure[:1]) + azure[1:]} {
			if back := originalName(told); back != name {
				t.Errorf("%q becomes %q, and %q becomes %q", name, azure, told, back)
			}
		}
	})
}

func TestForeignMetadataIsShownAsItIs(t *testing.T) {
	for _, name := range []string{"author", "my_name", "snake_case_9", "_private", "a_abc", "hdi_isfolder"} {
		if got := originalName(name); got != name {
			t.Errorf("%q is shown as %q", name, got)
		}
		if got := metadataName(originalName(name)); got != name {
			t.Errorf("%q is written back as %q", name, got)
		}
	}
	if got := original(map[string]*string{"Keifs_None": new("1"), "Mode": nil}); len(got) != 1 || got["mode"] != "" {
		t.Errorf("%q", got)
	}
}
