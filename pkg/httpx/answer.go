package httpx

import (
	"net/http"
	"strconv"
	"time"
)

// answerStep is how much of a large answer is sent at a time. Each may take stepWithin. Used up by a client
// that does not read, which alone is cut off.
const answerStep = 16 << 10

// Answer gives a place to an answer that is to be made, which holds nothing yet. The caller weighs it before it is made,
// and leaves the place when it is sent.
func (l *Limiter) Answer(w http.ResponseWriter, who string) *Place {
	p := &Place{limiter: l, who: who, control: http.NewResponseController(w), answers: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.of = l.of[who]; p.of == nil {
		p.of = &sender{}
		l.of[who] = p.of
	}
	p.of.places++
	return p
}

// Try takes room as Weigh does, but only while the sender has so little that what others of its answers need is left: a
// sixteenth of all.
func (p *Place) Try(bytes int64) bool {
	p.limiter.mu.Lock()
	little := p.of.held+bytes <= p.limiter.bytes/16
	p.limiter.mu.Unlock()
	return little && p.take(bytes) == nil
}

// Keep gives back what is held beyond so many bytes.
func (p *Place) Keep(bytes int64) {
	p.limiter.mu.Lock()
	more := p.held - bytes
	p.limiter.mu.Unlock()
	if more > 0 {
		_ = p.take(-more)
	}
}

// Send sends the answer. It may take as long as its reader needs, while that one takes a step of it every 15 s; where
// room is short, one who has taken none for 5 s is cut off.
func (p *Place) Send(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	for p.sending(len(body) > answerStep) && len(body) > 0 {
		n, err := w.Write(body[:min(answerStep, len(body))])
		if err != nil {
			return
		}
		body = body[n:]
	}
}

// sending notes that a step of the answer was taken, and gives a large one time for the next.
func (p *Place) sending(large bool) bool {
	now := time.Now()
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.lost {
		return false
	}
	p.step = now
	l.coming[p] = struct{}{}
	if large || !p.extends.IsZero() {
		p.extends = now
		_ = p.control.SetWriteDeadline(now.Add(stepWithin))
	}
	return true
}

// cutOff ends the wait for a sender, or for a reader, that is too slow.
func (p *Place) cutOff() {
	past := time.Unix(1, 0)
	if p.answers {
		_ = p.control.SetWriteDeadline(past)
		return
	}
	_ = p.control.SetReadDeadline(past)
}
