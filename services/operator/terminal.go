package operator

import (
	"encoding/json"
	"fmt"
	"time"
)

// printLine prints a line.
func (t *Terminal) printLine(format string, args ...any) error {
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
