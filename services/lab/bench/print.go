package bench

import (
	"fmt"
	"io"

	"github.com/trunkline-sms/trunkline/pkg/table"
)

// Print writes the result as tables.
func (r Result) Print(out io.Writer) error {
	t := &table.Table{Right: true}
	t.Line(fmt.Sprintf("%d CPUs, %s, %s, load before %s; took %.0f s", r.Machine.CPUs, r.Machine.System, r.Machine.Go, r.Machine.Load, r.Seconds))
	r.printAccept(t)
	r.printPhones(t)
	if len(r.Rebuild) > 0 {
		title(t, "Projections rebuilt", "projection", "events", "took", "events/s")
		for _, b := range r.Rebuild {
			t.Row(b.Projection, b.Events, fmt.Sprintf("%.2f s", b.Seconds), rate(b.Rate))
		}
	}
	if len(r.Targets) > 0 {
		title(t, "Targets", "", "want", "got", "")
		for _, g := range r.Targets {
			bound, verdict := "≥", "met"
			if g.Most {
				bound = "≤"
			}
			if !g.Met {
				verdict = "missed"
			}
			t.Row(g.Name, bound+" "+number(g.Want), number(g.Got), verdict)
		}
	}
	return t.Print(out)
}

func (r Result) printAccept(t *table.Table) {
	if len(r.Accept) > 0 {
		title(t, "Posts, in a closed loop, messages/s", "senders × batch", "product", "bare handler", "engine", "of bare", "of engine", "p50", "p90", "p99", "max", "behind", "with folding")
		for _, a := range r.Accept {
			l := a.Product.Latency
			t.Row(times(a.Senders, a.Batch), rate(a.Product.Rate), rate(a.Bare.Rate), rate(a.Engine.Rate),
				percent(a.OfBare), percent(a.OfEngine), l.P50, l.P90, l.P99, l.Max, a.Behind, rate(a.Folded))
		}
		title(t, "What a message costs its server", "senders × batch", "CPU product", "bare", "engine", "allocations product", "bare", "engine", "CPU of all, product")
		for _, a := range r.Accept {
			p, b, e := a.Product.Cost, a.Bare.Cost, a.Engine.Cost
			t.Row(times(a.Senders, a.Batch), micros(p.CPU), micros(b.CPU), micros(e.CPU),
				fmt.Sprintf("%.1f", p.Allocs), fmt.Sprintf("%.1f", b.Allocs), fmt.Sprintf("%.1f", e.Allocs), fmt.Sprintf("%.2f s", p.CPUs))
		}
	}
	if o := r.Open; o != nil {
		title(t, fmt.Sprintf("Posts at %d/s", o.Wanted), "", "messages/s", "p50", "p90", "p99", "p99.9", "max", "CPU a message")
		t.Row("from when due to answered", rate(o.Rate), o.Latency.P50, o.Latency.P90, o.Latency.P99, o.Latency.P999, o.Latency.Max, micros(o.Cost.CPU))
		t.Row("from when due to sent", "", o.Late.P50, o.Late.P90, o.Late.P99, o.Late.P999, o.Late.Max, "")
	}
}

func (r Result) printPhones(t *table.Table) {
	if len(r.Pull) > 0 {
		title(t, "Pulls and reports", "phones × page", "messages/s", "pull p50", "p90", "p99", "max", "report p50", "p90", "p99", "max", "CPU a message", "allocations")
		for _, p := range r.Pull {
			t.Row(times(p.Phones, p.Page), rate(p.Rate), p.Pull.P50, p.Pull.P90, p.Pull.P99, p.Pull.Max,
				p.Report.P50, p.Report.P90, p.Report.P99, p.Report.Max, micros(p.Cost.CPU), fmt.Sprintf("%.1f", p.Cost.Allocs))
		}
	}
	spread := func(name string, p Percentiles) { t.Row(name, p.Count, p.P50, p.P90, p.P99, p.Max) }
	if w := r.Wake; w != nil {
		title(t, "From a post", "", "", "p50", "p90", "p99", "max")
		spread("to its answer", w.Post)
		spread("to the waiting phone's", w.Wake)
	}
	if b := r.Backlog; b != nil {
		title(t, fmt.Sprintf("Pulls of %d", b.Page), "", "", "p50", "p90", "p99", "max")
		spread(fmt.Sprintf("%d waiting", b.Few), b.PullFew)
		spread(fmt.Sprintf("%d waiting", b.Many), b.PullAll)
		t.Row("ratio", "", fmt.Sprintf("%.2f", b.Ratio), "", "", "")
	}
}

// title begins a table.
func title(t *table.Table, text string, columns ...any) {
	t.Line("")
	t.Line(text)
	t.Row(columns...)
}

func times(a, b int) string { return fmt.Sprintf("%d × %d", a, b) }

func rate(r float64) string { return fmt.Sprintf("%.0f", r) }

func percent(r float64) string { return fmt.Sprintf("%.0f %%", 100*r) }

func micros(us float64) string { return fmt.Sprintf("%.1f µs", us) }

func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
