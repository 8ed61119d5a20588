// Command mutate changes a package in many small ways, one at a time, and reports the changes that no test notices:
//
//	go run ./services/test/mutate -n 300 -seed 1 ./pkg/bus
//
// All changes (mutants) are compiled into one test binary, each switched on by its number, so that nothing is compiled
// between two of them. Each test runs once without a mutant, to see which mutants it reaches. Then each mutant is tried
// with the tests that reach it. The source tree is not changed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	pkg     string
	tests   []string // packages whose tests try the mutants
	n       int      // how many mutants; 0: all
	seed    uint64
	percent float64
	slack   time.Duration
	verbose bool
	only    string        // functions, by a part of their name
	run     string        // of the tests of more packages, those that match; empty: all
	quick   time.Duration // tests that take longer are left out; 0: none
	again   string        // a file with the output of an earlier run
}

func main() {
	o := options{}
	var tests string
	flag.IntVar(&o.n, "n", 300, "try that many `mutants`, picked by the seed; 0: all")
	flag.Uint64Var(&o.seed, "seed", 1, "of the random pick")
	flag.Float64Var(&o.percent, "percent", 90, "fail if fewer are found, of those that are not accepted")
	flag.DurationVar(&o.slack, "slack", 10*time.Second, "a mutant hangs when its tests take five times as long as without it, and this")
	flag.StringVar(&tests, "tests", "", "more `packages` whose tests try the mutants, with commas between them")
	flag.StringVar(&o.only, "only", "", "only mutants of functions that have this in their `name`")
	flag.StringVar(&o.run, "run", "", "of -tests, only those that match the `expression`")
	flag.DurationVar(&o.quick, "quick", 0, "leave out tests that take longer alone; then try what is left with -again")
	flag.StringVar(&o.again, "again", "", "only those that are left in the output of an earlier run, in this `file`")
	flag.BoolVar(&o.verbose, "v", false, "print those that were found too")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "name one package, such as ./pkg/bus")
		os.Exit(2)
	}
	o.pkg = flag.Arg(0)
	o.tests = append([]string{o.pkg}, strings.FieldsFunc(tests, func(r rune) bool { return r == ',' })...)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	sums, err := mutate(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if sums.percent() < o.percent {
		os.Exit(1)
	}
}

// totals counts the mutants by their verdict.
type totals struct {
	all, tried, found, hung, survived, unreached, accepted int
}

// percent is how many of the mutants that are not accepted were found.
func (t totals) percent() float64 {
	if t.tried == t.accepted {
		return 100
	}
	return 100 * float64(t.found) / float64(t.tried-t.accepted)
}

// mutate tries the mutants of a package, and prints those that no test notices.
func mutate(ctx context.Context, o options, out io.Writer) (totals, error) {
	start := time.Now()
	tell := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	c, err := load(ctx, o.pkg)
	if err != nil {
		return totals{}, err
	}
	list, err := readAccepted(acceptedText)
	if err != nil {
		return totals{}, err
	}
	possible := find(c)
	good, _, err := compiling(c, possible)
	if err != nil {
		return totals{}, err
	}
	accepted, err := accept(list, c, good)
	if err != nil {
		return totals{}, err
	}
	picked := pick(good, o.n, o.seed, o.only)
	if o.again != "" {
		if picked, err = left(good, o.again); err != nil {
			return totals{}, err
		}
	}
	picked, texts, err := compiling(c, picked)
	if err != nil {
		return totals{}, err
	}
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return totals{}, err
	}
	defer os.RemoveAll(work)
	var tests []*test
	for i, pattern := range o.tests {
		s, err := build(ctx, work, i, pattern, texts, o.slack)
		if err != nil {
			return totals{}, err
		}
		only := ""
		if i > 0 {
			only = o.run
		}
		ran, err := s.baseline(ctx, only, tell)
		if err != nil {
			return totals{}, err
		}
		for _, one := range ran {
			if o.quick == 0 || one.took <= o.quick {
				tests = append(tests, one)
			}
		}
	}
	tell("%s: %d mutants, %d that do not compile are left out, %d are tried by %d tests; ready after %.0f s",
		c.name, len(good), len(possible)-len(good), len(picked), len(tests), time.Since(start).Seconds())

	sums := totals{all: len(good), tried: len(picked)}
	tries := trial{tests, map[string]map[string]bool{}}
	for _, m := range picked {
		v := tries.try(ctx, m)
		if ctx.Err() != nil {
			return sums, ctx.Err()
		}
		reason, ok := accepted[m.id]
		switch {
		case v.found:
			sums.found++
			if v.hung {
				sums.hung++
			}
			if ok { // reported, since the list should not have it
				sums.found--
				sums.accepted++
				tell("ACCEPTED, and found by %s: %s", v.by, m)
			} else if o.verbose {
				tell("found by %s: %s", v.by, m)
			}
		case ok:
			sums.accepted++
			if o.verbose {
				tell("accepted: %s, because %s", m, reason)
			}
		case v.reached:
			sums.survived++
			tell("SURVIVED %s", m)
		default:
			sums.unreached++
			tell("UNREACHED %s", m)
		}
	}
	tell("%s: of %d mutants %d found (%d hung), %d survived, %d reached by no test, %d accepted: %.1f %% in %.0f s",
		c.name, sums.tried, sums.found, sums.hung, sums.survived, sums.unreached, sums.accepted, sums.percent(), time.Since(start).Seconds())
	return sums, nil
}

// pick picks n mutants (0: all) of the functions that have a text in their name. Their order stays.
func pick(mutants []*mutant, n int, seed uint64, only string) []*mutant {
	picked := slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return !strings.Contains(m.in, only) })
	if n > 0 && n < len(picked) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it is to pick the same again
		random.Shuffle(len(picked), func(i, j int) { picked[i], picked[j] = picked[j], picked[i] })
		picked = picked[:n]
		slices.SortFunc(picked, func(a, b *mutant) int { return a.id - b.id })
	}
	return picked
}

// left picks the mutants that are survived or unreached in the output of an earlier run.
func left(mutants []*mutant, output string) ([]*mutant, error) {
	text, err := os.ReadFile(output)
	if err != nil {
		return nil, err
	}
	told := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); word == "SURVIVED" || word == "UNREACHED" {
			_, what, _ := strings.Cut(rest, " ") // after the place, which may have moved
			told[what] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return !told[m.in+": "+m.change] }), nil
}

// workspace is the folder of the go.work file.
var workspace = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOWORK").Output()
	if err != nil {
		return "/"
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
})
