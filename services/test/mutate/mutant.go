package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// mutant is one change of a package. It is compiled in beside the original code, and switched on by its number.
type mutant struct {
	id     int
	file   *file
	line   int
	in     string // the function, or the package's variables
	change string // the code before -> the code instead
	edits  []edit
}

// edit wraps a piece of a file. Unless the mutant is on, the piece does what it did before.
type edit struct {
	file           *file
	start, end     int // bytes of it
	before, behind string
}

// String gives the position and the change.
func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d %s: %s", shown(m.file.path), m.line, m.in, m.change)
}

// on is the code of a call that reports whether the mutant with that number is on.
func on(id int) string { return fmt.Sprintf("%s(%d)", onFunc, id) }

// finder collects the mutants of a package.
type finder struct {
	code   *code
	file   *file
	in     string
	stack  []ast.Node
	found  []*mutant
	consts map[string]*mutant
}

// find lists all mutants of a package, in the order of its files. Some may not compile.
func find(c *code) []*mutant {
	f := &finder{code: c, consts: map[string]*mutant{}}
	for _, one := range c.files {
		f.file = one
		for _, d := range one.ast.Decls {
			f.in = "var"
			if fn, ok := d.(*ast.FuncDecl); ok {
				f.in = f.nameOf(fn)
			}
			ast.Inspect(d, f.visit)
		}
	}
	// If a function has the same change twice, the second gets a number.
	times := map[string]int{}
	for _, m := range f.found {
		key := m.in + ": " + m.change
		if times[key]++; times[key] > 1 {
			m.change += fmt.Sprintf(" #%d", times[key])
		}
	}
	return f.found
}

func (f *finder) nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	receiver := strings.TrimPrefix(f.text(fn.Recv.List[0].Type), "*")
	receiver, _, _ = strings.Cut(receiver, "[")
	return receiver + "." + fn.Name.Name
}

func (f *finder) visit(n ast.Node) bool {
	if n == nil {
		f.stack = f.stack[:len(f.stack)-1]
		return false
	}
	switch n := n.(type) {
	case *ast.GenDecl:
		if n.Tok != token.VAR {
			return false // a constant cannot be switched at run time
		}
	case *ast.ArrayType, *ast.StructType, *ast.InterfaceType, *ast.FuncType:
		return false
	}
	f.look(n)
	f.stack = append(f.stack, n)
	return true
}

// parent is the node above the present one.
func (f *finder) parent() ast.Node {
	if len(f.stack) == 0 {
		return nil
	}
	return f.stack[len(f.stack)-1]
}

func (f *finder) offset(p token.Pos) int { return f.code.fset.Position(p).Offset }

func (f *finder) text(n ast.Node) string {
	return string(f.file.text[f.offset(n.Pos()):f.offset(n.End())])
}

// add adds a mutant that wraps the node n. In the pieces, %s stands for the call that reports whether it is on.
func (f *finder) add(n ast.Node, change, before, behind string) *mutant {
	id := len(f.found) + 1
	m := &mutant{id: id, file: f.file, line: f.code.fset.Position(n.Pos()).Line, in: f.in, change: change}
	m.wrap(f, n, before, behind)
	f.found = append(f.found, m)
	return m
}

func (m *mutant) wrap(f *finder, n ast.Node, before, behind string) {
	m.edits = append(m.edits, edit{
		f.file, f.offset(n.Pos()), f.offset(n.End()),
		strings.ReplaceAll(before, "%s", on(m.id)), strings.ReplaceAll(behind, "%s", on(m.id)),
	})
}

// short is code on one line.
func short(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 100 {
		text = text[:100] + "…"
	}
	return text
}

func changed(from, to string) string { return short(from) + " -> " + short(to) }
