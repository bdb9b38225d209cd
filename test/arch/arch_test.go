package arch

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheCodeKeepsToTheArchitecture(t *testing.T) {
	report, err := Check("../..", Keifs())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Error(f)
	}
	// A check of the wrong tree finds nothing, too.
	for _, folder := range []string{"backend", "store", "cache", "fs", "cmd/keifs", "test/arch"} {
		if !slices.Contains(report.Packages, folder) {
			t.Errorf("package %s was not looked at", folder)
		}
	}
}

// testRules are rules for the tree that plant makes.
func testRules() Rules {
	r := Keifs()
	r.Imports = map[string][]string{
		"backend":           nil,
		"backend/file":      {"backend", "golang.org/x/sys/unix"},
		"store":             {"backend", "golang.org/x/sys/unix"},
		"store/storetest":   {"backend", "store"},
		"fs":                {"store", "github.com/hanwen/go-fuse/v2/..."},
		"cmd/keifs":         {"store", "fs"},
		"test/e2e":          {"store"},
		"fs/util":           nil,
		"cache/common/deep": nil,
	}
	return r
}

// plant makes a tree that keeps to the rules, and the given files in it.
func plant(t *testing.T, files map[string]string) Report {
	t.Helper()
	all := map[string]string{
		"go.mod":             "module github.com/keifs/keifs\n",
		"backend/backend.go": "// Package backend is planted.\npackage backend\n\nimport \"errors\"\n\nvar ErrX = errors.New(\"x\")\n",
		"backend/file/file.go": `package file

import (
	"maps"
	"syscall"

	"github.com/keifs/keifs/backend"
	"golang.org/x/sys/unix"
)

var _ = backend.ErrX
var full = []error{syscall.ENOSPC, unix.EDQUOT}
`,
		"store/store.go":         "package store\n\nimport \"github.com/keifs/keifs/backend\"\n\ntype E = backend.Error\n",
		"store/store_test.go":    "package store_test\n\nimport \"github.com/keifs/keifs/fs\"\n\nvar seed int\n",
		"store/storetest/run.go": "package storetest\n\nimport \"testing\"\n\nfunc Run(t *testing.T) {}\n",
		"fs/errno.go":            "package fs\n\nimport \"syscall\"\n\nvar table = map[string]syscall.Errno{\"a\": syscall.EIO}\n\nfunc f(s string) syscall.Errno { return table[s] }\n",
		"fs/node.go":             "package fs\n\nimport (\n\t\"syscall\"\n\n\t\"github.com/hanwen/go-fuse/v2/fs\"\n)\n\nvar _ fs.InodeEmbedder\n\nfunc g() syscall.Errno { return fs.OK }\n",
		"cmd/keifs/main.go":      "package main\n\nimport \"os\"\n\nvar version = \"dev\"\n\nfunc main() { os.Exit(1) }\n",
		"test/e2e/testdata/x.go": "package util\n\nfunc init() {}\n",
		".hidden/tool/main.go":   "package util\n\nfunc init() {}\n",
		"fs/clock_test.go":       "package fs\n\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nfunc h() { synctest.Wait(); time.Sleep(1) }\n",
		"backend/long_test.go":   "package backend\n" + strings.Repeat("\n", 600),
		"backend/nearly_long.go": "package backend\n" + strings.Repeat("\n", 499),
	}
	maps.Copy(all, files)
	root := t.TempDir()
	for name, src := range all {
		full := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Check(root, testRules())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestATreeThatKeepsToTheRulesHasNoFindings(t *testing.T) {
	report := plant(t, nil)
	for _, f := range report.Findings {
		t.Error(f)
	}
	want := []string{"backend", "backend/file", "cmd/keifs", "fs", "store", "store/storetest"}
	if !slices.Equal(report.Packages, want) {
		t.Errorf("looked at %q, want %q", report.Packages, want)
	}
}

func TestPlantedViolationsAreFound(t *testing.T) {
	for _, c := range []struct{ name, path, src, want string }{
		{"a layer above", "store/up.go", `package store; import _ "github.com/keifs/keifs/fs"`, "imports fs, which is not below it (layers)"},
		{"the core's own provider", "backend/p.go", `package backend; import _ "github.com/keifs/keifs/backend/file"`, "imports backend/file, which is not below it (layers)"},
		{"a library in the core", "backend/p.go", `package backend; import _ "golang.org/x/sync/errgroup"`, "imports golang.org/x/sync/errgroup, which is not its business (layers)"},
		{"FUSE outside of fs", "store/p.go", `package store; import _ "github.com/hanwen/go-fuse/v2/fuse"`, "not its business (layers)"},
		{"a module with a similar name", "fs/p.go", `package fs; import _ "github.com/hanwen/go-fuse/v2x/fuse"`, "not its business (layers)"},
		{"an import behind a build tag", "store/p.go", "//go:build windows\n\npackage store; import _ \"github.com/keifs/keifs/fs\"", "imports fs, which is not below it (layers)"},
		{"test code in a program", "store/p.go", `package store; import _ "testing"`, "imports testing: only tests test (std)"},
		{"a test helper in a program", "fs/p.go", `package fs; import _ "github.com/keifs/keifs/store/storetest"`, "imports store/storetest, which is not below it (layers)"},
		{"a new package", "store/refs/refs.go", `package refs`, "a new package"},
		{"a new folder at the root", "pkg/doc.txt", ``, "the root has only"},
		{"a long file", "store/long.go", "package store\n" + strings.Repeat("\n", 500), "501 lines, more than 500"},
		{"init", "store/p.go", "package store\nfunc init() {}", "func init"},
		{"init in a test", "store/p_test.go", "package store\nfunc init() {}", "func init"},
		{"ToErrno", "fs/p.go", "package fs\nimport \"github.com/hanwen/go-fuse/v2/fs\"\nvar _ = fs.ToErrno(nil)", "fs.ToErrno"},
		{"ToErrno by another name", "fs/p.go", "package fs\nimport gf \"github.com/hanwen/go-fuse/v2/fs\"\nvar _ = gf.ToErrno", "fs.ToErrno"},
		{"an import with a dot", "fs/p.go", "package fs\nimport . \"github.com/hanwen/go-fuse/v2/fs\"", "with a dot"},
		{"an errno", "fs/p.go", "package fs\nimport \"syscall\"\nvar _ = syscall.EIO", "syscall.EIO: only the table"},
		{"an errno of unix", "store/p.go", "package store\nimport \"golang.org/x/sys/unix\"\nvar _ = unix.E2BIG", "unix.E2BIG: only the table"},
		{"sleeping in a test", "store/p_test.go", "package store\nimport \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep"},
		{"sleeping in a program", "store/p.go", "package store\nimport \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep"},
		{"skipping", "store/p_test.go", "package store\nimport \"testing\"\nfunc TestX(t *testing.T) { t.Skip() }", "t.Skip"},
		{"skipping with a reason", "test/e2e/p_test.go", "package e2e\nimport \"testing\"\nfunc f(tb testing.TB) { if true { tb.Skipf(\"no\") } }", "tb.Skipf"},
		{"skipping now", "test/e2e/p.go", "package e2e\nimport \"testing\"\nfunc f(b *testing.B) { b.SkipNow() }", "b.SkipNow"},
		{"exit from a library", "store/p.go", "package store\nimport \"os\"\nfunc f() { os.Exit(1) }", "os.Exit"},
		{"a name that says nothing", "fs/util/util.go", "package util", `package "util"`},
		{"the same in its test", "fs/util/util_test.go", "package util_test", `package "util"`},
		{"common", "cache/common/deep/p.go", "package common", `package "common"`},
		{"a variable", "store/p.go", "package store\nvar count int", "package variable count is state"},
		{"one of several", "store/p.go", "package store\nvar (\n a, b = 1, f()\n)\nfunc f() int { return 1 }", "package variable b is state"},
		{"a lock", "store/p.go", "package store\nimport \"sync\"\nvar mu = sync.Mutex{}", "package variable mu is state"},
		{"a pointer", "store/p.go", "package store\ntype t struct{}\nvar x = &t{}", "package variable x is state"},
		{"a table that is written", "store/p.go", "package store\nvar seen = map[string]int{}\nfunc f() { seen[\"a\"]++ }", "package variable seen is state"},
		{"a table that is emptied", "store/p.go", "package store\nvar seen = map[string]int{}\nfunc f() { delete(seen, \"a\") }", "package variable seen is state"},
		{"a value that is replaced", "store/p.go", "package store\nvar mode = \"a\"\nfunc f() { mode = \"b\" }", "package variable mode is state"},
		{"an error that is replaced", "store/p.go", "package store\nimport \"errors\"\nvar errX = errors.New(\"\")\nfunc f() { errX, _ = nil, 1 }", "package variable errX is state"},
		{"a table whose address is given away", "store/p.go", "package store\nvar x = [2]int{1, 2}\nvar _ = f(&x)\nfunc f(p *[2]int) int { return 0 }", "package variable x is state"},
		{"a variable of another file", "store/p.go", "package store\nvar x = [2]int{1, 2}", "package variable x is state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{c.path: c.src}
			if c.name == "a variable of another file" {
				files["store/q.go"] = "package store\nfunc f() { (x[0]) = 2 }"
			}
			report := plant(t, files)
			if len(report.Findings) != 1 || !strings.Contains(report.Findings[0].String(), c.want) {
				t.Errorf("findings %q, want one with %q", report.Findings, c.want)
			}
		})
	}
}

func TestATreeThatCannotBeParsedIsAnError(t *testing.T) {
	root := t.TempDir()
	if _, err := Check(filepath.Join(root, "none"), testRules()); err == nil {
		t.Error("a missing tree was checked")
	}
	if err := os.WriteFile(filepath.Join(root, "x.go"), []byte("package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(root, testRules()); err == nil {
		t.Error("a file that is no Go was checked")
	}
}
