package banger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// public are the packages that programs outside this module may import.
var public = []string{".", "api", "client"}

// Everything exported has a comment, and names no type of a package that others can't import.
func TestPublicPackages(t *testing.T) {
	for _, dir := range public {
		fset := token.NewFileSet()
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", dir, paths, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			p := publicFile{t: t, fset: fset, internal: internalImports(file)}
			for _, decl := range file.Decls {
				p.declaration(decl)
			}
		}
	}
}

// internalImports gives the names by which a file knows packages that others can't import.
func internalImports(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, imp := range file.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		if !strings.Contains(path, "internal/") {
			continue
		}
		name := filepath.Base(path)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		names[name] = true
	}
	return names
}

type publicFile struct {
	t        *testing.T
	fset     *token.FileSet
	internal map[string]bool
}

func (p publicFile) declaration(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || isExported(d.Recv.List[0].Type)) {
			p.commented(d, d.Name.Name, d.Doc)
			p.names(d.Type)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					p.commented(s, s.Name.Name, s.Doc, d.Doc, s.Comment)
					p.names(s.Type)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() {
					if s.Type != nil { // what its values mean stands at the type
						p.names(s.Type)
						continue
					}
					p.commented(s, s.Names[0].Name, s.Doc, d.Doc, s.Comment)
				}
			}
		}
	}
}

func isExported(receiver ast.Expr) bool {
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && name.IsExported()
}

// commented wants a comment on what is declared: its own, its group's, or the one behind it.
func (p publicFile) commented(at ast.Node, name string, comments ...*ast.CommentGroup) {
	for _, c := range comments {
		if c != nil {
			return
		}
	}
	p.t.Errorf("%s: %s has no comment", p.fset.Position(at.Pos()), name)
}

// names looks at every type that a signature, or an exported field, names.
func (p publicFile) names(in ast.Node) {
	ast.Inspect(in, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			return len(n.Names) == 0 || n.Names[0].IsExported() || !isField(in)
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && p.internal[pkg.Name] {
				p.t.Errorf("%s: %s.%s can't be named outside this module", p.fset.Position(n.Pos()), pkg.Name, n.Sel.Name)
			}
		}
		return true
	})
}

// isField tells whether the fields below in are a struct's: those of a function are its parameters, whose names say nothing.
func isField(in ast.Node) bool {
	_, ok := in.(*ast.StructType)
	return ok
}
