package httpx

import (
	"net/http"
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// Limit: where room is short, a body that brings less than 4 KiB in 5 s makes room for anybody. Beyond it: 503
// overloaded for it.
// Used up by: a client that stands still. Hurts: that client alone. Test: TestLimiter_HalfSentBodies.
const stalledFor = 5 * time.Second

// Limiter bounds the requests of one kind that are under way, and the memory that they use together: their bodies as far
// as they have come, and what is built from them. No sender may have more than he leaves to others, so a newcomer finds
// room, however many were there before him. A request that finds no room is rejected at once and may come again. In a
// queue that only grows, all would wait until nobody can be answered in time.
//
// Where room is short, bodies that are still on their way make it, the slowest first. These may be bodies of the sender
// who needs the room, and of senders who have at least as much as he. A body that has stalled makes room for anybody.
type Limiter struct {
	requests int   // bound
	bytes    int64 // bound

	mu     sync.Mutex
	inside int
	held   int64
	of     map[string]*sender
	coming map[*Place]struct{} // whose bodies are on their way
}

// sender is what one sender's requests use.
type sender struct {
	places int // of requests whose bodies are on their way, of requests inside, and of answers
	inside int
	held   int64
}

// NewLimiter makes a limiter for so many requests at a time, and so many bytes of memory that they use.
func NewLimiter(requests int, bytes int64) *Limiter {
	return &Limiter{requests: requests, bytes: bytes, of: map[string]*sender{}, coming: map[*Place]struct{}{}}
}

var errOverloaded = &fault.Error{
	Kind: fault.Unavailable, Code: "overloaded", Text: "Too many requests are under way, try again", RetryAfter: time.Second,
}

// Place is what one request, or one answer, has of a Limiter. A request has it from the first byte of its body until
// Leave.
type Place struct {
	limiter *Limiter
	who     string
	of      *sender
	control *http.ResponseController

	// Under the limiter's lock.
	held    int64
	step    time.Time // when the last step of the body had come
	extends time.Time // when its deadline was moved last
	lost    bool      // it had to make room
	answers bool      // it is for an answer, not for a body
}

// Enter reads a request's body of at most limit bytes, and lets the request in. The caller calls Leave when the request
// is answered. While its body is on its way, a request is not among those under way, and only the bytes that have come
// count: slow senders keep nobody out.
//
// A body may take as long as it needs while 4 KiB of it, or its end, come every 15 s. The error is fault.TooLarge for a
// body of more than limit bytes (before any of it is read, if the header announces it), and fault.Invalid for one that
// breaks off. It is fault.Unavailable, "overloaded", where too many requests are under way, or too many of this sender.
func (l *Limiter) Enter(w http.ResponseWriter, r *http.Request, limit int64, who string) (body []byte, p *Place, err error) {
	if p = l.begin(w, who); p == nil { // rejected before anything is read, which is cheap
		return nil, nil, errOverloaded
	}
	begun := p.step
	body, err = readBody(r, limit, p)
	if time.Since(begun) > extendEvery {
		_ = p.control.SetWriteDeadline(time.Now().Add(answerWithin)) // a slow body does not use up the time to answer
	}
	if err == nil {
		err = p.enter()
	}
	if err != nil {
		p.Leave()
		return nil, nil, err
	}
	return body, p, nil
}

// Weigh takes room for so many bytes. Call it before they are allocated, and again for more. The error is
// fault.Unavailable, "overloaded", where there is no room.
func (p *Place) Weigh(bytes int64) error { return p.take(bytes) }

// Leave gives back all that the place has. It is called once.
func (p *Place) Leave() {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, coming := l.coming[p]; coming || p.answers {
		delete(l.coming, p)
	} else {
		l.inside--
		p.of.inside--
	}
	l.give(p)
	if p.of.places--; p.of.places == 0 {
		delete(l.of, p.who)
	}
}

// begin gives a place to a body that is about to come; nil: there is no room for its request.
func (l *Limiter) begin(w http.ResponseWriter, who string) *Place {
	p := &Place{limiter: l, who: who, control: http.NewResponseController(w), step: time.Now()}
	p.extends = p.step
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.of = l.of[who]; p.of == nil {
		p.of = &sender{}
	}
	if !l.admits(p.of) {
		return nil
	}
	l.of[who] = p.of
	p.of.places++
	l.coming[p] = struct{}{}
	return p
}

// enter lets the request in: its body has come.
func (p *Place) enter() error {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.lost || !l.admits(p.of) {
		return errOverloaded
	}
	delete(l.coming, p)
	l.inside++
	p.of.inside++
	return nil
}

// admits reports whether there is room for one more request of a sender: he has fewer inside than he leaves to others.
func (l *Limiter) admits(s *sender) bool { return s.inside < l.requests-l.inside }

// take takes room for more bytes. Slow bodies may have to make it.
func (p *Place) take(more int64) error {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	for !p.lost && p.of.held+more > l.bytes-l.held-more {
		slow := l.slowest(p, more)
		if slow == nil {
			return errOverloaded
		}
		slow.lost = true
		l.give(slow)
		slow.cutOff()
	}
	if p.lost {
		return errOverloaded
	}
	p.held += more
	p.of.held += more
	l.held += more
	return nil
}

// slowest gives the place that has to make room where p needs more. It is nil where there is none, and where p itself is
// the slowest.
func (l *Limiter) slowest(p *Place, more int64) *Place {
	var slow *Place
	stalled := time.Now().Add(-stalledFor)
	for one := range l.coming {
		mayLose := one.step.Before(stalled) || !one.answers && (one.of == p.of || one.of.held >= p.of.held+more)
		if mayLose && !one.lost && one != p && (slow == nil || one.step.Before(slow.step)) {
			slow = one
		}
	}
	if _, coming := l.coming[p]; coming && slow != nil && p.step.Before(slow.step) {
		return nil
	}
	return slow
}

func (l *Limiter) give(p *Place) {
	l.held -= p.held
	p.of.held -= p.held
	p.held = 0
}

func (p *Place) hasLost() bool {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	return p.lost
}

// stepped notes that a step of the body has come, and gives the body time for the next one.
func (p *Place) stepped() {
	now := time.Now()
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.lost {
		return
	}
	p.step = now
	if now.Sub(p.extends) >= extendEvery {
		p.extends = now
		_ = p.control.SetReadDeadline(now.Add(stepWithin))
	}
}
