package fs

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// posixExceptions are the tests of go-fuse's posixtest that do not hold, with
// the reason. SEMANTICS.md has the same list.
var posixExceptions = map[string]string{
	"FcntlFlockLocksFile": "the test wants POSIX locks of one process to exclude each other; the kernel, which does the locks here, lets them be merged, as POSIX has it",
	"Link":                "hard links are not possible: an object has one name",
	"LinkUnlinkRename":    "hard links are not possible: an object has one name",
	"Tmpfile":             "O_TMPFILE needs a hard link to give the file a name; programs fall back to a name of their own",
	"XAttrLarge":          "extended attributes live in the object's metadata, of which stores keep 2 KiB",
}

func TestPOSIX(t *testing.T) {
	onVolumes(t, func(t *testing.T, open newVolume) {
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			if posixExceptions[name] != "" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				dir := mountBranch(t, bucket(), open)
				defer func() { // a test that skips itself does not return
					if t.Skipped() {
						t.Errorf("skipped, so it is an exception that needs a reason")
					}
				}()
				posixtest.All[name](t, dir)
			})
		}
	})
}

func TestTheExceptionsFromPOSIXAreWrittenDown(t *testing.T) {
	text, err := os.ReadFile("SEMANTICS.md")
	must(t, err)
	for name, reason := range posixExceptions {
		if posixtest.All[name] == nil {
			t.Errorf("exception %s is no test", name)
		}
		if line := "| `" + name + "` | " + reason + " |"; !strings.Contains(string(text), line+"\n") {
			t.Errorf("SEMANTICS.md has no line %q", line)
		}
	}
	_, list, _ := strings.Cut(string(text), "## Exceptions from POSIX")
	if got := strings.Count(list, "\n| `"); got != len(posixExceptions) {
		t.Errorf("SEMANTICS.md has %d exceptions, the test %d", got, len(posixExceptions))
	}
}

// TestEveryPromiseIsShownByATest holds SEMANTICS.md to the tests it names, here
// or, where no clock of a real mount could show it, in the cache.
func TestEveryPromiseIsShownByATest(t *testing.T) {
	text, err := os.ReadFile("SEMANTICS.md")
	must(t, err)
	files, err := filepath.Glob("*_test.go")
	must(t, err)
	below, err := filepath.Glob("../cache/*_test.go")
	must(t, err)
	var source strings.Builder
	for _, name := range append(files, below...) {
		data, err := os.ReadFile(name)
		must(t, err)
		source.Write(data)
	}
	named := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		if !strings.Contains(line, "[Test") {
			t.Errorf("a promise without a test: %s", strings.TrimSpace(line))
		}
	}
	rest := string(text)
	for {
		_, after, found := strings.Cut(rest, "[Test")
		if !found {
			break
		}
		name, after, _ := strings.Cut(after, "]")
		rest = after
		named++
		if !strings.Contains(source.String(), "\nfunc Test"+name+"(t *testing.T)") {
			t.Errorf("SEMANTICS.md names Test%s, which is not there", name)
		}
	}
	if named == 0 {
		t.Error("SEMANTICS.md names no test")
	}
}
