package bustest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// givenPorts are the ports that FreePorts has given to tests of this process. Nobody may listen on them just now.
var givenPorts sync.Map

// FreePorts gives n ports of 127.0.0.1 on which nobody listens. A test may stop and
// begin to listen on them again and again: they are below the ports that the system
// gives to those who ask for any, so nobody else gets them meanwhile. No port is given
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
