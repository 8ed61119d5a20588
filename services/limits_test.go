package services_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

var update = flag.Bool("update", false, "write docs/limits-all.md from the comments beside the limits")

// A limitComment is what the comment beside a limit says:
//
//	// Limit: what there is, with its value. Beyond it: what one sees.
//	// Used up by: who can reach it. Hurts: whom that hurts. Test: TestThatGoesThere.
//
// A limit with nothing beyond it needs no test.
type limitComment struct {
	file, code                 string // the file, relative to the workspace, and the line below the comment
	limit, beyond, used, hurts string
	test                       string
}

var (
	labels     = regexp.MustCompile(`(?:^|\s)(Limit|Beyond it|Used up by|Hurts|Test): `)
	quantities = regexp.MustCompile(`([0-9][0-9,]*)(?: ?([a-zA-Z%]+))?`)
	digits     = regexp.MustCompile(`[0-9]+`)
	bounding   = regexp.MustCompile(`^(?:max|Max|most|Most)[A-Z]`)
	units      = map[string]int64{
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "bits": 1,
		"ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9, "days": 24 * 3600e9,
	}
)

// standard are constants of the standard library.
var standard = map[string]int64{
	"math.MaxInt32": 1<<31 - 1, "time.Millisecond": 1e6, "time.Second": 1e9, "time.Minute": 60e9, "time.Hour": 3600e9,
}

// derived are constants that are bounds by their names, and no limits of their own.
var derived = []string{
	"pkg/apk.maxComment",                      // of the format of ZIP
	"pkg/apk.maxText",                         // more than check lets through
	"pkg/bus.MaxRequest",                      // the most messages of a post, and its marker
	"pkg/bus.maxSearch",                       // more than a commit stores
	"pkg/bus.maxTries",                        // of an engine, before a batch is taken apart
	"pkg/natsd.MaxBatchSize",                  // of an engine: the most messages of a post, and its marker
	"pkg/natsd.maxMemory",                     // of streams in memory: there are none
	"pkg/natsd.mostPings",                     // of a connection
	"pkg/projection.maxReadPause",             // of a stream that cannot be read
	"pkg/projection.maxWritePause",            // of a file that cannot be written
	"services/ingress/api/smsgate.maxNumbers", // maxTexts
	"services/ingress/access.maxLogin",        // that of services/accounts
	"services/operator.maxNotes",              // more than the server takes
	"services/quota.maxCount",                 // the most messages of a post
	"streams.MaxInstance",                     // instanceBits
}

// workspace is the Go of the three modules: what is parsed of it, and the expressions of its constants by folder.
type workspace struct {
	tokens    *token.FileSet
	files     map[string]*ast.File // by path
	lines     map[string][]string
	constants map[string]map[string]ast.Expr // by folder and name
	tests     map[string][]string            // the files of each test
}

func parseWorkspace(root fs.FS) (*workspace, error) {
	w := &workspace{
		tokens: token.NewFileSet(), files: map[string]*ast.File{}, lines: map[string][]string{},
		constants: map[string]map[string]ast.Expr{}, tests: map[string][]string{},
	}
	for _, module := range []string{"streams", "pkg", "services"} {
		if _, err := fs.Stat(root, module); err != nil {
			continue
		}
		err := fs.WalkDir(root, module, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(name, ".go"):
				return nil
			}
			return w.add(root, name)
		})
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *workspace) add(root fs.FS, name string) error {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(w.tokens, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	inTest := strings.HasSuffix(name, "_test.go")
	if !inTest {
		w.files[name], w.lines[name] = file, strings.Split(string(text), "\n")
	}
	for _, declared := range file.Decls {
		switch d := declared.(type) {
		case *ast.FuncDecl:
			if inTest && d.Recv == nil {
				w.tests[d.Name.Name] = append(w.tests[d.Name.Name], name)
			}
		case *ast.GenDecl:
			if d.Tok == token.CONST && !inTest {
				w.addConstants(path.Dir(name), d)
			}
		}
	}
	return nil
}

func (w *workspace) addConstants(folder string, d *ast.GenDecl) {
	if w.constants[folder] == nil {
		w.constants[folder] = map[string]ast.Expr{}
	}
	for _, spec := range d.Specs {
		values := spec.(*ast.ValueSpec)
		for i, name := range values.Names {
			if i < len(values.Values) {
				w.constants[folder][name.Name] = values.Values[i]
			}
		}
	}
}

// value gives a constant expression's value, or nil: of numbers, times and other constants of the workspace.
func (w *workspace) value(folder string, e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.INT || e.Kind == token.FLOAT {
			return constant.MakeFromLiteral(e.Value, e.Kind, 0)
		}
	case *ast.ParenExpr:
		return w.value(folder, e.X)
	case *ast.UnaryExpr:
		if x := w.value(folder, e.X); x != nil && e.Op == token.SUB {
			return constant.UnaryOp(e.Op, x, 0)
		}
	case *ast.BinaryExpr:
		return operate(w.value(folder, e.X), e.Op, w.value(folder, e.Y))
	case *ast.Ident:
		if defined := w.constants[folder][e.Name]; defined != nil {
			return w.value(folder, defined)
		}
	case *ast.SelectorExpr:
		return w.selected(e)
	}
	return nil
}

