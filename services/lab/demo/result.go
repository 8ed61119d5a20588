package demo

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
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
	var text bytes.Buffer
	fmt.Fprintf(&text, "accepted\t%d\t%.0f/s\t\n", r.Accepted, r.AcceptRate)
	fmt.Fprintf(&text, "delivered\t%d\t%.0f/s\t\n", r.Delivered, r.DeliverRate)
	fmt.Fprintf(&text, "failed\t%d\t\t\n", r.Failed)
	fmt.Fprintf(&text, "lost\t%d\t\t\n", r.Lost)
	fmt.Fprintf(&text, "handed out twice\t%d\t\t\n\n", r.Doubled)
	fmt.Fprintf(&text, "\tp50\tp95\tp99\tmax\t\n")
	for _, row := range []struct {
		name string
		h    *hdrhistogram.Histogram
	}{{"POST", r.Posts}, {"accepted to reported", r.Through}} {
		fmt.Fprintf(&text, "%s\t%s\t%s\t%s\t%s\t\n", row.name,
			micros(row.h.ValueAtQuantile(50)), micros(row.h.ValueAtQuantile(95)), micros(row.h.ValueAtQuantile(99)), micros(row.h.Max()))
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if _, err := text.WriteTo(t); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return t.Flush()
}

func micros(n int64) string {
	d := time.Duration(n) * time.Microsecond
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
