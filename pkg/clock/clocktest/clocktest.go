// Package clocktest steps the clock of a machine, for tests.
package clocktest

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Stepped is a machine's clock that a test steps, in a bubble of synctest too.
// As on a real machine a step moves the wall clock and leaves the monotonic one
// alone.
type Stepped struct{ by atomic.Int64 }

// reading is how package time keeps a time that has both readings: a flag, 33
// bits of seconds and 30 of nanoseconds; the monotonic reading; the location.
// No function of that package moves one of the two readings alone, and the
// times of a bubble have only one.
type reading struct {
	wall uint64
	mono int64
	loc  *time.Location
}

const (
	hasMono  = 1 << 63
	secondAt = 30
)

var firstSecond = time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// Now reads the clock.
func (s *Stepped) Now() time.Time {
	now := time.Now()
	begun := reading{wall: hasMono}
	r := reading{
		wall: hasMono | uint64(now.Unix()+s.by.Load()-firstSecond)<<secondAt | uint64(now.Nanosecond()),
		mono: int64(time.Since(*(*time.Time)(unsafe.Pointer(&begun)))), //nolint:gosec // as package time keeps it
		loc:  time.Local,
	}
	return *(*time.Time)(unsafe.Pointer(&r)) //nolint:gosec // as package time keeps it
}

// Step moves the wall clock by whole seconds, forward or back.
func (s *Stepped) Step(by time.Duration) { s.by.Add(int64(by / time.Second)) }

// Right puts the wall clock right.
func (s *Stepped) Right() { s.by.Store(0) }