func operate(x constant.Value, op token.Token, y constant.Value) constant.Value {
	if x == nil || y == nil {
		return nil
	}
	switch op {
	case token.SHL:
		by, _ := constant.Uint64Val(y)
		return constant.Shift(x, op, uint(by))
	case token.QUO:
		return constant.BinaryOp(x, token.QUO_ASSIGN, y) // of integers
	case token.ADD, token.SUB, token.MUL:
		return constant.BinaryOp(x, op, y)
	}
	return nil
}

func (w *workspace) selected(e *ast.SelectorExpr) constant.Value {
	of, ok := e.X.(*ast.Ident)
	if !ok {
		return nil
	}
	if known := standard[of.Name+"."+e.Sel.Name]; known != 0 {
		return constant.MakeInt64(known)
	}
	for folder, constants := range w.constants {
		if path.Base(folder) == of.Name && constants[e.Sel.Name] != nil {
			return w.value(folder, constants[e.Sel.Name])
		}
	}
	return nil
}

// limits finds the comments, in the order of their files, and says what is wrong with them.
func (w *workspace) limits() (found []limitComment, problems []string) {
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		for _, group := range w.files[name].Comments {
			line := w.tokens.Position(group.End()).Line // the one below, counted from 0
			for _, text := range strings.Split(group.Text(), "\n\n") {
				if !strings.HasPrefix(text, "Limit: ") {
					continue
				}
				code, _, _ := strings.Cut(w.lines[name][line], " // ")
				l := parseLimit(text)
				l.file, l.code = name, strings.TrimSpace(code)
				found = append(found, l)
				for _, problem := range w.wrong(l, line+1) {
					problems = append(problems, fmt.Sprintf("%s:%d: %s: %s", name, line+1, l.code, problem))
				}
			}
		}
	}
	return found, problems
}

// parseLimit reads one comment. A text that follows in the same paragraph belongs to the last label.
func parseLimit(text string) limitComment {
	text = strings.Join(strings.Fields(text), " ")
	var l limitComment
	marks := labels.FindAllStringSubmatchIndex(text, -1)
	for i, mark := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		part := strings.TrimSpace(text[mark[1]:end])
		switch text[mark[2]:mark[3]] {
		case "Limit":
			l.limit = part
		case "Beyond it":
			l.beyond = part
		case "Used up by":
			l.used = part
		case "Hurts":
			l.hurts = part
		case "Test":
			l.test = strings.TrimSuffix(part, ".")
		}
	}
	return l
}

