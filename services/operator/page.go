package operator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// page is what a command prints for people: rows whose cells stand below each
// other, down to the next empty line.
type page struct{ text bytes.Buffer }

func (p *page) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			p.text.WriteByte('\t')
		}
		fmt.Fprint(&p.text, cell)
	}
	p.text.WriteByte('\n')
}

func (p *page) gap() { p.text.WriteByte('\n') }

func (p *page) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := p.text.WriteTo(t)
	if err == nil {
		err = t.Flush()
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// say prints a line.
func (t *Terminal) say(format string, args ...any) error {
	if _, err := fmt.Fprintf(t.Out, format+"\n", args...); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// warn prints a line that is no result.
func (t *Terminal) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(t.Err, "warning: "+format+"\n", args...)
}

func (t *Terminal) printJSON(v any) error {
	if err := json.NewEncoder(t.Out).Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
