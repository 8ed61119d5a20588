package services_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// pages lists the documents, relative to the workspace.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(found, "../README.md") || !slices.Contains(found, "../docs/states.md") {
		t.Fatalf("got the pages %v: the test looks in the wrong place", found)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	link       = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence      = regexp.MustCompile("(?ms)^```.*?^```$")
	named      = regexp.MustCompile("^`[A-Za-z_.]+`$")
	quotedPath = regexp.MustCompile("`((?:streams|pkg|services|configs|scripts|docs)/[A-Za-z0-9_./-]+)`")
)

// TestLinks follows every link of the documents that stays in the repository:
// to a file, to a heading, and where the link's text is a name in backticks and
// the file Go, to the declaration of that name.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, page), ""), -1) {
			if problem := follow(page, match[1], match[2]); problem != "" {
				t.Errorf("%s: [%s](%s): %s", page, match[1], match[2], problem)
			}
		}
	}
}

// follow says what is wrong with a link.
func follow(page, text, target string) string {
	if strings.Contains(target, "://") {
		return ""
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := page
	if file != "" {
		to = filepath.Join(filepath.Dir(page), file)
	}
	content, err := os.ReadFile(to)
	if info, statErr := os.Stat(to); statErr == nil && info.IsDir() {
		return ""
	}
	if err != nil {
		return "there is no such file"
	}
	if anchor != "" && !slices.Contains(anchors(string(content)), anchor) {
		return "the page has no such heading"
	}
	if named.MatchString(text) && strings.HasSuffix(to, ".go") && !declares(string(content), strings.Trim(text, "`")) {
		return "the file declares no such name"
	}
	return ""
}

// anchors are the headings' as GitHub makes them.
func anchors(page string) []string {
	var all []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		kept := strings.Map(func(char rune) rune {
			switch {
			case char == ' ':
				return '-'
			case char == '-' || char == '_' || char >= '0' && char <= '9' || char >= 'a' && char <= 'z' || char > 127:
				return char
			}
			return -1
		}, strings.ToLower(match[1]))
		all = append(all, kept)
	}
	return all
}

// declares says whether Go source declares a name: Name, or Type.Method.
func declares(source, name string) bool {
	pattern := `(?m)^\s*(?:func |type |var |const )?` + regexp.QuoteMeta(name) + `\b`
	if of, method, ok := strings.Cut(name, "."); ok {
		pattern = `(?m)^func \(\w*\s*\*?` + regexp.QuoteMeta(of) + `\) ` + regexp.QuoteMeta(method) + `\b`
	}
	return regexp.MustCompile(pattern).MatchString(source)
}

// TestPaths looks for the files and folders that the documents name in
// backticks.
func TestPaths(t *testing.T) {
	for _, page := range pages(t) {
		for _, match := range quotedPath.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(filepath.Join("..", match[1])); err != nil {
				t.Errorf("%s names %s, which there is not", page, match[1])
			}
		}
	}
}

// The walks in ARCHITECTURE, and how many files each may have.
var walks = []struct {
	heading string
	most    int
}{
	{"### A sender posts it", 16},
	{"### A phone pulls it", 18},
}

// step is a row of a walk.
var step = regexp.MustCompile("^\\| \\[[^]]+\\]\\(([^)]+)\\) \\| (`[^|]+`) \\| [^|]+ \\|$")

// TestWalk follows the walk of a message through the files that its tables name: each has to declare the functions that
// are named beside it.
func TestWalk(t *testing.T) {
	page := read(t, "../ARCHITECTURE.md")
	for _, w := range walks {
		for _, problem := range walkProblems(page, w.heading, w.most, os.DirFS("..")) {
			t.Errorf("%s: %s", w.heading, problem)
		}
	}
}

// walkProblems says what is wrong with the table under a heading: with its rows, with names that the code does not declare, or
// with how many files it has.
func walkProblems(page, heading string, most int, root fs.FS) (problems []string) {
	_, section, _ := strings.Cut(page, heading+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	files := map[string]bool{}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || line == "| file | function | what happens to the message |" || line == "|---|---|---|" {
			continue
		}
		row := step.FindStringSubmatch(line)
		if row == nil {
			problems = append(problems, "this row does not name a file, its functions and what happens: "+line)
			continue
		}
		file := row[1]
		files[file] = true
		declared, err := functions(root, file)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		for name := range strings.SplitSeq(row[2], ", ") {
			if name = strings.Trim(name, "`"); !slices.Contains(declared, name) {
				problems = append(problems, fmt.Sprintf("%s declares no function %s", file, name))
			}
		}
	}
	if n := len(files); n == 0 || n > most {
		problems = append(problems, fmt.Sprintf("it has %d files, want 1 to %d", n, most))
	}
	return problems
}