// wrong says what is wrong with a limit: what it does not say, a value that is not the code's, and a test that there is
// not.
func (w *workspace) wrong(l limitComment, line int) []string {
	var problems []string
	if l.used == "" || l.hurts == "" {
		problems = append(problems, "it does not say who can use it up, and whom that hurts")
	}
	if l.beyond != "" && l.test == "" {
		problems = append(problems, "it names no test")
	}
	if l.test != "" && w.testFile(l) == "" {
		problems = append(problems, "there is no test "+l.test)
	}
	if got := w.valuesAt(l.file, line); len(got) > 0 && !names(l.limit, got) {
		problems = append(problems, fmt.Sprintf("the comment says %q, and the code %v", l.limit, got))
	}
	return problems
}

// testFile finds the test that a limit names, in its own folder before others.
func (w *workspace) testFile(l limitComment) string {
	for _, file := range w.tests[l.test] {
		if path.Dir(file) == path.Dir(l.file) {
			return file
		}
	}
	if len(w.tests[l.test]) == 0 {
		return ""
	}
	return w.tests[l.test][0]
}

// valuesAt are the constant values that stand on a line: all of its expressions, the largest of each that has one, and
// the numbers in its texts.
func (w *workspace) valuesAt(file string, line int) []int64 {
	var values []int64
	ast.Inspect(w.files[file], func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok || w.tokens.Position(e.Pos()).Line != line {
			return true
		}
		if text, ok := e.(*ast.BasicLit); ok && text.Kind == token.STRING {
			for _, number := range digits.FindAllString(text.Value, -1) {
				if value, err := strconv.ParseInt(number, 10, 64); err == nil {
					values = append(values, value)
				}
			}
			return false
		}
		value := w.value(path.Dir(file), e)
		if value == nil {
			return true
		}
		if exact, ok := constant.Int64Val(constant.ToInt(value)); ok && !slices.Contains(values, exact) {
			values = append(values, exact)
		}
		return false
	})
	return values
}

// names reports whether a text names one of the values, with or without a unit.
func names(text string, values []int64) bool {
	for _, match := range quantities.FindAllStringSubmatch(text, -1) {
		number, err := strconv.ParseInt(strings.ReplaceAll(match[1], ",", ""), 10, 64)
		if err != nil {
			continue
		}
		unit := max(units[match[2]], 1)
		if slices.Contains(values, number) || slices.Contains(values, number*unit) {
			return true
		}
	}
	return false
}

// page is the generated list of all limits.
func (w *workspace) page(all []limitComment) string {
	var text strings.Builder
	text.WriteString(`# All limits

Every limit, written by ` + "`make golden`" + ` from the comments beside the constants: do not edit this page. Those that you will meet
are on [the page for people](limits.md). Each says what is seen beyond it, who can use it up, and whom that hurts; the
links lead to the line of code and to a test that goes there.
`)
	folder := ""
	for _, l := range all {
		if path.Dir(l.file) != folder {
			folder = path.Dir(l.file)
			fmt.Fprintf(&text, "\n## %s\n\n", folder)
		}
		fmt.Fprintf(&text, "* **%s**", upper(l.limit))
		if l.beyond != "" {
			fmt.Fprintf(&text, " Beyond it: %s", l.beyond)
		}
		fmt.Fprintf(&text, "\n  Used up by: %s Hurts: %s\n  [%s](../%s) ``%s``", l.used, l.hurts, path.Base(l.file), l.file, l.code)
		if l.test != "" {
			fmt.Fprintf(&text, ", [`%s`](../%s)", l.test, w.testFile(l))
		}
		text.WriteByte('\n')
	}
	return text.String()
}

