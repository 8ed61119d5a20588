package httpx

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections knows every open connection. http.Server.Shutdown alone is not enough: it waits 5 s for connections on
// which no request has come, and it does not wait for the goroutines of the connections that it closes.
type connections struct {
	mu       sync.Mutex
	open     map[net.Conn]*connection
	most     int
	stopping bool
	empty    chan struct{} // made by wait, closed when the last one goes
}

// connection is what is known of one connection.
type connection struct {
	state  http.ConnState
	asked  bool   // a request of it has reached a handler
	who    string // the sender of its last request; empty: a stranger, or not known yet
	closed bool   // to make room for another
}

type connectionKey struct{}

// ofRequest is the connection on which a request came, and the connections of its server.
type ofRequest struct {
	all *connections
	one *connection
}

// context puts the connection into the context of its requests, for Admitted.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return context.WithValue(ctx, connectionKey{}, ofRequest{c, c.of(conn)})
}

// of gives what is known of a connection. The caller has the lock.
func (c *connections) of(conn net.Conn) *connection {
	one := c.open[conn]
	if one == nil {
		one = &connection{}
		c.open[conn] = one
	}
	return one
}

// asked notes that a request has come. Its sender is a stranger until Admitted names one.
func (c *connections) asked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if of, ok := r.Context().Value(connectionKey{}).(ofRequest); ok {
			c.mu.Lock()
			of.one.asked, of.one.who = true, ""
			c.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// Admitted tells the server the sender of a request, once that is known. Where there are too many connections, those of
// strangers are closed first. Outside a request of Serve it does nothing.
func Admitted(ctx context.Context, who string) {
	if of, ok := ctx.Value(connectionKey{}).(ofRequest); ok {
		of.all.mu.Lock()
		defer of.all.mu.Unlock()
		of.one.who = who
	}
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
		if c.empty != nil && len(c.open) == 0 {
			close(c.empty)
			c.empty = nil
		}
		return
	case http.StateNew:
		if c.stopping {
			_ = conn.Close()
		} else if len(c.open) > c.most { // context has put it there
			_ = c.spare(conn).Close()
		}
	default:
	}
	c.of(conn).state = state
}

// looked is how many connections spare looks at. They are any 64 of them: with thousands of newcomers a look at all of
// them for each would cost too much.
const looked = 64

// spare picks the connection to close where there are too many, so that as little as possible is lost: one without a
// request yet; else an idle one of a stranger; else a stranger's that has a request under way; else an idle one; else one
// of a sender who has at least half of them. Where there is none of these, the new connection goes itself.
func (c *connections) spare(fresh net.Conn) net.Conn {
	best, rank, n := fresh, 5, 0
	held, most := map[string][]net.Conn{}, ""
	for conn, one := range c.open {
		if one.closed || conn == fresh {
			continue
		}
		own := 4
		switch idle := one.state == http.StateIdle; {
		case !one.asked:
			own = 0
		case one.who == "" && idle:
			own = 1
		case one.who == "":
			own = 2
		case idle:
			own = 3
		default:
			held[one.who] = append(held[one.who], conn)
			if len(held[one.who]) > len(held[most]) {
				most = one.who
			}
		}
		if own < 4 && own < rank {
			best, rank = conn, own
		}
		if n++; n == looked || rank == 0 {
			break
		}
	}
	if rank == 5 && n > 0 && len(held[most]) >= (n+1)/2 {
		best = held[most][0]
	}
	if one := c.open[best]; one != nil {
		one.closed = true // not twice
	}
	return best
}

func (c *connections) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	for conn, one := range c.open {
		if one.state == http.StateNew {
			_ = conn.Close()
		}
	}
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// wait waits until no connection is left, for at most d, and returns how many are left.
func (c *connections) wait(d time.Duration) int {
	c.mu.Lock()
	if len(c.open) == 0 {
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
