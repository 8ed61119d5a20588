package httpx

import (
	"net/http"
	"strconv"
	"time"
)

// Limit: a large answer is sent in steps of 16 KiB, each of which its reader has to take within 15 s. Beyond it: the
// connection is closed; where room is short, after 5 s.
// Used up by: a client that does not read. Hurts: that client alone. Test: TestLimiter_SlowReaders.
const answerStep = 16 << 10

// Answer gives a place to an answer that the caller is about to build. The place has no bytes yet: call Weigh before the
// answer is built, and Leave when it is sent.
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

// Try takes room as Weigh does, but only while all of the sender's answers together have at most a sixteenth of the
// limiter's bytes. So answers that are nice to have leave room for those that the sender needs.
func (p *Place) Try(bytes int64) bool {
	p.limiter.mu.Lock()
	little := p.of.held+bytes <= p.limiter.bytes/16
	p.limiter.mu.Unlock()
	return little && p.take(bytes) == nil
}

// Keep gives back what the place has beyond so many bytes.
func (p *Place) Keep(bytes int64) {
	p.limiter.mu.Lock()
	more := p.held - bytes
	p.limiter.mu.Unlock()
	if more > 0 {
		_ = p.take(-more)
	}
}

// Send sends the answer. It may take as long as its reader needs, if the reader takes 16 KiB every 15 s. Where room is
// short, a reader who has taken nothing for 5 s is cut off.
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

// sending notes that the reader has taken a step, and gives a large answer time for the next one. It is false once the
// answer had to make room.
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

// cutOff ends the wait for a client that sends its body, or reads its answer, too slowly.
func (p *Place) cutOff() {
	past := time.Unix(1, 0)
	if p.answers {
		_ = p.control.SetWriteDeadline(past)
		return
	}
	_ = p.control.SetReadDeadline(past)
}
