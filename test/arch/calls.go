package arch

import (
	"go/ast"
	"regexp"
	"strings"
)

// errnoName is the form of an errno constant in syscall and unix.
var errnoName = regexp.MustCompile(`^E[A-Z0-9]{2,}$`)

// checkCalls looks for what a file must not do or name.
func (c *checker) checkCalls(f *file) {
	_, usesTesting := f.imports["testing"]
	_, usesSynctest := f.imports["synctest"]
	if name := f.imports["."]; name != "" {
		c.find(f.path, 0, "dot", "imports %s with a dot, which hides where a name comes from", name)
	}
	ast.Inspect(f.File, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				c.find(f.path, c.line(n), "init", "func init: nothing happens because of an import")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			from, name := f.imports[x.Name], n.Sel.Name
			switch {
			case name == "ToErrno" && strings.HasPrefix(from, "github.com/hanwen/go-fuse/"):
				c.find(f.path, c.line(n), "toerrno", "fs.ToErrno gives wrong values: fs/errno.go has the table")
			case from == "time" && name == "Sleep" && !usesSynctest && !within(f.path, c.rules.Pauses):
				c.find(f.path, c.line(n), "sleep", "time.Sleep: wait for the event, or use testing/synctest")
			case usesTesting && from == "" && (name == "Skip" || name == "Skipf" || name == "SkipNow"):
				c.find(f.path, c.line(n), "skip", "%s.%s: a test fails with the line that installs what it needs", x.Name, name)
			case from == "os" && name == "Exit" && !c.inTests(f) && f.Name.Name != "main":
				c.find(f.path, c.line(n), "exit", "os.Exit outside of a command")
			case (from == "syscall" || from == "golang.org/x/sys/unix") && isErrno(name):
				if !c.inTests(f) && !within(f.path, c.rules.Errno) {
					c.find(f.path, c.line(n), "errno", "%s.%s: only the table in fs/errno.go gives errno values", x.Name, name)
				}
			}
		}
		return true
	})
}

func isErrno(name string) bool {
	return errnoName.MatchString(name) && !strings.HasPrefix(name, "EPOLL") && !strings.HasPrefix(name, "ETH")
}
