package httpx

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// CheckClock makes a health check that warns while the machine's clock is doubted, is behind a time that has been, or
// differs from the engines' clocks by more than clock.Bound.
func CheckClock(c *clock.Clock) func(context.Context) Check {
	return func(context.Context) Check {
		_, skew := c.Skew()
		check := Check{Description: "How far the clock differs from the engines'", ObservedUnit: "ms", ObservedValue: int(skew.Milliseconds()), Status: Pass}
		doubt := c.Doubt()
		switch {
		case doubt != 0:
			check.Description, check.ObservedValue = fmt.Sprintf("The machine's clock has stepped by %v, and is not followed until that is confirmed", doubt.Round(time.Second)), int(doubt.Milliseconds())
			check.Status = Warn
		case c.Behind():
			check.Description, check.Status = "The clock is behind a time that has been: the horizon and the month wait", Warn
		case skew.Abs() > clock.Bound:
			check.Description, check.Status = "The clock differs from an engine's: set the one that is wrong right", Warn
		}
		return check
	}
}
