package state

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asksTheClock says whether a name of a package that this one imports tells the time, or waits for it.
func asksTheClock(pkg, name string) bool {
	switch pkg {
	case "time":
		return slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, name)
	case "clock":
		return name != "Earlier" && name != "Later"
	}
	return false
}

// asks lists the names by which a file asks the clock.
func asks(file *ast.File) (found []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := selector.X.(*ast.Ident); ok && asksTheClock(of.Name, selector.Sel.Name) {
				found = append(found, of.Name+"."+selector.Sel.Name)
			}
		}
		return true
	})
	return found
}

// The state is a function of stored events and given times: it asks no clock and waits for nothing.
func TestStateAsksNoClock(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatalf("found no files: %v", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if found := asks(file); len(found) > 0 {
			t.Errorf("%s uses %v: times are arguments", name, found)
		}
	}
	planted, err := parser.ParseFile(token.NewFileSet(), "", "package state\nvar _ = time.Now()\nvar _ = clock.Sleep\nvar _ = time.UnixMilli(1)", 0)
	if got := asks(planted); err != nil || len(got) != 2 {
		t.Errorf("of a file that asks twice got %v, %v", got, err)
	}
}
