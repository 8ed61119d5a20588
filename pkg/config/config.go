// Package config reads settings: defaults in code, then one strict YAML file, then environment variables.
//
// A configuration is a struct of structs. Every exported field has a tag `yaml:"name" doc:"One sentence."`; fields
// are strings, bools, integers, floats, time.Duration ("10m"), Size ("4MiB"), lists of strings, or anything that
// has UnmarshalText. `yaml:"-"` leaves a field out.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
)

// Options says where settings come from.
type Options struct {
	File     string   // path of the YAML file; "" reads none
	Explicit bool     // somebody named the file, so it is an error if it is not there
	Env      []string // NAME=value, as os.Environ gives them
	Prefix   string   // of the variables; "" means TRUNKLINE
	Others   []string // variables with the prefix that someone else reads, for example TRUNKLINE_DATA
}

// Load fills into, a pointer to a struct that holds the defaults, from the file and then from the environment. The
// setting quota.claim_ttl is the variable TRUNKLINE_QUOTA_CLAIM_TTL. An unknown key or variable, and a value of the
// wrong type, are errors; one error lists all of them, a line each, with file and line or with the variable's name.
// After an error into is as it was. Variables that begin with TRUNKLINE_TEST_ belong to the tests and are passed over.
func Load(into any, o Options) error {
	target := reflect.ValueOf(into).Elem()
	work := reflect.New(target.Type()).Elem()
	work.Set(target)
	root := newSection(work)

	errs := loadFile(root, o)
	errs = append(errs, loadEnv(root, o)...)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	target.Set(work)
	return nil
}

func loadFile(root *section, o Options) []error {
	if o.File == "" {
		return nil
	}
	b, err := os.ReadFile(o.File)
	if errors.Is(err, fs.ErrNotExist) && !o.Explicit {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("read settings: %w", err)}
	}
	return decode(root, o.File, b)
}

func loadEnv(root *section, o Options) []error {
	prefix := o.Prefix
	if prefix == "" {
		prefix = "TRUNKLINE"
	}
	prefix += "_"
	known, names := map[string]*setting{}, append([]string(nil), o.Others...)
	for _, s := range root.settings() {
		name := prefix + s.env()
		known[name] = s
		names = append(names, name)
	}
	others := map[string]bool{}
	for _, name := range o.Others {
		others[name] = true
	}

	var errs []error
	for _, pair := range o.Env {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, prefix+"TEST_") || others[name] {
			continue
		}
		s := known[name]
		if s == nil {
			errs = append(errs, fmt.Errorf("unknown variable %s%s", name, suggest(name, names)))
			continue
		}
		if err := s.set(value); err != nil {
			errs = append(errs, fmt.Errorf("variable %s: %w", name, err))
		}
	}
	return errs
}

// suggest names the candidate that a typing error may have meant.
func suggest(name string, candidates []string) string {
	best, distance := "", 4
	for _, c := range candidates {
		if d := editDistance(name, c); d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
