// Package httpx is the HTTP server's mechanism: limits, a stop that loses no answer, access log, health, headers.
package httpx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ServerOptions says what to serve. A zero limit means the default beside it.
type ServerOptions struct {
	Listener net.Listener // required; Serve closes it
	Handler  http.Handler
	Log      *zap.Logger

	ReadHeaderTimeout time.Duration // 5 s
	ReadTimeout       time.Duration // 15 s, headers and body; a Gate gives a body more while it comes
	WriteTimeout      time.Duration // 60 s, from the headers' end, or that of a body that took its time; above the longest poll
	IdleTimeout       time.Duration // 120 s
	MaxHeaderBytes    int           // 16 KiB
	MaxConnections    int           // 8,192, and of one network no more than it leaves to others: beyond it idle ones are closed, or else new ones
	Proxies           Proxies       // whose connections are many clients'
	Grace             time.Duration // 4 s, for requests in flight at the end
}

// cutOff is how long Serve waits after Grace, once for handlers whose context it has cancelled, and again for those
// whose connection it has closed.
const cutOff = 500 * time.Millisecond

// Serve answers requests until ctx is done. Then it takes no more, gives those in flight Grace to finish, cancels
// the contexts of the others, and returns when all have returned. A stop is no error; a handler that still runs a
// second after Grace is.
//
// The contexts of requests do not end with ctx, only with Grace: see Stopping.
func Serve(ctx context.Context, o ServerOptions) error {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopping := make(chan struct{})
	conns := &connections{
		state: map[net.Conn]http.ConnState{}, from: map[netip.Prefix]int{}, most: or(o.MaxConnections, 8192), proxies: o.Proxies,
	}
	errorLog, _ := zap.NewStdLogAt(o.Log, zap.WarnLevel) // fails for an unknown level only
	srv := &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: or(o.ReadHeaderTimeout, 5*time.Second),
		ReadTimeout:       or(o.ReadTimeout, stepWithin),
		WriteTimeout:      or(o.WriteTimeout, answerWithin),
		IdleTimeout:       or(o.IdleTimeout, 120*time.Second),
		MaxHeaderBytes:    or(o.MaxHeaderBytes, 16<<10),
		ErrorLog:          errorLog,
		ConnState:         conns.changed,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(base, stoppingKey{}, (<-chan struct{})(stopping))
		},
	}

	var served error
	ended := make(chan struct{})
	go func() {
		served = srv.Serve(o.Listener)
		close(ended)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}

	close(stopping)
	conns.stop()
	grace, done := context.WithTimeout(context.Background(), or(o.Grace, 4*time.Second))
	defer done()
	if err := srv.Shutdown(grace); err != nil && grace.Err() != nil {
		o.Log.Warn("requests cut off", zap.Int("connections", conns.count()))
		cancel()
		conns.wait(cutOff) // a handler that heeds its context still gets its answer out
		_ = srv.Close()
	}
	<-ended
	if n := conns.wait(cutOff); n > 0 {
		return fmt.Errorf("stop http: %d requests do not end", n)
	}
	if !errors.Is(served, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", served)
	}
	return nil
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

type stoppingKey struct{}

// Stopping is closed when the server that serves this request begins to stop: a long poll answers then, with what
// it has, instead of being cut off. Outside a request of Serve it is nil, which blocks for ever.
func Stopping(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return c
}

// connections knows every open connection. http.Server.Shutdown alone is not enough: it waits 5 s for a connection
// on which no request has come, and it does not wait for the goroutines of those it closes.
type connections struct {
	mu       sync.Mutex
	state    map[net.Conn]http.ConnState
	from     map[netip.Prefix]int // of them, by network; those of proxies aside
	most     int
	proxies  Proxies
	stopping bool
	empty    chan struct{} // made by wait, closed when the last one goes
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := c.network(conn)
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.state, conn)
		if c.from[from]--; c.from[from] <= 0 {
			delete(c.from, from)
		}
		if c.empty != nil && len(c.state) == 0 {
			close(c.empty)
			c.empty = nil
		}
		return
	case http.StateNew:
		// A network has no more than it leaves to others: one alone half of them all, of two each a third.
		crowded := from.IsValid() && c.from[from] >= c.most-len(c.state)
		c.from[from]++
		switch {
		case c.stopping:
			_ = conn.Close()
		case crowded:
			_ = c.spare(conn, from).Close()
		case len(c.state) >= c.most:
			_ = c.spare(conn, netip.Prefix{}).Close()
		}
	default:
	}
	c.state[conn] = state
}

// network is where a connection comes from: none for a proxy's, or where that is not known.
func (c *connections) network(conn net.Conn) netip.Prefix {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	at := tcp.AddrPort().Addr().Unmap()
	if c.proxies.trust(at) {
		return netip.Prefix{}
	}
	return network(at)
}

// spare is the connection to close where there are too many, or too many from a network: one on which nothing is asked,
// else the new one.
func (c *connections) spare(fresh net.Conn, from netip.Prefix) net.Conn {
	looked := 0
	for conn, state := range c.state {
		if state == http.StateIdle && (!from.IsValid() || c.network(conn) == from) {
			c.state[conn] = http.StateClosed // not twice
			return conn
		}
		if looked++; looked == 64 { // under load hardly one is idle, and a crowd that comes must cost little
			break
		}
	}
	return fresh
}

func (c *connections) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	for conn, state := range c.state {
		if state == http.StateNew {
			_ = conn.Close()
		}
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.state)
}

// wait returns how many connections are left when all are gone or the time is over.
func (c *connections) wait(d time.Duration) int {
	c.mu.Lock()
	if len(c.state) == 0 {
		c.mu.Unlock()
		return 0
	}
	empty := make(chan struct{})
	c.empty = empty
	c.mu.Unlock()

	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-empty:
	case <-over.C:
	}
	return c.count()
}
