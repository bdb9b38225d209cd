package need

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// bin makes PATH a folder with only the programs given, as shell scripts.
func bin(t *testing.T, programs map[string]string) string {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("TMPDIR", t.TempDir())
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAProgramThatIsThereIsFound(t *testing.T) {
	dir := bin(t, map[string]string{"rsync": ""})
	if path := Tool(t, "rsync", "rsync"); path != filepath.Join(dir, "rsync") {
		t.Errorf("found %q", path)
	}
}

func TestAMissingProgramFailsWithTheLineThatInstallsIt(t *testing.T) {
	for name, programs := range map[string]map[string]string{
		"without apt-get":         nil,
		"without root":            {"apt-get": "exit 0"},
		"apt-get fails":           {"apt-get": "exit 100"},
		"the package has no such": {"apt-get": "exit 0"},
	} {
		t.Run(name, func(t *testing.T) {
			bin(t, programs)
			_, err := find("fusermount3", "fuse3", name != "without root")
			want := "apt-get install -y fuse3"
			if name == "the package has no such" {
				want = "package fuse3 was installed"
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		})
	}
}

func TestAMissingProgramIsInstalledOnceByAll(t *testing.T) {
	dir := bin(t, nil)
	// An apt-get that refuses to install before an update, as in a fresh
	// container, and says what it was asked for.
	apt := `#!/bin/sh
while [ "${1#-}" != "$1" ]; do [ "$1" = -o ] && shift; shift; done
echo "$1" >>` + dir + `/log
case $1 in
update) : >` + dir + `/lists ;;
install)
	[ -e ` + dir + `/lists ] || exit 100
	echo '#!/bin/sh' >` + dir + `/sqlite3
	/bin/chmod +x ` + dir + `/sqlite3 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if path, err := find("sqlite3", "sqlite3", true); err != nil || path != filepath.Join(dir, "sqlite3") {
				t.Errorf("%q, %v", path, err)
			}
		})
	}
	wg.Wait()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || string(log) != "install\nupdate\ninstall\n" {
		t.Errorf("apt-get was asked for %q, %v", log, err)
	}
}
