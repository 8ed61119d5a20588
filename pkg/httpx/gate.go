package httpx

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// Gate bounds what requests of one kind take up together. What comes over it is told to come again: in a line that
// only gets longer everybody would wait until nobody can be answered in time.
type Gate struct {
	requests, bytes int64 // bounds
	inside, held    atomic.Int64
}

// NewGate makes a gate for so many requests at a time, and so many bytes of their bodies.
func NewGate(requests int, bytes int64) *Gate {
	return &Gate{requests: int64(requests), bytes: bytes}
}

var errOverloaded = &fault.Error{
	Kind: fault.Unavailable, Code: "overloaded", Text: "Too many requests are under way, try again", RetryAfter: time.Second,
}

// Enter reads a request's body, as ReadBody does, and lets the request in; the caller leaves when it is answered.
// Where there are too many inside the error is a fault Unavailable, "overloaded". A request whose body is still on its
// way counts only what has come of it: slow senders keep nobody out.
func (g *Gate) Enter(r *http.Request, limit int64) (body []byte, leave func(), err error) {
	if g.inside.Load() >= g.requests { // before anything is read, which is cheap
		return nil, nil, errOverloaded
	}
	var own int64
	body, err = readBody(r, limit, func(more int64) error {
		if g.held.Add(more) > g.bytes {
			g.held.Add(-more)
			return errOverloaded
		}
		own += more
		return nil
	})
	if err == nil && g.inside.Add(1) > g.requests {
		g.inside.Add(-1)
		err = errOverloaded
	}
	if err != nil {
		g.held.Add(-own)
		return nil, nil, err
	}
	return body, func() {
		g.inside.Add(-1)
		g.held.Add(-own)
	}, nil
}
