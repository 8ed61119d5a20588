// Package bustest starts a real engine for a test.
package bustest

import (
	"testing"

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
