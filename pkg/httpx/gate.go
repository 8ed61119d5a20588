package httpx

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// Gate bounds what requests of one kind take up together, and lets nobody take up more than half of it. What comes
// over it is told to come again: in a line that only gets longer everybody would wait until nobody can be answered in
// time.
type Gate struct {
	requests int   // bound
	bytes    int64 // bound
	held     atomic.Int64

	mu     sync.Mutex
	inside int
	of     map[string]int // of them, by who sent them
}

// NewGate makes a gate for so many requests at a time, and so many bytes of their bodies.
func NewGate(requests int, bytes int64) *Gate {
	return &Gate{requests: requests, bytes: bytes, of: map[string]int{}}
}

var errOverloaded = &fault.Error{
	Kind: fault.Unavailable, Code: "overloaded", Text: "Too many requests are under way, try again", RetryAfter: time.Second,
}

// Enter reads a request's body, as ReadBody does, and lets the request in; the caller leaves when it is answered.
// Where there are too many inside, or too many of the same sender, the error is a fault Unavailable, "overloaded". A
// request whose body is still on its way counts only what has come of it: slow senders keep nobody out.
func (g *Gate) Enter(r *http.Request, limit int64, who string) (body []byte, leave func(), err error) {
	if !g.enter(who, 0) { // before anything is read, which is cheap
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
	if err == nil && !g.enter(who, 1) {
		err = errOverloaded
	}
	if err != nil {
		g.held.Add(-own)
		return nil, nil, err
	}
	return body, func() {
		g.leave(who)
		g.held.Add(-own)
	}, nil
}

// enter says whether there is room for one more, and counts n.
func (g *Gate) enter(who string, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside >= g.requests || g.of[who] >= max(g.requests/2, 1) {
		return false
	}
	if n > 0 {
		g.inside += n
		g.of[who] += n
	}
	return true
}

func (g *Gate) leave(who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.of[who]--; g.of[who] == 0 {
		delete(g.of, who)
	}
}