// functions are those that a file declares, methods as Type.Method.
func functions(root fs.FS, file string) (all []string, err error) {
	source, err := fs.ReadFile(root, file)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, declared := range parsed.Decls {
		if f, ok := declared.(*ast.FuncDecl); ok {
			all = append(all, fullName(f))
		}
	}
	return all, nil
}

// The check above must see a name that is gone.
func TestWalk_Rules(t *testing.T) {
	root := fstest.MapFS{
		"a.go": {Data: []byte("package x\n\nfunc (*post) accept() {}\n\nfunc parse() {}\n\ntype gone struct{}\n")},
		"b.go": {Data: []byte("package x\n\nfunc serve() {}\n")},
	}
	tests := []struct{ name, rows, want string }{
		{"all there", "| [a](a.go) | `post.accept`, `parse` | stored |\n| [b](b.go) | `serve` | answered |\n", ""},
		{"one file twice", "| [a](a.go) | `parse` | read |\n| [b](b.go) | `serve` | answered |\n| [a](a.go) | `post.accept` | stored |\n", ""},
		{"a function is gone", "| [a](a.go) | `parse`, `reserve` | stored |\n", "a.go declares no function reserve"},
		{"a method is gone", "| [a](a.go) | `post.publish` | stored |\n", "a.go declares no function post.publish"},
		{"a method of another type", "| [a](a.go) | `grant.accept` | stored |\n", "a.go declares no function grant.accept"},
		{"a method without its type", "| [a](a.go) | `accept` | stored |\n", "a.go declares no function accept"},
		{"no function", "| [a](a.go) | `gone` | stored |\n", "a.go declares no function gone"},
		{"a file is gone", "| [c](c.go) | `parse` | stored |\n", "open c.go: file does not exist"},
		{"too many files", "| [a](a.go) | `parse` | read |\n| [b](b.go) | `serve` | answered |\n| [c](a/../a.go) | `parse` | read |\n", "it has 3 files, want 1 to 2"},
		{"not a row", "| a.go | parse | read |\n", "this row does not name a file, its functions and what happens: | a.go | parse | read |"},
		{"no table", "", "it has 0 files, want 1 to 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			page := "## Walk\n\n### It\n\n| file | function | what happens to the message |\n|---|---|---|\n" + tt.rows + "\n### Next\n\n| x |\n"
			got := walkProblems(page, "### It", 2, root)
			if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

var space = regexp.MustCompile(`\s+`)

var (
	faults     = regexp.MustCompile(`fault\.New\(fault\.\w+, ("[a-z_]+"|code\w+), "([^"]+)"|Code: ("[a-z_]+"), Text: "([^"]+)"`)
	wrongs     = regexp.MustCompile(`return (?:""|0), "([A-Z][^"]+)"|messages\.\w+:\s+"([A-Z][^"]+)"`)
	errorTexts = regexp.MustCompile(`"error":"([^"]+)"`)
)

// elsewhere are faults that no client of the dialect is told in these words.
var elsewhere = []string{
	"This revision of the accounts has not been seen", // to the operator's commands
}

// otherDialects is what ingress does for other dialects alone.
var otherDialects = []string{
	"ingress/access/logins.go", "ingress/access/sessions.go", "ingress/access/marks.go", "ingress/messages/groups.go",
}

// TestQueuePage holds the errors on the dialect's page to those in the code.
func TestQueuePage(t *testing.T) {
	page := space.ReplaceAllString(read(t, "../docs/dialects/queue.md"), " ")
	source := sources(t, "ingress", "ingress/access", "ingress/fleet", "ingress/messages", "ingress/api/queue", "../pkg/httpx")
	for _, file := range otherDialects {
		source = strings.Replace(source, read(t, file), "", 1)
	}
	count := 0
	for _, match := range faults.FindAllStringSubmatch(source, -1) {
		text, code := match[2]+match[4], strings.Trim(match[1]+match[3], `"`)
		if slices.Contains(elsewhere, text) {
			continue
		}
		count++
		if !strings.Contains(page, `"error":"`+text) {
			t.Errorf("the page lacks the error %q", text)
		}
		// The documented 401 has no code.
		if code != "invalid_token" && !strings.HasPrefix(code, "code") && !strings.Contains(page, code) {
			t.Errorf("the page lacks the code %s", code)
		}
	}
	for _, match := range wrongs.FindAllStringSubmatch(source, -1) {
		count++
		if text := match[1] + match[2]; !strings.Contains(page, text) {
			t.Errorf("the page lacks the item's error %q", text)
		}
	}
	if count < 30 {
		t.Errorf("found %d errors in the code: the test looks in the wrong place", count)
	}
	source += sources(t, "dispatcher")
	for _, match := range errorTexts.FindAllStringSubmatch(page, -1) {
		text, _, _ := strings.Cut(match[1], " 4194304")
		if !strings.Contains(source, text) {
			t.Errorf("the page tells of an error %q, which there is not", match[1])
		}
	}
}

// dialects are the wire APIs, each with its reference, and with its page if that lists all fields.
var dialects = []struct{ folder, page, reference string }{
	{"queue", "../docs/dialects/queue.md", "queue"},
	{"smsgate", "", "thirdparty"},
	{"nodes", "../docs/dialects/nodes.md", "nodes"},
	{"releases", "../docs/releases.md", "releases"},
}

var fieldTag = regexp.MustCompile("json:\"([A-Za-z0-9_]+)")

// TestDialectFields looks for the fields of each dialect's JSON in its reference and on its page.
func TestDialectFields(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.folder, func(t *testing.T) {
			reference := read(t, "ingress/api/docs/"+d.reference+".yaml")
			page := reference
			if d.page != "" {
				page = read(t, d.page)
			}
			fields := fieldTag.FindAllStringSubmatch(sources(t, "ingress/api/"+d.folder), -1)
			for _, match := range fields {
				if field := match[1]; !mentions(reference, field) {
					t.Errorf("the reference %s.yaml lacks the field %s", d.reference, field)
				} else if !mentions(page, field) {
					t.Errorf("%s lacks the field %s", d.page, field)
				}
			}
			if len(fields) < 8 {
				t.Errorf("found %d fields: the test looks in the wrong place", len(fields))
			}
		})
	}
}

// mentions says whether a document has a name as a word of code: in backticks, in quotes, or as a key.
func mentions(document, name string) bool {
	quoted := regexp.QuoteMeta(name)
	return regexp.MustCompile("`[^`\n]*\\b" + quoted + "\\b[^`\n]*`|\"" + quoted + "\"|\\b" + quoted + ":").MatchString(document)
}

var (
	required = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	major    = regexp.MustCompile(`/v[0-9]+$`)
)

// TestDependencies looks for the record of each dependency.
func TestDependencies(t *testing.T) {
	record := read(t, "../docs/adr/0001-modules-and-dependencies.md")
	count := 0
	for _, folder := range []string{"streams", "pkg", "services"} {
		for _, match := range required.FindAllStringSubmatch(read(t, "../"+folder+"/go.mod"), -1) {
			count++
			name := filepath.Base(major.ReplaceAllString(match[1], ""))
			if !strings.HasPrefix(match[1], module) && !strings.Contains(record, name) {
				t.Errorf("docs/adr/0001 does not say what %s replaces", match[1])
			}
		}
	}
	if count < 20 {
		t.Errorf("found %d dependencies: the test looks in the wrong place", count)
	}
}

// sources gives the Go of folders, without tests.
func sources(t *testing.T, folders ...string) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range folders {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				all.WriteString(read(t, file))
			}
		}
	}
	return all.String()
}

// The checks above must see what is wrong.
func TestLinkRules(t *testing.T) {
	const page = "../docs/states.md"
	tests := []struct{ text, target, want string }{
		{"events", "events.md", ""},
		{"events", "events.md#words", ""},
		{"here", "#the-states", ""},
		{"code", "../services/dispatcher", ""},
		{"`Apply`", "../services/dispatcher/state/fold.go", "the file declares no such name"},
		{"`Fold.Apply`", "../services/dispatcher/state/fold.go", ""},
		{"`Fold.Applied`", "../services/dispatcher/state/fold.go", "the file declares no such name"},
		{"`apply`", "../services/dispatcher/state/fold.go", ""},
		{"`maxBody`", "../services/ingress/api/queue/translate.go", ""},
		{"elsewhere", "https://example.org/nothing", ""},
		{"events", "event.md", "there is no such file"},
		{"events", "events.md#word", "the page has no such heading"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.text, " ", tt.target), func(t *testing.T) {
			if got := follow(page, tt.text, tt.target); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
