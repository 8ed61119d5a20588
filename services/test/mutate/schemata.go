package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
)

// onFunc is the function in the mutated package that reports whether a mutant is on.
const onFunc = "mutantIsOn"

// Environment variables that a mutated binary reads once: the number of the mutant that is on, and the file for the
// numbers of the mutants that were reached.
const (
	onVariable    = "TRUNKLINE_MUTANT"
	marksVariable = "TRUNKLINE_MUTANT_MARKS"
)

// switches is the file that is added to a mutated package.
const switches = `package %s

import (
	mutantos "os"
	mutantstrconv "strconv"
	mutantatomic "sync/atomic"
)

var mutantOn, _ = mutantstrconv.Atoi(mutantos.Getenv("%s"))

var mutantSeen [%d]mutantatomic.Bool

var mutantMarks = func() *mutantos.File {
	f, _ := mutantos.OpenFile(mutantos.Getenv("%s"), mutantos.O_WRONLY|mutantos.O_APPEND, 0)
	return f
}()

func %s(id int) bool {
	if mutantMarks != nil {
		mutantMark(id)
	}
	return id == mutantOn
}

func mutantMark(id int) {
	if !mutantSeen[id].Swap(true) {
		_, _ = mutantMarks.WriteString(mutantstrconv.Itoa(id) + "\n")
	}
}
`

// insertion is text that is inserted into a file for a mutant.
type insertion struct {
	at     int // offset in the original file
	out    int // offset in the rendered text
	length int
	id     int
}

// rendered is a file with mutants in it.
type rendered struct {
	file  *file
	text  []byte
	edits []numbered
	put   []insertion
}

type numbered struct {
	edit
	id, order int
}

// render puts mutants into a file.
func render(f *file, mutants []*mutant) *rendered {
	r := &rendered{file: f}
	for _, m := range mutants {
		for _, e := range m.edits {
			if e.file == f {
				r.edits = append(r.edits, numbered{e, m.id, len(r.edits)})
			}
		}
	}
	type piece struct {
		numbered
		at     int
		behind bool
	}
	var pieces []piece
	for _, e := range r.edits {
		pieces = append(pieces, piece{e, e.start, false}, piece{e, e.end, true})
	}
	slices.SortFunc(pieces, func(a, b piece) int {
		switch {
		case a.at != b.at:
			return cmp.Compare(a.at, b.at)
		case a.behind != b.behind: // what ends at this offset comes before what begins at it
			if a.behind {
				return -1
			}
			return 1
		case a.behind: // the inner one ends first
			return cmp.Or(cmp.Compare(b.start, a.start), cmp.Compare(b.order, a.order))
		default: // the outer one begins first
			return cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(a.order, b.order))
		}
	})
	from := 0
	for _, p := range pieces {
		text := p.before
		if p.behind {
			text = p.edit.behind
		}
		r.text = append(r.text, f.text[from:p.at]...)
		r.put = append(r.put, insertion{p.at, len(r.text), len(text), p.id})
		r.text = append(r.text, text...)
		from = p.at
	}
	r.text = append(r.text, f.text[from:]...)
	return r
}

// blame names the mutant that is the likeliest cause of an error at a byte of the text.
func (r *rendered) blame(out int) int {
	at := out
	for _, i := range r.put {
		if i.out > out {
			break
		}
		if out < i.out+i.length {
			return i.id
		}
		at = out - (i.out + i.length) + i.at
	}
	best, distance := numbered{}, 0
	for _, e := range r.edits {
		// The innermost mutant around it, else the nearest: that a function no longer returns is reported at its end.
		far := max(e.start-at, at-e.end, 0)
		if best.id == 0 || far < distance || far == distance && e.end-e.start <= best.end-best.start {
			best, distance = e, far
		}
	}
	return best.id
}

// compiling drops the mutants that do not compile, and gives the package's texts with the others in them, by path.
func compiling(c *code, mutants []*mutant) (good []*mutant, texts map[string][]byte, err error) {
	for {
		texts = map[string][]byte{}
		bad := map[int]bool{}
		fset := token.NewFileSet()
		files := map[string]*rendered{}
		var parsed []*ast.File
		note := func(p token.Position) {
			if r := files[p.Filename]; r != nil && len(r.edits) > 0 {
				bad[r.blame(p.Offset)] = true
			}
		}
		var failure error
		for _, f := range c.files {
			r := render(f, mutants)
			files[f.path] = r
			texts[f.path] = r.text
			one, err := parser.ParseFile(fset, f.path, r.text, parser.SkipObjectResolution)
			var list scanner.ErrorList
			if errors.As(err, &list) {
				failure = err
				note(list[0].Pos)
			}
			parsed = append(parsed, one)
		}
		path := filepath.Join(c.dir, "mutants_on.go")
		texts[path] = fmt.Appendf(nil, switches, c.name, onVariable, maxID(mutants)+1, marksVariable, onFunc)
		one, err := parser.ParseFile(fset, path, texts[path], 0)
		if err != nil {
			return nil, nil, err
		}
		if failure == nil {
			check := types.Config{Importer: c.check.Importer, Error: func(err error) {
				failure = err
				var e types.Error
				if errors.As(err, &e) {
					note(fset.Position(e.Pos))
				}
			}}
			_, _ = check.Check(c.path, fset, append(parsed, one), nil)
		}
		switch {
		case failure == nil:
			return mutants, texts, nil
		case len(bad) == 0:
			return nil, nil, fmt.Errorf("mutated %s does not compile: %w", c.path, failure)
		}
		mutants = slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return bad[m.id] })
	}
}

func maxID(mutants []*mutant) (most int) {
	for _, m := range mutants {
		most = max(most, m.id)
	}
	return most
}

// shown is a path relative to the root of the workspace.
func shown(path string) string {
	if rel, err := filepath.Rel(workspace(), path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
