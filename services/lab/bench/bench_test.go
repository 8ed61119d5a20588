package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/trunkline-sms/trunkline/services/lab/bench"
)

// asServer is the first argument of this program as a server of a benchmark.
const asServer = "as-server"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == asServer {
		if err := bench.Serve(context.Background(), os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// The engine keeps one clock for the whole process.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

func again(role, dir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	return exec.Command(self, asServer, role, dir), err
}

// small are options of a run that takes seconds.
func small(t *testing.T) bench.Options {
	o := bench.QuickOptions()
	o.Backlog, o.Slice, o.Span, o.Samples = 2000, 50*time.Millisecond, 100*time.Millisecond, 3
	o.Dir, o.Server, o.Errors = t.TempDir(), again, t.Output()
	return o
}

// empty fails unless nothing is left in a directory.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v left in the directory, want nothing", left, err)
	}
}

func TestRun(t *testing.T) {
	o := small(t)
	o.Profile = t.TempDir()
	result, err := bench.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	empty(t, o.Dir)

	var cases []string
	for _, a := range result.Accept {
		cases = append(cases, fmt.Sprintf("%d × %d", a.Senders, a.Batch))
		for name, side := range map[string]bench.Side{"product": a.Product, "bare": a.Bare, "engine": a.Engine} {
			if side.Rate <= 0 || side.Latency.Count == 0 || side.Latency.P50 <= 0 || side.Cost.CPU <= 0 || side.Cost.Allocs <= 0 {
				t.Errorf("accept %d × %d: got of %s %+v, want figures", a.Senders, a.Batch, name, side)
			}
		}
		if a.OfBare <= 0 || a.OfEngine <= 0 || a.Behind <= 0 || a.Folded <= 0 || a.Folded >= a.Product.Rate {
			t.Errorf("accept %d × %d: got %v, %v and %v, want ratios", a.Senders, a.Batch, a.OfBare, a.OfEngine, a.Behind)
		}
	}
	if diff := cmp.Diff([]string{"1 × 1", "8 × 1", "32 × 1", "256 × 1", "8 × 20", "16 × 200"}, cases); diff != "" {
		t.Errorf("cases of accept (-want +got):\n%s", diff)
	}
	if got, want := result.Open.Latency.Count, int64(o.Span.Seconds()*float64(o.Rate)); got != want || result.Open.Late.Count != want {
		t.Errorf("open: got %d posts, want %d", got, want)
	}
	if len(result.Pull) != 3 {
		t.Errorf("got %d cases of pull, want 3", len(result.Pull))
	}
	for _, p := range result.Pull {
		if p.Rate <= 0 || p.Pull.Count == 0 || p.Pull.Count != p.Report.Count {
			t.Errorf("pull %d × %d: got %+v, want figures", p.Phones, p.Page, p)
		}
	}
	if got := result.Wake; got.Post.Count != 3 || got.Wake.Count != 3 || got.Wake.P50 <= 0 {
		t.Errorf("wake: got %+v, want 3 of each", got)
	}
	if got := result.Backlog; got.Many != 2000 || got.PullFew.Count != 3 || got.PullAll.Count != 3 || got.Ratio <= 0 {
		t.Errorf("backlog: got %+v, want 3 pulls of each and a ratio", got)
	}
	if len(result.Rebuild) != 2 {
		t.Errorf("got %d rebuilds, want 2", len(result.Rebuild))
	}
	for _, r := range result.Rebuild {
		if r.Events < 2000 || r.Rate <= 0 {
			t.Errorf("rebuild: got %+v, want what the run stored", r)
		}
	}
	if got := len(result.Targets); got != 7 {
		t.Errorf("got %d targets, want 7", got)
	}
	profiles(t, o.Profile)
	table(t, result)
	encoded(t, result)
}

func profiles(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"accept-1x1-product", "accept-1x1-bare", "accept-1x1-engine", "open-product", "pull-8x20-product", "backlog-product-1000", "backlog-product-2000", "rebuild-quota-product"} {
		if info, err := os.Stat(dir + "/" + name + ".pprof"); err != nil || info.Size() == 0 {
			t.Errorf("got no profile %s: %v", name, err)
		}
	}
}

func table(t *testing.T, result bench.Result) {
	t.Helper()
	var out strings.Builder
	if err := result.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"senders × batch", "256 × 1", "16 × 200", "of bare", "Posts at 1000/s", "8 × 20", "waiting phone's", "2000 waiting", "dispatcher-0", "quota", "Targets"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got tables without %q:\n%s", want, out.String())
		}
	}
	if err := result.Print(broken{}); err == nil {
		t.Error("got no error of an output that is broken")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func encoded(t *testing.T, result bench.Result) {
	t.Helper()
	data, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Accept []struct {
			Senders int
			OfBare  *float64 `json:"of_bare"`
			Product struct {
				Rate    *float64          `json:"messages_per_second"`
				Latency map[string]*int64 `json:"latency"`
			}
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	first := got.Accept[0]
	if first.Senders != 1 || first.OfBare == nil || first.Product.Rate == nil || first.Product.Latency["p99_us"] == nil {
		t.Errorf("got JSON without what it should hold: %s", data)
	}
	var back bench.Result
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(result, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestRunRefuses(t *testing.T) {
	for want, change := range map[string]func(*bench.Options){
		`only: "nonsense" is no scenario`: func(o *bench.Options) { o.Only = []string{"nonsense"} },
		"rate: want":                      func(o *bench.Options) { o.Rate = 0 },
		"backlog: want":                   func(o *bench.Options) { o.Backlog = 10 },
		"rounds, samples":                 func(o *bench.Options) { o.Rounds = 0 },
		"there is no such role": func(o *bench.Options) {
			o.Server = func(_, dir string) (*exec.Cmd, error) { return again("nonsense", dir) }
		},
		"the server has ended": func(o *bench.Options) {
			o.Server = func(_, _ string) (*exec.Cmd, error) { return exec.Command("/bin/false"), nil }
		},
	} {
		t.Run(want, func(t *testing.T) {
			o := small(t)
			o.Only, o.Errors = []string{bench.Wake}, io.Discard
			change(&o)
			_, err := bench.Run(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want one with %q", err, want)
			}
			empty(t, o.Dir)
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	for name, limit := range map[string]time.Duration{"interrupted": time.Hour, "too long": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := small(t)
			o.Only, o.Span, o.Limit = []string{bench.Open}, time.Hour, limit
			o.Server = func(role, dir string) (*exec.Cmd, error) {
				if limit == time.Hour {
					cancel()
				}
				return again(role, dir)
			}
			_, err := bench.Run(ctx, o)
			if limit == time.Hour && !errors.Is(err, context.Canceled) || err == nil {
				t.Errorf("got error %v, want that it was %s", err, name)
			}
			if limit != time.Hour && !strings.Contains(err.Error(), "took longer than") {
				t.Errorf("got error %v, want that it was %s", err, name)
			}
			empty(t, o.Dir)
		})
	}
}
