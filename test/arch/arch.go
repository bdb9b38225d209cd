// Package arch checks that the code keeps to the architecture: who may import
// whom, how long files are, and a few things that nobody may do. The rules of
// this project are in rules.go; [Check] itself knows none of its names, so
// that tests can hold it against trees with planted violations.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Rules is what a tree is held to. Folders and files are slash-separated and
// relative to its root.
type Rules struct {
	// Module is the module's path, the prefix of its own imports.
	Module string

	// Imports has every folder with Go code, and what its files that are not
	// tests may import beside the standard library: a folder of this module,
	// or the path of another module's package, which "/..." widens to all
	// below it. A folder that is not listed is a finding: a new package is
	// placed deliberately.
	Imports map[string][]string

	// Std are packages of the standard library that nobody may import, with the reason.
	Std map[string]string

	// TopFolders are the folders that the root may have.
	TopFolders []string

	// MaxLines bounds a file that is no test.
	MaxLines int

	// BadNames are names that no package has: they say nothing.
	BadNames []string

	// Errno are the files, or folders ending in '/', that may name errno values.
	Errno []string

	// Pauses are the files that may sleep: between two looks at another
	// process, which gives no event to wait for, or because being slow is
	// what is tested.
	Pauses []string

	// TestFolders are folders, ending in '/', whose files serve only tests:
	// they count as such, but for their imports and length.
	TestFolders []string
}

// Finding is one violation.
type Finding struct {
	Path string // relative to the root
	Line int    // 0 where it concerns the whole
	Rule string // the short name of the rule
	Text string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s (%s)", f.Path, f.Text, f.Rule)
	}
	return fmt.Sprintf("%s:%d: %s (%s)", f.Path, f.Line, f.Text, f.Rule)
}

// Report is the outcome of a check.
type Report struct {
	Findings []Finding
	Packages []string // folders with Go code
	Files    int      // Go files, tests included
}

// Check holds the tree at root to the rules. The error is of reading or
// parsing it; violations are findings.
func Check(root string, rules Rules) (Report, error) {
	c := &checker{rules: rules, fset: token.NewFileSet(), folders: make(map[string][]*file)}
	if err := c.load(root); err != nil {
		return Report{}, err
	}
	for folder, files := range c.folders {
		c.report.Packages = append(c.report.Packages, folder)
		c.checkFolder(folder, files)
	}
	slices.Sort(c.report.Packages)
	slices.SortFunc(c.report.Findings, func(a, b Finding) int {
		return strings.Compare(a.String(), b.String())
	})
	return c.report, nil
}

type checker struct {
	rules   Rules
	fset    *token.FileSet
	folders map[string][]*file
	report  Report
}

// file is one parsed file.
type file struct {
	*ast.File
	path    string // relative to the root
	lines   int
	isTest  bool              // by its name
	imports map[string]string // local name -> path
}

// load parses every Go file below root, and looks at the folders on the way.
func (c *checker) load(root string) error {
	return filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata"
		switch {
		case rel == ".":
			return nil
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir():
			if !strings.Contains(rel, "/") && !slices.Contains(c.rules.TopFolders, rel) {
				c.find(rel, 0, "folders", "the root has only %s", strings.Join(c.rules.TopFolders, ", "))
			}
			return nil
		case hidden || path.Ext(rel) != ".go":
			return nil
		}
		return c.parse(full, rel)
	})
}

func (c *checker) parse(full, rel string) error {
	src, err := os.ReadFile(full)
	if err != nil {
		return err
	}
	tree, err := parser.ParseFile(c.fset, rel, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{
		File:    tree,
		path:    rel,
		lines:   strings.Count(string(src), "\n"),
		isTest:  strings.HasSuffix(rel, "_test.go"),
		imports: make(map[string]string),
	}
	for _, spec := range tree.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		name := localName(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		f.imports[name] = p
	}
	c.folders[path.Dir(rel)] = append(c.folders[path.Dir(rel)], f)
	c.report.Files++
	return nil
}

// localName is the name by which a file knows an import that it did not
// rename: nearly always the last element, without a version.
func localName(importPath string) string {
	name := path.Base(importPath)
	if len(name) > 1 && name[0] == 'v' && name[1] >= '0' && name[1] <= '9' {
		name = path.Base(path.Dir(importPath))
	}
	return name
}

func (c *checker) checkFolder(folder string, files []*file) {
	allowed, placed := c.rules.Imports[folder]
	if !placed {
		c.find(folder, 0, "placed", "a new package: say in the architecture test's rules what it may import")
	}
	for _, f := range files {
		c.checkName(f)
		if !f.isTest {
			c.checkImports(f, allowed)
			if f.lines > c.rules.MaxLines {
				c.find(f.path, 0, "length", "%d lines, more than %d: one file, one topic", f.lines, c.rules.MaxLines)
			}
		}
		c.checkCalls(f)
	}
	if !within(folder+"/", c.rules.TestFolders) {
		c.checkVars(files)
	}
}

func (c *checker) checkName(f *file) {
	name := strings.TrimSuffix(f.Name.Name, "_test")
	if slices.Contains(c.rules.BadNames, name) {
		c.find(f.path, c.line(f.Name), "names", "package %q: a name that says nothing", name)
	}
}

func (c *checker) checkImports(f *file, allowed []string) {
	for _, spec := range f.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		first, _, _ := strings.Cut(p, "/")
		own, isOwn := strings.CutPrefix(p, c.rules.Module+"/")
		switch {
		case isOwn:
			if !slices.Contains(allowed, own) {
				c.find(f.path, c.line(spec), "layers", "imports %s, which is not below it", own)
			}
		case strings.Contains(first, "."):
			if !slices.ContainsFunc(allowed, func(a string) bool { return covers(a, p) }) {
				c.find(f.path, c.line(spec), "layers", "imports %s, which is not its business", p)
			}
		case c.rules.Std[p] != "" && !c.inTests(f):
			c.find(f.path, c.line(spec), "std", "imports %s: %s", p, c.rules.Std[p])
		}
	}
}

// covers says whether the pattern, which may end in "/...", is of the path.
func covers(pattern, p string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == tree || strings.HasPrefix(p, tree+"/")
	}
	return p == pattern
}

// inTests says whether the file is a test or serves only tests.
func (c *checker) inTests(f *file) bool {
	return f.isTest || within(f.path, c.rules.TestFolders)
}

// within says whether the path is one of the files, or in one of the folders
// that end in '/'.
func within(p string, places []string) bool {
	return slices.ContainsFunc(places, func(place string) bool {
		return p == place || strings.HasSuffix(place, "/") && strings.HasPrefix(p, place)
	})
}

func (c *checker) line(n ast.Node) int { return c.fset.Position(n.Pos()).Line }

func (c *checker) find(p string, line int, rule, format string, args ...any) {
	c.report.Findings = append(c.report.Findings, Finding{p, line, rule, fmt.Sprintf(format, args...)})
}