func upper(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// unsaid are the constants that by their names are bounds, and have no comment of a limit.
func (w *workspace) unsaid(all []limitComment) []string {
	var names []string
	for folder, constants := range w.constants {
		if in(folder, "services/test") || in(folder, "services/lab") || in(folder, "pkg/testkit") {
			continue
		}
		for name := range constants {
			has := slices.ContainsFunc(all, func(l limitComment) bool {
				return path.Dir(l.file) == folder && strings.HasPrefix(strings.TrimPrefix(l.code, "const "), name+" ")
			})
			if bounding.MatchString(name) && !has && !slices.Contains(derived, folder+"."+name) {
				names = append(names, folder+"."+name)
			}
		}
	}
	return slices.Sorted(slices.Values(names))
}

// TestLimits holds the comments of all limits to the code and to their tests, and the generated page to the comments.
func TestLimits(t *testing.T) {
	w, err := parseWorkspace(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	all, problems := w.limits()
	for _, problem := range problems {
		t.Error(problem)
	}
	if len(all) < 80 {
		t.Errorf("got %d limits: the test looks in the wrong place", len(all))
	}
	for _, name := range w.unsaid(all) {
		t.Errorf("%s is a bound by its name: say in a comment what the limit is, who can use it up, and whom that hurts", name)
	}
	const file = "../docs/limits-all.md"
	if *update {
		if err := os.WriteFile(file, []byte(w.page(all)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, file); got != w.page(all) {
		t.Errorf("%s is not what the comments say: run make golden", file)
	}
}

var value = regexp.MustCompile(`\[([0-9][^\]]*)\]\(([^)]+\.go)\)`)

// TestLimits_ForPeople looks for the values of the pages for people in what the comments of the linked file say.
func TestLimits_ForPeople(t *testing.T) {
	w, err := parseWorkspace(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	all, _ := w.limits()
	values := value.FindAllStringSubmatch(read(t, "../docs/limits.md")+read(t, "../docs/releases.md"), -1)
	if len(values) < 25 {
		t.Errorf("got %d values: the test looks in the wrong place", len(values))
	}
	for _, match := range values {
		text, file := match[1], filepath.Join("..", "docs", match[2])
		known := slices.ContainsFunc(all, func(l limitComment) bool {
			return filepath.Join("..", l.file) == file && strings.Contains(l.limit, text)
		})
		if !known {
			t.Errorf("no limit in %s is said to be %s", file, text)
		}
	}
}

// The checks above must see what is wrong.
func TestLimits_Rules(t *testing.T) {
	const whole = "// Limit: at most 4 MiB. Beyond it: 413. Used up by: one request. Hurts: nobody. Test: TestThere.\n"
	tests := map[string]struct{ source, want string }{
		"right":              {"const size = 4 << 20", ""},
		"another size":       {"const size = 5 << 20", "the code [5242880]"},
		"a time":             {"const size = 4 * time.Second", "the code [4000000000]"},
		"of another package": {"const size = other.Size", ""},
		"in a literal":       {"var c = config{Size: 4 << 20}", ""},
		"in a pattern":       {"var form = `^.{1,3}$`", "the code [1 3]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tree := fstest.MapFS{
				"pkg/x/x.go":         {Data: []byte("package x\n\n" + whole + tt.source + "\n")},
				"pkg/x/x_test.go":    {Data: []byte("package x\n\nfunc TestThere() {}\n")},
				"pkg/other/other.go": {Data: []byte("package other\n\nconst Size = 2 * half\n\nconst half = 2 << 20\n")},
			}
			w, err := parseWorkspace(tree)
			if err != nil {
				t.Fatal(err)
			}
			found, problems := w.limits()
			got := strings.Join(problems, "; ")
			if len(found) != 1 || (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %d limits, %q, want one and %q", len(found), got, tt.want)
			}
		})
	}
	for want, comment := range map[string]string{
		"it does not say who":     strings.Replace(whole, " Hurts: nobody.", "", 1),
		"it names no test":        strings.Replace(whole, " Test: TestThere.", "", 1),
		"there is no test TestNo": strings.Replace(whole, "TestThere", "TestNo", 1),
	} {
		tree := fstest.MapFS{
			"pkg/x/x.go":      {Data: []byte("package x\n\n" + comment + "const size = 4 << 20\n\nconst maxOther = 1\n")},
			"pkg/x/x_test.go": {Data: []byte("package x\n\nfunc TestThere() {}\n")},
		}
		w, err := parseWorkspace(tree)
		if err != nil {
			t.Fatal(err)
		}
		all, problems := w.limits()
		if got := strings.Join(problems, "; "); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := w.unsaid(all); !slices.Equal(got, []string{"pkg/x.maxOther"}) {
			t.Errorf("got %v without a comment, want pkg/x.maxOther", got)
		}
	}
}
