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

// Simulate runs f in a synctest bubble in which engines can start and stop. Use
// it instead of synctest.Test, and not beside tests that run in parallel.
func Simulate(t *testing.T, f func(*testing.T)) {
	t.Helper()
	SimulateFrom(t, time.Time{}, f)
}

// SimulateFrom is Simulate where it is begin or later; a bubble of its own
// begins in 2000.
func SimulateFrom(t *testing.T, begin time.Time, f func(*testing.T)) {
	t.Helper()
	if !engineTimeUsers.CompareAndSwap(0, 1) {
		t.Fatal("an engine runs outside the bubble")
	}
	defer engineTimeUsers.Store(0)
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		// A stopped engine's flushers end a few milliseconds after it, and
		// time stands still once the test is over.
		t.Cleanup(func() { time.Sleep(time.Second) })
		time.Sleep(time.Until(begin))
		defer moveEngineTime()()
		f(t)
	})
}

// emptyPools drops the used timers that nats.go keeps: those of a bubble must
// not be used outside it, nor the other way round.
func emptyPools() {
	runtime.GC()
	runtime.GC() // what the first one spared
}

// The engine ages messages out, claims too, by a clock that its package ats
// moves. The goroutine that does so cannot live in a bubble, for it waits on a
// channel of the package's, and outside it tells the real time, by which all
// that lives in a bubble is long over. So it is kept from starting, and the
// bubble moves the clock itself.

//go:linkname engineTime github.com/nats-io/nats-server/v2/server/ats.utime
var engineTime atomic.Int64

//go:linkname engineTimeUsers github.com/nats-io/nats-server/v2/server/ats.refs
var engineTimeUsers atomic.Int64

// moveEngineTime moves the clock until it is told to stop.
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
