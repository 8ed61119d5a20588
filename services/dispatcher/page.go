package dispatcher

import (
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// candidate is a message that may go out. Body is its enqueued event.
type candidate struct {
	state.Place
	body    []byte
	until   time.Time    // its validity as its event has it, where that may not be folded yet
	fetched *bus.Fetched // from the lane's consumer; nil: listed in the state
}

// page is what a pull gathers, before and after it is leased.
type page struct {
	lease      streams.LeaseID
	candidates []candidate
	withheld   []streams.Lane // with messages that their consumers did not give
	cut        bool           // there was more than fits into an answer
}

// Limit: the messages of a page have at most 4 MiB, or are one message. Beyond it: the rest comes with later pages,
// perhaps behind newer messages.
// Used up by: an account with large texts. Hurts: only that account, whose pages are shorter.
// Test: TestPagesAreBounded.
const maxPageBytes = 4 << 20

// fit puts back the messages that do not fit into an answer.
func (p *page) fit() {
	size := 0
	for i, c := range p.candidates {
		if size += len(c.body); i > 0 && size > maxPageBytes {
			putBack(p.candidates[i:])
			p.candidates, p.cut = p.candidates[:i], true
			return
		}
	}
}

// over is how many bytes an answer needs that is larger than the phone's ingress
// has room for, 0 if it is not larger. If the ingress takes a part of a page, over
// puts the rest back instead, unless not even the first message fits.
func (p *page) over(q request.Pull) (needs int) {
	if q.Bytes <= 0 || len(p.candidates) == 0 {
		return 0
	}
	fits, size := 0, 0
	for i, c := range p.candidates {
		if size += len(c.body); size <= q.Bytes {
			fits = i + 1
		}
	}
	switch {
	case size <= q.Bytes:
		return 0
	case !q.Fit:
		return size
	case fits == 0:
		return len(p.candidates[0].body)
	}
	putBack(p.candidates[fits:])
	p.candidates, p.cut = p.candidates[:fits], true
	return 0
}

// has says whether a message is on the page.
func (p *page) has(m streams.MessageID) bool {
	for i := range p.candidates {
		if p.candidates[i].ID == m {
			return true
		}
	}
	return false
}

// attempts names the candidates that may still go out, by the state now.
func (p *page) attempts(known state.Account, to streams.DeviceID, now time.Time) ([]event.Attempt, error) {
	all := make([]event.Attempt, 0, len(p.candidates))
	for _, c := range p.candidates {
		attempt, may, err := known.Attempt(c.ID, c.until, to, now)
		if err != nil {
			return nil, err
		}
		if may {
			all = append(all, attempt)
		}
	}
	return all, nil
}

// retainLeased leaves only the candidates that are under the page's lease. The
// others were leased by another dispatcher first, or have ended. All that were
// handed out or have ended are acked: their consumer is done with them.
func (p *page) retainLeased(known state.Account) error {
	kept := p.candidates[:0]
	for _, c := range p.candidates {
		under, fresh, err := known.IsUnder(p.lease, c.ID)
		if err != nil {
			return err
		}
		if c.fetched != nil && !fresh {
			c.fetched.Ack()
		}
		if under {
			kept = append(kept, c)
		}
	}
	p.candidates = kept
	return nil
}

// putBack lets the consumers give again what a pull fetched and could not lease.
func (p *page) putBack() { putBack(p.candidates) }

func putBack(candidates []candidate) {
	for _, c := range candidates {
		if c.fetched != nil {
			c.fetched.Nak()
		}
	}
}

func (p *page) answer() request.Pulled {
	answer := request.Pulled{Lease: p.lease, Messages: make([]request.Outgoing, len(p.candidates))}
	for i, c := range p.candidates {
		answer.Messages[i] = request.Outgoing{ID: c.ID, Body: c.body}
	}
	return answer
}
