package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// code is a package with its types.
type code struct {
	path, name, dir string

	fset  *token.FileSet
	files []*file
	types *types.Package
	info  *types.Info
	check types.Config // its Importer reads the compiler's export data of imported packages
}

type file struct {
	path string
	text []byte
	ast  *ast.File
}

// listed is what go list prints about a package.
type listed struct {
	ImportPath, Name, Dir, Export string
	GoFiles                       []string
	DepOnly, Standard             bool
}

// load reads a package, given as go list takes it.
func load(ctx context.Context, pattern string) (*code, error) {
	packages, err := list(ctx, pattern)
	if err != nil {
		return nil, err
	}
	c := &code{fset: token.NewFileSet(), info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
	}}
	exports := map[string]string{}
	var goFiles []string
	for _, p := range packages {
		exports[p.ImportPath] = p.Export
		if p.DepOnly || p.Standard {
			continue
		}
		if c.path != "" {
			return nil, fmt.Errorf("%s is more than one package", pattern)
		}
		c.path, c.name, c.dir, goFiles = p.ImportPath, p.Name, p.Dir, p.GoFiles
	}
	c.check.Importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	var parsed []*ast.File
	for _, name := range goFiles {
		path := filepath.Join(c.dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		one, err := parser.ParseFile(c.fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		c.files = append(c.files, &file{path: path, text: text, ast: one})
		parsed = append(parsed, one)
	}
	if c.types, err = c.check.Check(c.path, c.fset, parsed, c.info); err != nil {
		return nil, fmt.Errorf("check %s: %w", c.path, err)
	}
	return c, nil
}

func list(ctx context.Context, pattern string) ([]listed, error) {
	const fields = "-json=ImportPath,Name,Dir,Export,GoFiles,DepOnly,Standard"
	// The switches import the others.
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-export", fields, pattern, "os", "strconv", "sync/atomic") //nolint:gosec // the package is the caller's
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(out); ; {
		var one listed
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, errors.Join(fmt.Errorf("read go list: %w", err), cmd.Wait())
		}
		all = append(all, one)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go list %s: %w", pattern, err)
	}
	return all, nil
}
