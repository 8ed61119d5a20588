package config

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decode walks the syntax tree itself: the library's strict decoder stops at the first error, and prints the lines
// around it, where a password may stand.
func decode(root *section, file string, b []byte) []error {
	d := &decoder{file: file}
	tree, err := parser.ParseBytes(b, 0)
	if err != nil {
		d.syntax(err)
		return d.errs
	}
	seen := false
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		if seen {
			d.fail(doc.Body, "a second document, only one is read")
			break
		}
		seen = true
		d.section(root, doc.Body)
	}
	return d.errs
}

type decoder struct {
	file string
	errs []error
}

func (d *decoder) fail(n ast.Node, format string, args ...any) {
	line := 1
	if t := n.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	d.errs = append(d.errs, fmt.Errorf("%s:%d: %w", d.file, line, fmt.Errorf(format, args...)))
}

func (d *decoder) syntax(err error) {
	line, text := 1, "not YAML"
	var e yaml.Error
	if errors.As(err, &e) {
		text = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			line = t.Position.Line
		}
	}
	d.errs = append(d.errs, fmt.Errorf("%s:%d: %s", d.file, line, text))
}

func (d *decoder) section(s *section, n ast.Node) {
	if _, null := n.(*ast.NullNode); null {
		return // a heading whose settings are all commented out
	}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		if s.path == "" {
			d.fail(n, "the file must be a list of sections, as in \"http:\"")
		} else {
			d.fail(n, "%s is a section, not a value", s.path)
		}
		return
	}
	for _, entry := range m.Values {
		name := ""
		if t := entry.Key.GetToken(); t != nil {
			name = t.Value
		}
		switch child := s.child(name).(type) {
		case *section:
			d.section(child, entry.Value)
		case *setting:
			d.setting(child, entry)
		default:
			d.fail(entry.Key, "unknown key %q%s", join(s.path, name), suggest(name, s.names()))
		}
	}
}

func (d *decoder) setting(s *setting, entry *ast.MappingValueNode) {
	var err error
	if seq, isList := entry.Value.(*ast.SequenceNode); isList && s.list() {
		items := make([]string, len(seq.Values))
		for i, v := range seq.Values {
			if items[i], err = text(v); err != nil {
				d.fail(entry.Key, "%s: %w", s.path, err)
				return
			}
		}
		s.setList(items)
		return
	}
	value, err := text(entry.Value)
	if err == nil {
		err = s.set(value)
	}
	if err != nil {
		d.fail(entry.Key, "%s: %w", s.path, err)
	}
}

// text gives a scalar as it was written: a password of digits keeps its leading zero.
func text(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New(`has no value, write "" for an empty one`)
	default:
		return "", errors.New("needs a plain value")
	}
}
