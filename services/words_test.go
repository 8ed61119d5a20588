package services_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// A word was given up for a clearer one. The words that are used are in ARCHITECTURE, "Words".
type word struct {
	name  string
	use   string         // instead
	names *regexp.Regexp // of what Go declares: types, functions, fields, constants, variables, packages
	text  *regexp.Regexp // in a line of Go or of a document
	in    []string       // where it was given up; nil: everywhere
	// proper are folders where it has another meaning.
	proper []string
	// example is a line of Go that uses it, in the first of in or else in services/quota; fine is one that may stay.
	example, fine string
}

var words = []word{
	{
		name: "Turn", use: "event.Attempt: a message and its round",
		names: regexp.MustCompile(`^Turns?$`), text: regexp.MustCompile(`\bevent\.Turns?\b`),
		example: "var t event.Turn", fine: "// Accounts take turns.",
	},
	{
		name: "turn of an account", use: "pkg/keylock: a decision locks the account",
		text:    regexp.MustCompile(`pkg/turn\b|account's turn\b`),
		example: "// It takes the account's turn.", fine: "// in turn",
	},
	{
		name: "round of a commit", use: "groupCommit; a round is a message's life between two offers",
		names: regexp.MustCompile(`^round`), text: regexp.MustCompile(`\bround\.(?:go|commit|settle)\b`), in: []string{"pkg/bus"},
		example: "type round struct{}", fine: "// rounded up",
	},
	{
		name: "unit of a commit", use: "submission",
		names: regexp.MustCompile(`^units?$`), in: []string{"pkg/bus"},
		example: "type unit struct{}", fine: "// a unit of time",
	},
	{
		name: "gate", use: "Limiter: it bounds requests under way",
		names: regexp.MustCompile(`^[gG]ates?$|^newGate$|^NewGate$`), text: regexp.MustCompile(`\bhttpx\.(?:New)?Gate\b|\bgate\.go\b`),
		example: "func NewGate() {}", fine: "// the gateway app",
	},
	{
		name: "roster", use: "ingresses",
		names: regexp.MustCompile(`(?i)roster`), text: regexp.MustCompile(`(?i)\brosters?\b`),
		example: "type roster struct{}", fine: "// the ingresses that are there",
	},
	{
		name: "reign", use: "leadership, serveAsLeader",
		names: regexp.MustCompile(`(?i)^reign`), text: regexp.MustCompile(`(?i)\breigns?\b`),
		example: "func reign() {}", fine: "// foreign keys",
	},
	{
		name: "share", use: "storage or stored bytes, of what an account has stored; broadcast, of telling other ingresses",
		names: regexp.MustCompile(`^(?:share|shares|shareEvery|maxShares|sharer)$`), in: []string{"services/dispatcher", "services/ingress"},
		example: "const shareEvery = 1", fine: "type config struct{ AccountShare int }",
	},
	{
		name: "held bytes", use: "stored bytes; a message is held under the policy hold",
		names: regexp.MustCompile(`^heldBytes$`), text: regexp.MustCompile(`\bheld bytes\b|\bbytes held\b`),
		example: "// the held bytes of an account", fine: "// the message is held",
	},
	{
		name: "head of an event", use: "envelope",
		names: regexp.MustCompile(`^heads?$`), in: []string{"services/dispatcher"},
		example: "type head struct{}", fine: "// at the head of the lane",
	},
	{
		name: "verbs of daily life", use: "what it does, in the field's terms: extend, classify, retain, repair, resolve, close, log",
		names:   regexp.MustCompile(`^(?:stands|longer|mend|settle|say|told|said|word)$`),
		example: "func mend() {}", fine: "func repair() {}",
	},
	{
		name: "anew", use: "again, rebuilt, recreated",
		text:    regexp.MustCompile(`(?i)\banew\b`),
		example: "// It is made anew.", fine: "// a new file",
	},
	{
		name: "claims of a token", use: "sessionClaims; a claim is an entry that its holder renews",
		names: regexp.MustCompile(`^claims$`), in: []string{"services/ingress"},
		example: "type claims struct{}", fine: "type sessionClaims struct{}",
	},
	{
		name: "release of a message", use: "enqueue it when it is due; a release is one of the app",
		names: regexp.MustCompile(`^releases?$`), in: []string{"services/dispatcher"},
		example: "func release() {}", fine: "func enqueueDue() {}",
	},
	{
		name: "place of a login", use: "network, origin",
		names: regexp.MustCompile(`^(?:places?|maxPlaces)$`), in: []string{"services/ingress"},
		example: "type places struct{}", fine: "// in its place",
	},
	{
		name: "refuse every call", use: "reject all requests",
		text:    regexp.MustCompile(`(?i)\brefuses? (?:every|all) (?:calls?|requests?)\b|\bEvery call of the account\b`),
		example: "// Refuse every call of an account.", fine: "// Reject all requests of an account.",
	},
}

