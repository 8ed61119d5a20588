// Package bustest starts a real engine for a test.
package bustest

import (
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
)

// New starts an empty engine in a directory of the test, in process only. It ends with
// the test.
func New(t testing.TB) *bus.Bus {
	t.Helper()
	server, b := Start(t, t.TempDir())
	t.Cleanup(server.Stop)
	return b
}

// Start starts an engine on dir, in process only. The caller stops it.
func Start(t testing.TB, dir string) (*natsd.Server, *bus.Bus) {
	t.Helper()
	// These tests are about what the engine does, not about the disk.
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
