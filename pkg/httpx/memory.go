package httpx

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// Memory is a listener inside the process. Tests in simulated time need it: there a real socket cannot be used.
type Memory struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

// NewMemory returns a listener that is open.
func NewMemory() *Memory {
	return &Memory{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept waits for a Dial.
func (m *Memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial with net.ErrClosed. Open connections stay open.
func (m *Memory) Close() error {
	m.close.Do(func() { close(m.done) })
	return nil
}

// Addr gives an address that names no host.
func (m *Memory) Addr() net.Addr { return memoryAddr{} }

// Dial connects to the listener. It fails with net.ErrClosed when that is closed, and with ctx.
func (m *Memory) Dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	var err error
	select {
	case m.conns <- server:
		return client, nil
	case <-m.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = client.Close(), server.Close()
	return nil, err
}

// Client returns an HTTP client that reaches the listener whatever host a URL names. Close its idle connections
// when done.
func (m *Memory) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx) },
	}}
}

type memoryAddr struct{}

// Network and String make it a net.Addr.
func (memoryAddr) Network() string { return "memory" }

// String gives the only address that there is.
func (memoryAddr) String() string { return "memory" }
