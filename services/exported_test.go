package services_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// undocumented lists what Go source exports without a comment, each as file:line: name. A comment on a group of constants or
// variables is one for all of them; fields and the methods of interfaces need none.
func undocumented(name string, source []byte) (missing []string, exported int, err error) {
	tokens := token.NewFileSet()
	file, err := parser.ParseFile(tokens, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, 0, err
	}
	see := func(ident *ast.Ident, full string, comments ...*ast.CommentGroup) {
		exported++
		if !slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return strings.TrimSpace(c.Text()) != "" }) {
			missing = append(missing, fmt.Sprintf("%s:%d: %s", name, tokens.Position(ident.Pos()).Line, full))
		}
	}
	for _, declared := range file.Decls {
		switch d := declared.(type) {
		case *ast.FuncDecl:
			of := receiver(d)
			switch {
			case !d.Name.IsExported() || of != "" && !ast.IsExported(of):
			case of == "":
				see(d.Name, d.Name.Name, d.Doc)
			default:
				see(d.Name, of+"."+d.Name.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						see(s.Name, s.Name.Name, d.Doc, s.Doc, s.Comment)
					}
				case *ast.ValueSpec:
					for _, ident := range s.Names {
						if ident.IsExported() {
							see(ident, ident.Name, d.Doc, s.Doc, s.Comment)
						}
					}
				}
			}
		}
	}
	return missing, exported, nil
}

// receiver names the type that a function is a method of, empty if it is none.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

// TestExportedHaveComments holds all Go but tests to a comment on what it exports: it says what a caller may rely on.
func TestExportedHaveComments(t *testing.T) {
	root := os.DirFS("..")
	total := 0
	for _, module := range []string{"streams", "pkg", "services"} {
		err := fs.WalkDir(root, module, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
				return nil
			}
			source, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			missing, exported, err := undocumented(name, source)
			total += exported
			for _, one := range missing {
				t.Errorf("%s is exported and has no comment", one)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if total < 700 {
		t.Errorf("found %d exported names: the test looks in the wrong place", total)
	}
}

// The check above must see what has no comment.
func TestExportedHaveComments_Rules(t *testing.T) {
	tests := []struct {
		name, source string
		want         []string
	}{
		{"a function", "func F() {}", []string{"x.go:2: F"}},
		{"a function with a comment", "// F is.\nfunc F() {}", nil},
		{"an empty comment", "//\nfunc F() {}", []string{"x.go:3: F"}},
		{"only a directive", "//go:noinline\nfunc F() {}", []string{"x.go:3: F"}},
		{"not exported", "func f() {}\ntype t int\nfunc (t) M() {}\nconst c = 1", nil},
		{"a type", "type T struct{ F int }", []string{"x.go:2: T"}},
		{"a method", "// T is.\ntype T int\nfunc (*T) M() {}", []string{"x.go:4: T.M"}},
		{"a method of a generic type", "// T is.\ntype T[K, V any] struct{}\nfunc (*T[K, V]) M() {}", []string{"x.go:4: T.M"}},
		{"constants", "const (\n\tA = iota\n\tB // second\n)", []string{"x.go:3: A"}},
		{"a group with a comment", "// Kinds.\nconst (\n\tA = iota\n\tB\n)", nil},
		{"a variable", "var V, w = 1, 2", []string{"x.go:2: V"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := undocumented("x.go", []byte("package x\n"+tt.source+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
