package bench

import (
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latency collects how long things took, for many goroutines at a time.
type latency struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram // microseconds
}

const (
	longest = time.Minute // what takes longer counts as this
	digits  = 3
)

func newLatency() *latency {
	return &latency{h: hdrhistogram.New(1, longest.Microseconds(), digits)}
}

func (l *latency) record(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.h.RecordValue(min(max(d, time.Microsecond), longest).Microseconds()) // within the bounds
}

// add takes over what another one has collected.
func (l *latency) add(other *latency) { l.h.Merge(other.h) }

func (l *latency) encode() ([]byte, error) {
	data, err := l.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode a histogram: %w", err)
	}
	return data, nil
}

func decodeLatency(data []byte) (*latency, error) {
	h, err := hdrhistogram.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode a histogram: %w", err)
	}
	return &latency{h: h}, nil
}

func (l *latency) percentiles() Percentiles {
	at := func(q float64) Micros { return Micros(l.h.ValueAtQuantile(q)) }
	return Percentiles{Count: l.h.TotalCount(), P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: Micros(l.h.Max())}
}

// Percentiles are of how long something took.
type Percentiles struct {
	Count int64  `json:"count"`
	P50   Micros `json:"p50_us"`
	P90   Micros `json:"p90_us"`
	P99   Micros `json:"p99_us"`
	P999  Micros `json:"p999_us"`
	Max   Micros `json:"max_us"`
}

// Micros are microseconds.
type Micros int64

// String gives three digits and a unit.
func (m Micros) String() string {
	switch {
	case m < 10_000:
		return fmt.Sprintf("%.2f ms", float64(m)/1e3)
	case m < 100_000:
		return fmt.Sprintf("%.1f ms", float64(m)/1e3)
	case m < 1_000_000:
		return fmt.Sprintf("%.0f ms", float64(m)/1e3)
	}
	return fmt.Sprintf("%.2f s", float64(m)/1e6)
}
