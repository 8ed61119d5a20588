package httpx

import (
	"net/http"
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// stalledFor is how long a body may bring less than a step, before it may lose its place to anybody who needs
// the room. Used up by a client that stands still; it alone loses its place.
const stalledFor = 5 * time.Second

// Limiter bounds what requests of one kind take up together: their bodies as far as they have come, and what is made of
// them. Nobody may take up more than he leaves to others, so who comes new finds room, however many were there before.
// What comes over that is told to come again: in a line that only gets longer everybody would wait until nobody can be
// answered in time.
//
// Where room is short, it is made by bodies that are still on their way, the slowest first: those of the sender who
// needs it, of senders who hold as much, and of anybody if they have stalled.
type Limiter struct {
	requests int   // bound
	bytes    int64 // bound

	mu     sync.Mutex
	inside int
	held   int64
	of     map[string]*sender
	coming map[*Place]struct{} // whose bodies are on their way
}

// sender is what one takes up.
type sender struct {
	places int // whose bodies come, or are inside
	inside int
	held   int64
}

// NewLimiter makes a limiter for so many requests at a time, and so many bytes of what they take up.
func NewLimiter(requests int, bytes int64) *Limiter {
	return &Limiter{requests: requests, bytes: bytes, of: map[string]*sender{}, coming: map[*Place]struct{}{}}
}

var errOverloaded = &fault.Error{
	Kind: fault.Unavailable, Code: "overloaded", Text: "Too many requests are under way, try again", RetryAfter: time.Second,
}

// Place is a request's, from the first byte of its body until it leaves.
type Place struct {
	limiter *Limiter
	who     string
	of      *sender
	control *http.ResponseController

	// Under the limiter's lock.
	held    int64
	step    time.Time // when the last step of the body had come
	extends time.Time // when its deadline was moved last
	lost    bool      // it was told to make room
	answers bool      // it is for an answer, not for a body
}

// Enter reads a request's body of at most limit bytes, and lets the request in; the caller leaves the place when it is
// answered. A request whose body is still on its way counts with what has come of it: slow senders keep nobody out.
//
// A body may take as long as it needs while it brings a step of 4 KiB, or its end, every 15 s. One of more than limit
// bytes is fault.TooLarge, found out before it is read where the header tells; one that breaks off is fault.Invalid.
// Where too many are inside, or too much of the same sender, the error is a fault Unavailable, "overloaded".
func (l *Limiter) Enter(w http.ResponseWriter, r *http.Request, limit int64, who string) (body []byte, p *Place, err error) {
	if p = l.begin(w, who); p == nil { // before anything is read, which is cheap
		return nil, nil, errOverloaded
	}
	begun := p.step
	body, err = readBody(r, limit, p)
	if time.Since(begun) > extendEvery {
		_ = p.control.SetWriteDeadline(time.Now().Add(answerWithin)) // the time of the body is not that of the answer
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

// Weigh takes room for what will be made of the request, before it is made. The error is a fault Unavailable,
// "overloaded". It may be called again, for more.
func (p *Place) Weigh(bytes int64) error { return p.take(bytes) }

// Leave gives back all that the request took up.
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

// begin gives a place to a body that is about to come, or none.
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

// enter is when the body has come.
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

// admits says whether there is room for one more request of a sender.
func (l *Limiter) admits(s *sender) bool { return s.inside < l.requests-l.inside }

// take takes room, which slow bodies may have to make.
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

// slowest is the body that has to make room where p needs more: none where that is p itself.
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

// stepped notes that a step of the body has come, and gives it time for the next.
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
