package quota

import (
	"sync/atomic"
	"testing"
	"time"
	_ "unsafe" // for linkname

	_ "github.com/nats-io/nats-server/v2/server/ats" // has what is linked to
)

// The engine ages messages out, claims too, by a clock that its package ats
// moves every 100 ms. Its goroutine cannot live in a bubble, and outside it
// shows the real time, by which everything in a bubble lapses at once. So it is
// kept from starting, and each world moves the clock itself.

//go:linkname engineTime github.com/nats-io/nats-server/v2/server/ats.utime
var engineTime atomic.Int64

//go:linkname engineTimeUsers github.com/nats-io/nats-server/v2/server/ats.refs
var engineTimeUsers atomic.Int64

// holdEngineTime must come before the first engine.
func holdEngineTime() { engineTimeUsers.Store(1) }

// moveEngineTime moves the clock until the test ends.
func moveEngineTime(t testing.TB) {
	engineTime.Store(time.Now().UnixNano())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				engineTime.Store(time.Now().UnixNano())
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}
