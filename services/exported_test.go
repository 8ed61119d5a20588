package services_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// undocumented lists what a file exports without a comment, each as file:line: name. A comment on a group of constants or
// variables is one for all of them; fields and the methods of interfaces need none.
func undocumented(tokens *token.FileSet, file *ast.File) (missing []string, exported int) {
	see := func(ident *ast.Ident, full string, comments ...*ast.CommentGroup) {
		exported++
		if !slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return strings.TrimSpace(c.Text()) != "" }) {
			at := tokens.Position(ident.Pos())
			missing = append(missing, fmt.Sprintf("%s:%d: %s", at.Filename, at.Line, full))
		}
	}
	for _, declared := range file.Decls {
		switch d := declared.(type) {
		case *ast.FuncDecl:
			if of := receiver(d); d.Name.IsExported() && (of == "" || ast.IsExported(of)) {
				see(d.Name, fullName(d), d.Doc)
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
	return missing, exported
}

// fullName names a function, a method as Type.Method.
func fullName(f *ast.FuncDecl) string {
	if of := receiver(f); of != "" {
		return of + "." + f.Name.Name
	}
	return f.Name.Name
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
	w, err := parseWorkspace(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		missing, exported := undocumented(w.tokens, w.files[name])
		total += exported
		for _, one := range missing {
			t.Errorf("%s is exported and has no comment", one)
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
			tokens := token.NewFileSet()
			file, err := parser.ParseFile(tokens, "x.go", "package x\n"+tt.source+"\n", parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := undocumented(tokens, file)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
