package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sample = "./testdata/sample"

func loadSample(t *testing.T) *code {
	t.Helper()
	c, err := load(t.Context(), sample)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func changesOf(mutants []*mutant) []string {
	var all []string
	for _, m := range mutants {
		all = append(all, m.in+": "+m.change)
	}
	return all
}

func TestFind(t *testing.T) {
	c := loadSample(t)
	good, _, err := compiling(c, find(c))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Small: return n < most -> return false",
		"Small: n < most -> n <= most",
		"const: most -> most + 1",
		"const: most -> most - 1",
		"Both: return a && b -> return false",
		"Both: a && b -> a || b",
		"Both: a && b -> b",
		"Both: a && b -> a",
		"Sum: n > 0 -> !(n > 0)",
		"Sum: n > 0 -> true",
		"Sum: n > 0 -> false",
		"Sum: n > 0 -> n >= 0",
		"Sum: 0 -> 0 + 1",
		"Sum: without sum += n",
		"Sum: return sum -> return 0",
		"Count: 0 -> 0 + 1",
		"Count: i < n -> !(i < n)",
		"Count: i < n -> false",
		"Count: i < n -> i <= n",
		"Count: without i++",
		"Count: return i -> return 0",
		"Must: n < 0 -> !(n < 0)",
		"Must: n < 0 -> true",
		"Must: n < 0 -> false",
		"Must: n < 0 -> n <= 0",
		"Must: 0 -> 0 + 1",
		`Must: without panic("negative")`,
		"Must: return n -> return 0",
		"Check: n < 0 -> !(n < 0)",
		"Check: n < 0 -> true",
		"Check: n < 0 -> false",
		"Check: n < 0 -> n <= 0",
		"Check: 0 -> 0 + 1",
		`Check: return errors.New("negative") -> return nil`,
		"Unused: return time.Second -> return 0",
		"Ends: n == 0 -> true",
		"Ends: n == 0 -> false",
		"Ends: n == 0 -> n != 0",
		"Ends: 0 -> 0 + 1",
		`Ends: return "none" -> return ""`,
		"Half: n%2 != 0 -> true",
		"Half: n%2 != 0 -> false",
		"Half: n%2 != 0 -> n%2 == 0",
		"Half: n%2 -> n * 2",
		"Half: 2 -> 2 + 1",
		"Half: 0 -> 0 + 1",
		`Half: return 0, errors.New("odd") -> return 0, nil`,
		"Half: return n / 2, nil -> return 0, nil",
		"Half: n / 2 -> n * 2",
		"Half: 2 -> 2 + 1 #2",
	}
	if diff := cmp.Diff(want, changesOf(good)); diff != "" {
		t.Errorf("mutants (-want +got):\n%s", diff)
	}
}

// A mutant that does not compile is left out, and no other one with it.
func TestCompiling(t *testing.T) {
	c := loadSample(t)
	all := find(c)
	good, texts, err := compiling(c, all)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range all {
		if !slices.Contains(good, m) {
			out = append(out, m.in+": "+m.change)
		}
	}
	if diff := cmp.Diff([]string{`Ends: without panic("some")`}, out); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if len(texts) != 2 {
		t.Errorf("got %d files, want the package's and the switches", len(texts))
	}
	// Where nothing is changed, the text is what it was.
	if got := render(c.files[0], nil); !bytes.Equal(got.text, c.files[0].text) {
		t.Error("a file without mutants is not what it was")
	}
}

