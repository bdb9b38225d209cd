package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// constructors make values that nobody changes afterwards.
var constructors = []string{
	"errors.New", "fmt.Errorf", "regexp.MustCompile", "strings.NewReplacer", "math.Inf",
	"crc32.MakeTable", "time.Date", "time.Unix", "template.Must", "netip.MustParseAddr", "netip.MustParsePrefix", "big.NewInt",
}

// checkVars finds package-level variables that are state: all but blank ones
// (assertions), embedded files, values of the constructors above, and tables
// that no code of the package writes to.
func (c *checker) checkVars(files []*file) {
	written := make(map[string]bool)
	for _, f := range files {
		if !f.isTest {
			ast.Inspect(f.File, func(n ast.Node) bool {
				markWritten(n, written)
				return true
			})
		}
	}
	for _, f := range files {
		if f.isTest {
			continue
		}
		for _, decl := range f.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				c.checkVar(f, gen, spec.(*ast.ValueSpec), written)
			}
		}
	}
}

func (c *checker) checkVar(f *file, gen *ast.GenDecl, spec *ast.ValueSpec, written map[string]bool) {
	if embedded(gen.Doc) || embedded(spec.Doc) {
		return
	}
	for i, name := range spec.Names {
		if name.Name == "_" || i < len(spec.Values) && constant(spec.Values[i]) && !written[name.Name] {
			continue
		}
		c.find(f.path, c.line(name), "vars", "package variable %s is state: put it into a struct and hand it in", name.Name)
	}
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(l *ast.Comment) bool {
		return strings.HasPrefix(l.Text, "//go:embed ")
	})
}

// constant says whether the value is a table, a literal or of a constructor.
func constant(value ast.Expr) bool {
	switch v := value.(type) {
	case *ast.BasicLit:
		return true
	case *ast.CompositeLit:
		of, qualified := v.Type.(*ast.SelectorExpr)
		if !qualified {
			return true
		}
		x, ok := of.X.(*ast.Ident)
		return ok && x.Name != "sync" && x.Name != "atomic" && x.Name != "bytes"
	case *ast.UnaryExpr:
		return v.Op != token.AND && constant(v.X)
	case *ast.BinaryExpr:
		return constant(v.X) && constant(v.Y)
	case *ast.CallExpr:
		switch fun := v.Fun.(type) {
		case *ast.SelectorExpr:
			x, ok := fun.X.(*ast.Ident)
			return ok && slices.Contains(constructors, x.Name+"."+fun.Sel.Name)
		case *ast.ArrayType: // []byte("…")
			return true
		}
	}
	return false
}

// markWritten notes the names that a statement writes to, goes through to
// write, or gives away the address of. It goes by names alone: a local
// variable that shadows a table counts for it, which is a reason to rename it.
func markWritten(n ast.Node, written map[string]bool) {
	mark := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.Ident:
				written[x.Name] = true
				return
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.SliceExpr:
				e = x.X
			default:
				return
			}
		}
	}
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, e := range n.Lhs {
				mark(e)
			}
		}
	case *ast.IncDecStmt:
		mark(n.X)
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			mark(n.X)
		}
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if e != nil {
					mark(e)
				}
			}
		}
	case *ast.CallExpr:
		if fun, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (fun.Name == "delete" || fun.Name == "clear" || fun.Name == "copy") {
			mark(n.Args[0])
		}
	}
}
