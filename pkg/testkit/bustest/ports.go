package bustest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// givenPorts are those that FreePorts gave to tests of this process, which may not listen just now.
var givenPorts sync.Map

// FreePorts gives n ports of 127.0.0.1 that nobody listens on, for who listens
// on them again and again. They are below those that the system gives to who
// asks for any, so that no other one gets them in between. No port is given
// twice in a process.
func FreePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	const lowest, highest, tries = 10_000, 32_000, 1000
	for range tries {
		if len(ports) == n {
			return ports
		}
		port := lowest + rand.IntN(highest-lowest) //nolint:gosec // need not be unguessable
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			ports = append(ports, port)
		}
	}
	t.Fatal("no free ports")
	return nil
}