func TestMutate(t *testing.T) {
	before, err := os.ReadFile(sample + "/sample.go")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	got, err := mutate(t.Context(), options{pkg: sample, tests: []string{sample}, slack: 5 * time.Second}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var left []string
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.HasPrefix(line, "SURVIVED ") || strings.HasPrefix(line, "UNREACHED ") {
			left = append(left, regexp.MustCompile(` \S*sample\.go:\d+`).ReplaceAllString(line, ""))
		}
	}
	want := []string{
		"SURVIVED Both: a && b -> a",
		"SURVIVED Sum: n > 0 -> n >= 0",
		"SURVIVED Count: 0 -> 0 + 1",
		"SURVIVED Must: n < 0 -> false",
		"SURVIVED Must: n < 0 -> n <= 0",
		"SURVIVED Must: 0 -> 0 + 1",
		`UNREACHED Must: without panic("negative")`,
		"SURVIVED Must: return n -> return 0",
		"UNREACHED Unused: return time.Second -> return 0",
		"UNREACHED Ends: n == 0 -> true",
		"UNREACHED Ends: n == 0 -> false",
		"UNREACHED Ends: n == 0 -> n != 0",
		"UNREACHED Ends: 0 -> 0 + 1",
		`UNREACHED Ends: return "none" -> return ""`,
	}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	// Counting without i++ has no end, which is noticed too.
	if want := (totals{all: 50, tried: 50, found: 36, hung: 1, survived: 7, unreached: 7}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if after, err := os.ReadFile(sample + "/sample.go"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the source was changed: %v", err)
	}
}

// The same seed picks the same mutants.
func TestPick(t *testing.T) {
	all := find(loadSample(t))
	one := pick(all, 10, 1, "")
	if len(one) != 10 || !slices.Equal(one, pick(all, 10, 1, "")) || slices.Equal(one, pick(all, 10, 2, "")) {
		t.Errorf("got %v", changesOf(one))
	}
	if got := pick(all, 0, 1, ""); !slices.Equal(got, all) {
		t.Errorf("all: got %d of %d", len(got), len(all))
	}
	for _, m := range pick(all, 0, 1, "Count") {
		if m.in != "Count" {
			t.Errorf("got %s, want those of Count", m)
		}
	}
}

// What an earlier run left can be tried again, wherever it stands by now.
func TestLeft(t *testing.T) {
	output := filepath.Join(t.TempDir(), "output")
	text := "sample: 40 mutants\nSURVIVED old/place.go:7 Both: a && b -> a\nUNREACHED x.go:1 Unused: return time.Second -> return 0\nfound by TestSum: x.go:1 Sum: n > 0 -> true\nSURVIVED x.go:2 Gone: a -> b\n"
	if err := os.WriteFile(output, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := left(find(loadSample(t)), output)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Both: a && b -> a", "Unused: return time.Second -> return 0"}, changesOf(got)); diff != "" {
		t.Error(diff)
	}
	if _, err := left(nil, output+"x"); err == nil {
		t.Error("without the output: got no error")
	}
}

func TestReadAccepted(t *testing.T) {
	const entry = "sample Both\na && b -> a\nbecause it is a sample"
	got, err := readAccepted("# why\n\n" + entry + "\n\n" + strings.Replace(entry, "Both", "T.Both", 1))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].pkg != "sample" || got[0].function != "Both" || got[0].change != "a && b -> a" || got[0].reason != "it is a sample" || got[1].function != "T.Both" {
		t.Errorf("got %+v", got)
	}
	for what, text := range map[string]string{
		"no reason":   "sample Both\na && b -> a",
		"not because": "sample Both\na && b -> a\nit is",
		"no function": "sample\na && b -> a\nbecause it is",
		"four lines":  entry + "\nand so on",
		"no blank":    entry + "\n" + entry,
	} {
		if got, err := readAccepted(text); err == nil {
			t.Errorf("%s: got %+v, want an error", what, got)
		}
	}
}

func TestAccept(t *testing.T) {
	c := loadSample(t)
	all := find(c)
	got, err := accept([]acceptance{{1, "sample", "Both", "a && b -> a", "why"}, {2, "another", "F", "x", "y"}}, c, all)
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v, want one", got, err)
	}
	for _, gone := range []acceptance{{1, "sample", "Both", "a && c -> a", "why"}, {1, "sample", "Bath", "a && b -> a", "why"}} {
		if _, err := accept([]acceptance{gone}, c, all); err == nil {
			t.Errorf("%+v applies to nothing: got no error", gone)
		}
	}
}

// What is accepted is there: an entry whose code has changed says nothing.
func TestAccepted_Applies(t *testing.T) {
	list, err := readAccepted(acceptedText)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Name}} {{.ImportPath}}", "work").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Log(string(exit.Stderr))
		}
		t.Fatal(err)
	}
	paths := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		name, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		paths[name] = append(paths[name], path)
	}
	checked := map[string]bool{}
	for _, a := range list {
		if checked[a.pkg] {
			continue
		}
		checked[a.pkg] = true
		if len(paths[a.pkg]) != 1 {
			t.Errorf("accepted.txt:%d: packages of the name %s: got %v, want one", a.line, a.pkg, paths[a.pkg])
			continue
		}
		c, err := load(t.Context(), paths[a.pkg][0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := accept(list, c, find(c)); err != nil {
			t.Error(err)
		}
	}
}
