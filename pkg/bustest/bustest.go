// Package bustest starts a real engine for a test.
package bustest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
)

// New starts a fresh engine in a directory of the test, in process only, and
// ends it with the test.
func New(t testing.TB) *bus.Bus {
	t.Helper()
	server, b := Start(t, t.TempDir())
	t.Cleanup(server.Stop)
	return b
}

// Start starts an engine on dir, in process only. The caller stops it.
func Start(t testing.TB, dir string) (*natsd.Server, *bus.Bus) {
	t.Helper()
	// A test asserts what the engine does, not that the disk keeps it.
	server, err := natsd.Start(natsd.Options{Dir: dir, InProcessOnly: true, Durability: "process"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := server.Connect(t.Name())
	if err != nil {
		server.Stop()
		t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		server.Stop()
		t.Fatal(err)
	}
	return server, b
}

var registerTicker = sync.OnceFunc(ats.Register)

// Simulate runs f in a synctest bubble in which engines can start and stop. Use
// it instead of synctest.Test, and not beside tests that run in parallel.
func Simulate(t *testing.T, f func(*testing.T)) {
	t.Helper()
	// The engine's ticker is the process's, so it must not be born in a bubble.
	registerTicker()
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		// A stopped engine's flushers end a few milliseconds after it, and
		// time stands still once the test is over.
		t.Cleanup(func() { time.Sleep(time.Second) })
		f(t)
	})
}

// emptyPools drops the used timers that nats.go keeps: those of a bubble must
// not be used outside it, nor the other way round.
func emptyPools() {
	runtime.GC()
	runtime.GC() // what the first one spared
}
