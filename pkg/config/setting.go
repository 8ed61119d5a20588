package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

// Setting describes one setting.
type Setting struct {
	Path    string // "quota.claim_ttl", as in the file
	Env     string // "QUOTA_CLAIM_TTL", without the prefix
	Default string // as one would write it; lists separated by commas
	Doc     string // one sentence
}

// Describe lists the settings of v, a struct or a pointer to one, in the order of its fields; defaults are what v
// holds. It panics where v breaks the rules of this package, as Load does, so any test that loads finds it.
func Describe(v any) []Setting {
	var all []Setting
	for _, s := range newSection(structOf(v)).settings() {
		all = append(all, Setting{Path: s.path, Env: s.env(), Default: s.text(), Doc: s.doc})
	}
	return all
}

// Sample writes v as a commented YAML file that Load reads back to v (secrets aside, which come out hidden).
func Sample(v any) []byte {
	var b bytes.Buffer
	newSection(structOf(v)).sample(&b, "")
	return b.Bytes()
}

func structOf(v any) reflect.Value {
	given := reflect.Indirect(reflect.ValueOf(v))
	settable := reflect.New(given.Type()).Elem()
	settable.Set(given)
	return settable
}

// section is a struct, setting a field of it that holds a value.
type section struct {
	path, doc string
	order     []string
	children  map[string]any
}

type setting struct {
	path, doc string
	value     reflect.Value
}

func newSection(v reflect.Value) *section {
	root := buildSection(v, "", "")
	envs := map[string]string{}
	for _, s := range root.settings() {
		if other, taken := envs[s.env()]; taken {
			panic(fmt.Sprintf("config: %s and %s have the same variable", other, s.path))
		}
		envs[s.env()] = s.path
	}
	return root
}

func buildSection(v reflect.Value, path, doc string) *section {
	s := &section{path: path, doc: doc, children: map[string]any{}}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("yaml")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" || strings.Contains(name, ",") {
			panic(fmt.Sprintf("config: field %s.%s needs a tag yaml:\"name\"", v.Type(), field.Name))
		}
		p, doc := join(path, name), field.Tag.Get("doc")
		s.order = append(s.order, name)
		switch {
		case supported(v.Field(i)):
			s.children[name] = &setting{path: p, doc: doc, value: v.Field(i)}
		case field.Type.Kind() == reflect.Struct:
			s.children[name] = buildSection(v.Field(i), p, doc)
		default:
			panic(fmt.Sprintf("config: %s has the type %s, which cannot be read from a file", p, field.Type))
		}
	}
	return s
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (s *section) child(name string) any { return s.children[name] }
func (s *section) names() []string       { return s.order }
func (s *setting) env() string           { return envName.Replace(strings.ToUpper(s.path)) }
func (s *setting) list() bool            { return s.value.Kind() == reflect.Slice }
func (s *setting) setList(items []string) {
	s.value.Set(reflect.ValueOf(items).Convert(s.value.Type()))
}
func (s *setting) set(text string) error { return parse(s.value, text) }
func (s *setting) text() string          { return format(s.value) }

var envName = strings.NewReplacer(".", "_", "-", "_")

func (s *section) settings() []*setting {
	var all []*setting
	for _, name := range s.order {
		switch child := s.children[name].(type) {
		case *section:
			all = append(all, child.settings()...)
		case *setting:
			all = append(all, child)
		}
	}
	return all
}

func (s *section) sample(b *bytes.Buffer, indent string) {
	comment := func(doc string) {
		if doc != "" {
			fmt.Fprintf(b, "%s# %s\n", indent, strings.ReplaceAll(doc, "\n", "\n"+indent+"# "))
		}
	}
	for i, name := range s.order {
		switch child := s.children[name].(type) {
		case *section:
			if i > 0 {
				b.WriteByte('\n')
			}
			comment(child.doc)
			fmt.Fprintf(b, "%s%s:\n", indent, name)
			child.sample(b, indent+"  ")
		case *setting:
			comment(child.doc)
			fmt.Fprintf(b, "%s%s: %s\n", indent, name, yamlText(child.value))
		}
	}
}
