// Package bench measures the product on this machine, beside ceilings that are
// measured in the same run: what it does without our part in it.
//
// Each server runs in a process of its own, so that its CPU time and its
// allocations are its own; the senders and phones run in this one.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// The scenarios, in the order in which they run.
const (
	Accept  = "accept"  // posts, in a closed loop, beside the ceilings
	Open    = "open"    // posts at a fixed rate
	Pull    = "pull"    // pulls and reports
	Wake    = "wake"    // from a post to a waiting phone
	Backlog = "backlog" // pulls with few and with many messages waiting
	Rebuild = "rebuild" // projections rebuilt
)

// Scenarios are all of them.
func Scenarios() []string { return []string{Accept, Open, Pull, Wake, Backlog, Rebuild} }

// Options say what is measured and for how long.
type Options struct {
	Only    []string // scenarios; none: all
	Rate    int      // posts a second of Open
	Backlog int      // messages that wait in Backlog
	Profile string   // a directory for CPU profiles of the servers; empty: none
	Dir     string   // where temporary data directories are made; empty: the system's place

	Rounds  int           // of each case of Accept
	Slice   time.Duration // of one target in a round of Accept
	Span    time.Duration // of Open and of each case of Pull
	Samples int           // pulls of Backlog, posts of Wake
	Limit   time.Duration // of the whole run

	// Server gives the process that runs Serve for a role on a directory.
	Server   func(role, dir string) (*exec.Cmd, error)
	Errors   io.Writer // takes what a server warns of
	Progress io.Writer // nil: no progress bar
}

// DefaultOptions take some minutes.
func DefaultOptions() Options {
	return Options{
		Rate: 1000, Backlog: 1_000_000,
		Rounds: 9, Slice: 500 * time.Millisecond, Span: 4 * time.Second, Samples: 100,
		Limit: 15 * time.Minute,
	}
}

// QuickOptions take some seconds and tell little about the machine.
func QuickOptions() Options {
	o := DefaultOptions()
	o.Backlog, o.Rounds, o.Slice, o.Span, o.Samples = 20_000, 1, 250*time.Millisecond, 500*time.Millisecond, 20
	return o
}

func (o Options) check() error {
	for _, name := range o.Only {
		if !slices.Contains(Scenarios(), name) {
			return fmt.Errorf("only: %q is no scenario; there are %s", name, strings.Join(Scenarios(), ", "))
		}
	}
	switch {
	case o.Rate < 1:
		return errors.New("rate: want 1 or more posts a second")
	case o.Backlog < few:
		return fmt.Errorf("backlog: want %d messages or more", few)
	case o.Rounds < 1 || o.Samples < 1 || o.Slice <= 0 || o.Span <= 0:
		return errors.New("rounds, samples, slice and span: want more than 0")
	}
	return nil
}

func (o Options) wants(scenario string) bool {
	return len(o.Only) == 0 || slices.Contains(o.Only, scenario)
}

// Run measures, and leaves nothing behind.
func Run(ctx context.Context, o Options) (result Result, err error) {
	if err := o.check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, fmt.Errorf("this took longer than %v, and was broken off", o.Limit))
	defer cancel()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
	}()
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o750); err != nil {
			return Result{}, fmt.Errorf("make a place for profiles: %w", err)
		}
	}
	dir, err := os.MkdirTemp(o.Dir, "trunkline-bench-")
	if err != nil {
		return Result{}, fmt.Errorf("make a data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	r := &run{Options: o, dir: dir, bar: o.bar()}
	r.result.Machine = Machine{CPUs: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Load: loadAverage()}
	begun := time.Now()
	defer func() {
		_ = r.bar.Finish()
		for _, p := range r.processes {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, scenario := range []struct {
		name string
		run  func(context.Context) error
	}{{Accept, r.accept}, {Open, r.open}, {Pull, r.pull}, {Wake, r.wake}, {Backlog, r.backlog}, {Rebuild, r.rebuild}} {
		if !o.wants(scenario.name) {
			continue
		}
		if err := scenario.run(ctx); err != nil {
			if ctx.Err() != nil {
				return Result{}, context.Cause(ctx)
			}
			return Result{}, fmt.Errorf("%s: %w", scenario.name, err)
		}
	}
	r.result.Seconds = time.Since(begun).Seconds()
	r.result.Targets = targets(r.result)
	return r.result, nil
}

// run is a benchmark under way.
type run struct {
	Options
	dir       string
	bar       *progressbar.ProgressBar
	result    Result
	processes []*process // those that run
	main      *process   // the product that most scenarios share; nil before the first
}

// product gives the product that most scenarios share.
func (r *run) product(ctx context.Context) (*process, error) {
	if r.main != nil {
		return r.main, nil
	}
	var err error
	r.main, err = r.start(ctx, roleProduct, roleProduct)
	return r.main, err
}

// start starts a server, which runs until finish or the end of the run.
func (r *run) start(ctx context.Context, role, name string) (*process, error) {
	p, err := startProcess(ctx, r.Options, role, filepath.Join(r.dir, name))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	r.processes = append(r.processes, p)
	return p, nil
}

// finish stops a server that is not needed any more.
func (r *run) finish(p *process) error {
	r.processes = slices.DeleteFunc(r.processes, func(other *process) bool { return other == p })
	return p.stop()
}

// profiled runs f while the servers write CPU profiles, if they are wanted.
func (r *run) profiled(ctx context.Context, name string, servers []*process, f func() error) (err error) {
	if r.Profile == "" {
		return f()
	}
	dir, err := filepath.Abs(r.Profile)
	if err != nil {
		return err
	}
	for _, p := range servers {
		file := filepath.Join(dir, name+"-"+p.name+".pprof")
		if _, err := p.ask(ctx, order{Do: doProfile, File: file}); err != nil {
			return err
		}
		defer func() {
			_, stopErr := p.ask(ctx, order{Do: doProfile})
			err = errors.Join(err, stopErr)
		}()
	}
	return f()
}

// step says what is measured now.
func (r *run) step(format string, args ...any) {
	r.bar.Describe(fmt.Sprintf(format, args...))
	_ = r.bar.Add(1)
}

func (o Options) bar() *progressbar.ProgressBar {
	writer := o.Progress
	if writer == nil {
		writer = io.Discard
	}
	return progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(writer),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionSetSpinnerChangeInterval(0), // else it turns in a goroutine of its own, without the lock
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// loadAverage is the system's, before the run; empty where there is none.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(text))
	if err != nil || len(words) < 3 {
		return ""
	}
	return strings.Join(words[:3], " ")
}
