package bench

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Result is what was measured. Scenarios that did not run are empty.
type Result struct {
	Machine Machine        `json:"machine"`
	Seconds float64        `json:"seconds"` // of the whole run
	Accept  []AcceptResult `json:"accept,omitempty"`
	Open    *OpenResult    `json:"open,omitempty"`
	Pull    []PullResult   `json:"pull,omitempty"`
	Wake    *WakeResult    `json:"wake,omitempty"`
	Backlog *BacklogResult `json:"backlog,omitempty"`
	Rebuild []RebuildRun   `json:"rebuild,omitempty"`
	Targets []Target       `json:"targets,omitempty"`
}

// Machine is where it was measured.
type Machine struct {
	CPUs   int    `json:"cpus"`
	System string `json:"system"`
	Go     string `json:"go"`
	Load   string `json:"load,omitempty"` // the averages before the run
}

// AcceptResult is one case of Accept. The ratios are medians of those of each
// round.
type AcceptResult struct {
	Senders  int     `json:"senders"`
	Batch    int     `json:"batch"` // messages of a post
	Product  Side    `json:"product"`
	Bare     Side    `json:"bare"`
	Engine   Side    `json:"engine"`
	OfBare   float64 `json:"of_bare"`
	OfEngine float64 `json:"of_engine"`
	// Behind is for how long the product folded on after the last answer, in
	// the worst round; Folded is the rate when that time counts, too: what it
	// could go on with.
	Behind Micros  `json:"behind_us"`
	Folded float64 `json:"folded_per_second"`
}

// Side is what one target did, over all rounds: Rate is the median.
type Side struct {
	Rate    float64     `json:"messages_per_second"`
	Latency Percentiles `json:"latency"` // of a post; of the engine, of a commit
	Cost    Cost        `json:"cost"`
}

// Cost is what a server's process spent on a message.
type Cost struct {
	CPU    float64 `json:"cpu_us"`      // microseconds of user's and system's time
	Allocs float64 `json:"allocs"`      // objects
	Bytes  float64 `json:"bytes"`       // of these
	CPUs   float64 `json:"cpu_seconds"` // altogether
}

func costOf(u use, messages int) Cost {
	n := float64(max(messages, 1))
	return Cost{
		CPU: float64(u.CPU.Nanoseconds()) / 1e3 / n, Allocs: float64(u.Objects) / n, Bytes: float64(u.Bytes) / n,
		CPUs: u.CPU.Seconds(),
	}
}

// OpenResult is Open. Latency is from when a post was due.
type OpenResult struct {
	Wanted  int         `json:"wanted_per_second"`
	Rate    float64     `json:"messages_per_second"`
	Latency Percentiles `json:"latency"`
	Late    Percentiles `json:"late"` // from when a post was due to when it began
	Cost    Cost        `json:"cost"`
}

// PullResult is one case of Pull. Cost is that of a message pulled and reported.
type PullResult struct {
	Phones int         `json:"phones"`
	Page   int         `json:"page"`
	Rate   float64     `json:"messages_per_second"`
	Pull   Percentiles `json:"pull"`
	Report Percentiles `json:"report"`
	Cost   Cost        `json:"cost"`
}

// WakeResult is Wake.
type WakeResult struct {
	Post Percentiles `json:"post"` // from a post to its answer
	Wake Percentiles `json:"wake"` // from the same post to the waiting phone's answer
}

// BacklogResult is Backlog: pulls of pages while so many messages wait.
type BacklogResult struct {
	Page    int         `json:"page"`
	Few     int         `json:"few"`
	Many    int         `json:"many"`
	PullFew Percentiles `json:"pull_few"`
	PullAll Percentiles `json:"pull_many"`
	Ratio   float64     `json:"ratio"` // of the medians
}

// RebuildRun is one projection rebuilt.
type RebuildRun struct {
	Projection string  `json:"projection"`
	Events     uint64  `json:"events"`
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"events_per_second"`
}

// sample is what happened in some time.
type sample struct {
	messages int
	took     time.Duration
	latency  *latency
	used     use
	behind   time.Duration
}

func (s sample) rate() float64 { return perSecond(s.messages, s.took) }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// side sums up rounds.
func side(rounds []sample) Side {
	all := sample{latency: newLatency()}
	var rates []float64
	for _, s := range rounds {
		all.messages += s.messages
		all.used = all.used.plus(s.used)
		all.latency.add(s.latency)
		rates = append(rates, s.rate())
	}
	return Side{Rate: median(rates), Latency: all.latency.percentiles(), Cost: costOf(all.used, all.messages)}
}

// ratio is the median of a's rate by b's, round by round: what slows the
// machine down for a while slows both down.
func ratio(a, b []sample) float64 {
	var ratios []float64
	for i := range a {
		if r := b[i].rate(); r > 0 {
			ratios = append(ratios, a[i].rate()/r)
		}
	}
	return median(ratios)
}

func median[N cmp.Ordered](all []N) N {
	var zero N
	if len(all) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// Target is what the product should reach.
type Target struct {
	Name string  `json:"name"`
	Want float64 `json:"want"`
	Got  float64 `json:"got"`
	Most bool    `json:"most,omitempty"` // Want is the most, not the least
	Met  bool    `json:"met"`
}

// targets holds a result to what the product should reach on any machine that
// is not busy otherwise.
func targets(r Result) []Target {
	var all []Target
	least := func(name string, want, got float64) { all = append(all, Target{name, want, got, false, got >= want}) }
	most := func(name string, want, got float64) { all = append(all, Target{name, want, got, true, got <= want}) }
	for _, a := range r.Accept {
		name := fmt.Sprintf("accept %d × %d, share of the bare handler", a.Senders, a.Batch)
		switch {
		case a.Senders == 32 && a.Batch == 1:
			least(name, 0.75, a.OfBare)
		case a.Senders == 256 && a.Batch == 1:
			least(name, 0.70, a.OfBare)
		case a.Batch == 200:
			least(name, 0.60, a.OfBare)
		}
	}
	for _, p := range r.Pull {
		if p.Phones == 1 && p.Page == 100 {
			least("pull and report 1 × 100, messages/s", 5000, p.Rate)
		}
		if p.Phones == 1 && p.Page == 200 {
			most("pull of 200, median in ms", 5, float64(p.Pull.P50)/1e3)
		}
	}
	if r.Backlog != nil {
		most(fmt.Sprintf("pull of %d with %d waiting by that with %d", r.Backlog.Page, r.Backlog.Many, r.Backlog.Few), 1.5, r.Backlog.Ratio)
	}
	for _, b := range r.Rebuild {
		if b.Projection == dispatcherProjection {
			least("rebuild of the dispatcher's projection, events/s", 100_000, b.Rate)
		}
	}
	return all
}
