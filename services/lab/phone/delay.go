package phone

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"
)

// Delay is a span of time that is drawn each time, each length from Min
// to Max as likely as another.
type Delay struct{ Min, Max time.Duration }

// UnmarshalText reads one duration, as in 500ms, or two, as in 0s..2s.
func (d *Delay) UnmarshalText(text []byte) error {
	low, high, isRange := strings.Cut(string(text), "..")
	if !isRange {
		high = low
	}
	shortest, err := time.ParseDuration(low)
	longest, err2 := time.ParseDuration(high)
	if err != nil || err2 != nil || shortest < 0 || longest < shortest {
		return errors.New("want a duration, as in 500ms, or a range, as in 0s..2s")
	}
	d.Min, d.Max = shortest, longest
	return nil
}

func (d Delay) draw(r *rand.Rand) time.Duration {
	return d.Min + time.Duration(r.Int64N(int64(d.Max-d.Min)+1))
}
