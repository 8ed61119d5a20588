package demo

import (
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/trunkline-sms/trunkline/pkg/table"
)

// Result is what became of the messages.
type Result struct {
	Accepted  int // answered with 200
	Delivered int // a phone said success
	Failed    int // a phone said failure
	Lost      int // accepted, and never reported
	Doubled   int // handed out more than once

	AcceptRate, DeliverRate float64                 // messages a second
	Posts, Through          *hdrhistogram.Histogram // microseconds: of a request; from accepted to reported
}

// Err is an error unless each message was handed out exactly once.
func (r Result) Err() error {
	if r.Lost != 0 || r.Doubled != 0 {
		return fmt.Errorf("%d messages lost and %d handed out twice, where both must be 0: please report this with the log (--log)", r.Lost, r.Doubled)
	}
	return nil
}

// Print writes the result as a table.
func (r Result) Print(out io.Writer) error {
	t := table.Table{Right: true}
	t.Row("accepted", r.Accepted, perSecond(r.AcceptRate))
	t.Row("delivered", r.Delivered, perSecond(r.DeliverRate))
	t.Row("failed", r.Failed, "")
	t.Row("lost", r.Lost, "")
	t.Row("handed out twice", r.Doubled, "")
	t.Line("")
	t.Row("", "p50", "p95", "p99", "max")
	for _, row := range []struct {
		name string
		h    *hdrhistogram.Histogram
	}{{"POST", r.Posts}, {"accepted to reported", r.Through}} {
		t.Row(row.name, micros(row.h.ValueAtQuantile(50)), micros(row.h.ValueAtQuantile(95)), micros(row.h.ValueAtQuantile(99)), micros(row.h.Max()))
	}
	return t.Print(out)
}

func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }

func micros(n int64) string {
	d := time.Duration(n) * time.Microsecond
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
