package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// suite is a test binary with all mutants in it.
type suite struct {
	binary, dir string
	work        string
	slack       time.Duration // how much longer a run may take than without a mutant
}

// test is one test of a suite, as it ran without a mutant.
type test struct {
	suite   *suite
	name    string
	took    time.Duration
	reached map[int]bool
}

// build compiles the tests of a package with other texts for some of its files, or of the packages it imports.
func build(ctx context.Context, work string, number int, pattern string, texts map[string][]byte, slack time.Duration) (*suite, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", pattern).Output() //nolint:gosec // the package is the caller's
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pattern, err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range texts {
		replacement := filepath.Join(work, filepath.Base(path))
		if err := os.WriteFile(replacement, text, 0o600); err != nil {
			return nil, err
		}
		overlay.Replace[path] = replacement
	}
	encoded, err := json.Marshal(overlay)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		return nil, err
	}
	s := &suite{binary: filepath.Join(work, fmt.Sprintf("suite%d.test", number)), dir: strings.TrimSpace(string(out)), work: work, slack: slack}
	compile := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", file, "-o", s.binary, pattern) //nolint:gosec // the package is the caller's
	if out, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the tests of %s: %w\n%s", pattern, err, out)
	}
	return s, nil
}

var errHung = errors.New("hung")

// run runs tests of the suite until one fails, and returns their output.
func (s *suite) run(ctx context.Context, mutant int, marks string, within time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	temp, err := os.MkdirTemp(s.work, "tmp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, s.binary, args...) //nolint:gosec // it was compiled here
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+temp, onVariable+"="+strconv.Itoa(mutant), marksVariable+"="+marks)
	// Kill what it has started too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		return out.Bytes(), errHung
	}
	return out.Bytes(), err
}

// baseline runs every test alone, without a mutant, and notes which mutants it reaches. Tests that fail are reported and
// left out. Tests that only does not match are left out too.
func (s *suite) baseline(ctx context.Context, only string, tell func(string, ...any)) ([]*test, error) {
	out, err := s.run(ctx, 0, "", time.Minute, "-test.list", "^(Test|Fuzz|Example)")
	if err != nil {
		return nil, fmt.Errorf("list tests: %w\n%s", err, out)
	}
	wanted, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	var all []*test
	for _, name := range strings.Fields(string(out)) {
		if !wanted.MatchString(name) {
			continue
		}
		marks := filepath.Join(s.work, "marks")
		if err := os.WriteFile(marks, nil, 0o600); err != nil {
			return nil, err
		}
		start := time.Now()
		out, err := s.run(ctx, 0, marks, 5*time.Minute, "-test.run", "^"+name+"$", "-test.count=1")
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			tell("left out, since it fails without a mutant: %s: %v\n%s", name, err, lastLines(out, 5))
			continue
		}
		t := &test{suite: s, name: name, took: time.Since(start), reached: map[int]bool{}}
		noted, err := os.ReadFile(marks)
		if err != nil {
			return nil, err
		}
		for _, line := range strings.Fields(string(noted)) {
			if id, err := strconv.Atoi(line); err == nil {
				t.reached[id] = true
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// verdict is the result for a mutant.
type verdict struct {
	found, hung, reached bool
	by                   string
}

// firstShare is how long the first tests that try a mutant take together. Each further share takes four times as long.
const firstShare = time.Second

// trial tries mutants, one after the other.
type trial struct {
	tests []*test
	finds map[string]map[string]bool // by function, the tests that found a mutant of it
}

// try runs the tests that reach a mutant until some of them find it: first those that found one of the same function,
// then the quick ones. What fails must fail twice: a busy machine makes some tests fail once.
func (t *trial) try(ctx context.Context, m *mutant) verdict {
	var todo []*test
	for _, one := range t.tests {
		if one.reached[m.id] {
			todo = append(todo, one)
		}
	}
	if len(todo) == 0 {
		return verdict{}
	}
	finds := t.finds[m.in]
	slices.SortStableFunc(todo, func(a, b *test) int {
		if finds[a.name] != finds[b.name] {
			if finds[a.name] {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.took, b.took)
	})
	for share := firstShare; len(todo) > 0; share *= 4 {
		var names []string
		s, total := todo[0].suite, time.Duration(0)
		todo = slices.DeleteFunc(todo, func(one *test) bool {
			if one.suite != s || total > 0 && total+one.took > share {
				return false
			}
			total += one.took
			names = append(names, one.name)
			return true
		})
		out, err := s.run(ctx, m.id, "", s.slack+5*total, choose(names)...)
		if by := failed.FindSubmatch(out); by != nil {
			names = []string{string(by[1])}
		}
		if err != nil && !errors.Is(err, errHung) {
			_, err = s.run(ctx, m.id, "", s.slack+5*total, choose(names)...)
		}
		if err == nil {
			continue
		}
		if t.finds[m.in] == nil {
			t.finds[m.in] = map[string]bool{}
		}
		if len(names) == 1 {
			t.finds[m.in][names[0]] = true
		}
		return verdict{found: true, reached: true, hung: errors.Is(err, errHung), by: strings.Join(names, " or ")}
	}
	return verdict{reached: true}
}

func choose(names []string) []string {
	return []string{"-test.run", "^(" + strings.Join(names, "|") + ")$", "-test.count=1", "-test.failfast"}
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