// A use is a word that was given up, where it stands.
type use struct{ word, folder, place string }

// uses finds the words that were given up in the Go of a tree and in its documents. Records of decisions and of changes
// keep the words of their time.
func uses(root fs.FS) (found []use, files int, err error) {
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"testdata", "bin", "data", "docs/adr"}, path.Base(name)) || name == "docs/adr" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir() || name == "CHANGELOG.md" || name == "services/words_test.go":
			return nil
		}
		ext := path.Ext(name)
		if ext != ".go" && ext != ".md" && ext != ".yaml" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		files++
		found = append(found, usesInText(name, string(text))...)
		if ext == ".go" {
			declared, err := usesInNames(name, text)
			found = append(found, declared...)
			return err
		}
		return nil
	})
	return found, files, err
}

func usesInText(name, text string) []use {
	var found []use
	number := 0
	for line := range strings.Lines(text) {
		number++
		for _, w := range words {
			if w.text != nil && w.concerns(name) && w.text.MatchString(line) {
				found = append(found, use{w.name, path.Dir(name), fmt.Sprintf("%s:%d: %s", name, number, strings.TrimSpace(line))})
			}
		}
	}
	return found
}

func usesInNames(name string, text []byte) ([]use, error) {
	tokens := token.NewFileSet()
	file, err := parser.ParseFile(tokens, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []use
	see := func(idents ...*ast.Ident) {
		for _, ident := range idents {
			for _, w := range words {
				if w.names != nil && w.concerns(name) && w.names.MatchString(ident.Name) {
					at := tokens.Position(ident.Pos())
					found = append(found, use{w.name, path.Dir(name), fmt.Sprintf("%s:%d: %s", name, at.Line, ident.Name)})
				}
			}
		}
	}
	see(file.Name)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			see(n.Name)
		case *ast.TypeSpec:
			see(n.Name)
		case *ast.StructType:
			for _, field := range n.Fields.List {
				see(field.Names...)
			}
		case *ast.InterfaceType:
			for _, method := range n.Methods.List {
				see(method.Names...)
			}
		}
		return true
	})
	for _, declared := range file.Decls {
		if group, ok := declared.(*ast.GenDecl); ok {
			for _, spec := range group.Specs {
				if values, ok := spec.(*ast.ValueSpec); ok {
					see(values.Names...)
				}
			}
		}
	}
	return found, nil
}

// concerns reports whether a word was given up in a file.
func (w word) concerns(file string) bool {
	within := func(folder string) bool { return in(path.Dir(file), folder) }
	return (w.in == nil || slices.ContainsFunc(w.in, within)) && !slices.ContainsFunc(w.proper, within)
}

// TestWords looks for the words that were given up.
func TestWords(t *testing.T) {
	found, files, err := uses(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("read %d files: the test looks in the wrong place", files)
	}
	for _, u := range found {
		at := slices.IndexFunc(words, func(w word) bool { return w.name == u.word })
		t.Errorf("%s\n\t%q was given up: %s", u.place, u.word, words[at].use)
	}
}

// Each word must be found where it is used, and nowhere else.
func TestWords_Rules(t *testing.T) {
	for _, w := range words {
		t.Run(w.name, func(t *testing.T) {
			folder := "services/quota"
			if w.in != nil {
				folder = cmp.Or(w.in[0], folder)
			}
			for line, want := range map[string]bool{w.example: true, w.fine: false} {
				tree := fstest.MapFS{
					folder + "/x.go":               {Data: []byte("package x\n\n" + line + "\n")},
					"docs/adr/0001-x.md":           {Data: []byte(line)},
					"services/quota/testdata/x.go": {Data: []byte(line)},
				}
				found, _, err := uses(tree)
				if err != nil {
					t.Fatal(err)
				}
				got := slices.ContainsFunc(found, func(u use) bool { return u.word == w.name && u.folder == folder })
				if got != want || !want && len(found) > 0 {
					t.Errorf("%s: found %v, want %t", line, found, want)
				}
			}
		})
	}
}
