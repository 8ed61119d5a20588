package bench

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func samples(rates ...int) []sample {
	var all []sample
	for _, r := range rates {
		s := sample{messages: 2 * r, took: 2 * time.Second, latency: newLatency(), used: use{CPU: time.Second, Objects: 10, Bytes: 100}}
		s.latency.record(time.Duration(r) * time.Millisecond)
		all = append(all, s)
	}
	return all
}

func TestSideSumsUpRounds(t *testing.T) {
	got := side(samples(100, 300, 200))
	if got.Rate != 200 || got.Latency.Count != 3 || got.Latency.P50.String() != "200 ms" {
		t.Errorf("got %+v, want the median 200/s and 3 latencies around 200 ms", got)
	}
	want := Cost{CPU: 2500, Allocs: 30.0 / 1200, Bytes: 300.0 / 1200, CPUs: 3}
	if diff := cmp.Diff(want, got.Cost); diff != "" {
		t.Errorf("cost (-want +got):\n%s", diff)
	}
}

// A machine that is slow for a round is slow for both sides.
func TestRatioIsOfRounds(t *testing.T) {
	if got := ratio(samples(100, 10, 300), samples(200, 20, 400)); got != 0.5 {
		t.Errorf("got %v, want 0.5", got)
	}
	if got := ratio(nil, nil); got != 0 {
		t.Errorf("got %v of nothing, want 0", got)
	}
}

func TestLatencyCrossesTheWire(t *testing.T) {
	l := newLatency()
	for i := range 1000 {
		l.record(time.Duration(i+1) * time.Millisecond)
	}
	l.record(0)
	l.record(time.Hour)
	data, err := l.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeLatency(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.percentiles(), back.percentiles()); diff != "" {
		t.Errorf("percentiles (-sent +received):\n%s", diff)
	}
	got := back.percentiles()
	for name, one := range map[string]struct{ got, want Micros }{
		"p50": {got.P50, 500_000}, "p90": {got.P90, 901_000}, "p99": {got.P99, 991_000}, "max": {got.Max, 60_000_000},
	} {
		if off := one.got - one.want; off < -2000 || off > one.want/1000+1000 {
			t.Errorf("%s: got %d µs, want about %d", name, one.got, one.want)
		}
	}
	if got.Count != 1002 {
		t.Errorf("got %d, want 1002", got.Count)
	}
	if _, err := decodeLatency([]byte("none")); err == nil {
		t.Error("got no error of what is no histogram")
	}
}

func TestMicrosString(t *testing.T) {
	for m, want := range map[Micros]string{0: "0.00 ms", 1234: "1.23 ms", 12_340: "12.3 ms", 123_400: "123 ms", 1_234_000: "1.23 s"} {
		if got := m.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTargets(t *testing.T) {
	got := targets(Result{
		Accept: []AcceptResult{
			{Senders: 1, Batch: 1, OfBare: 0.1},
			{Senders: 32, Batch: 1, OfBare: 0.75},
			{Senders: 256, Batch: 1, OfBare: 0.69},
			{Senders: 16, Batch: 200, OfBare: 0.61},
		},
		Pull:    []PullResult{{Phones: 8, Page: 20, Rate: 1}, {Phones: 1, Page: 100, Rate: 4999}, {Phones: 1, Page: 200, Pull: Percentiles{P50: 5000}}},
		Backlog: &BacklogResult{Page: 200, Few: 1000, Many: 5000, Ratio: 1.51},
		Rebuild: []RebuildRun{{Projection: "quota", Rate: 1}, {Projection: dispatcherProjection, Rate: 100_001}},
	})
	want := []Target{
		{Name: "accept 32 × 1, share of the bare handler", Want: 0.75, Got: 0.75, Met: true},
		{Name: "accept 256 × 1, share of the bare handler", Want: 0.70, Got: 0.69},
		{Name: "accept 16 × 200, share of the bare handler", Want: 0.60, Got: 0.61, Met: true},
		{Name: "pull and report 1 × 100, messages/s", Want: 5000, Got: 4999},
		{Name: "pull of 200, median in ms", Want: 5, Got: 5, Most: true, Met: true},
		{Name: "pull of 200 with 5000 waiting by that with 1000", Want: 1.5, Got: 1.51, Most: true},
		{Name: "rebuild of the dispatcher's projection, events/s", Want: 100_000, Got: 100_001, Met: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}
