package bustest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreePorts gives n ports of 127.0.0.1 that nobody listens on, for who listens
// on them again and again. They are below those that the system gives to who
// asks for any, so that no other one gets them in between.
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
		defer l.Close() // until all are there, so that none comes twice
		ports = append(ports, port)
	}
	t.Fatal("no free ports")
	return nil
}
