package bustest

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "unsafe" // for linkname

	_ "github.com/nats-io/nats-server/v2/server/ats" // has what is linked to
)

// Simulate runs f in a synctest bubble in which engines can start and stop. Use it
// instead of synctest.Test. No other test may run in parallel with it.
func Simulate(t *testing.T, f func(*testing.T)) {
	t.Helper()
	SimulateFrom(t, time.Time{}, f)
}

// SimulateFrom is Simulate with a clock that begins at begin or later. The clock of
// Simulate begins in the year 2000.
func SimulateFrom(t *testing.T, begin time.Time, f func(*testing.T)) {
	t.Helper()
	if !engineTimeUsers.CompareAndSwap(0, 1) {
		t.Fatal("an engine runs outside the bubble")
	}
	defer engineTimeUsers.Store(0)
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		// The flushers of a stopped engine end a few milliseconds after it, but time
		// stands still once the test is over.
		t.Cleanup(func() { time.Sleep(time.Second) })
		time.Sleep(time.Until(begin))
		defer moveEngineTime()()
		f(t)
	})
}

// emptyPools drops the timers that nats.go pools: a timer from inside a bubble must not
// be used outside it, nor the other way round.
func emptyPools() {
	runtime.GC()
	runtime.GC() // the first run only moves pools aside
}

// The engine ages out messages, and so claims too, by a clock of its package ats, which
// a goroutine moves. That goroutine cannot run in a bubble, since it waits on a channel
// of the package. Outside it would tell the real time, at which everything in the bubble
// is long over. So it is kept from starting, and the bubble moves the clock itself.

//go:linkname engineTime github.com/nats-io/nats-server/v2/server/ats.utime
var engineTime atomic.Int64

//go:linkname engineTimeUsers github.com/nats-io/nats-server/v2/server/ats.refs
var engineTimeUsers atomic.Int64

// moveEngineTime moves the clock until stop is called.
func moveEngineTime() (stop func()) {
	engineTime.Store(time.Now().UnixNano())
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stopping:
				return
			case <-tick.C:
				engineTime.Store(time.Now().UnixNano())
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}
