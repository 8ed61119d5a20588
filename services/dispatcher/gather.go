package dispatcher

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// fetchesPerLane bounds how often a pull fetches from a lane to get past messages that have ended.
	fetchesPerLane = 10
	// Limit: to get past messages that it cannot read, a pull tries 1,000 of a lane. Beyond it: the next pull passes
	// over those and goes on behind them.
	// Used up by: a broken disk. Hurts: only the account with those messages, whose phones wait for the next pull.
	// Test: TestDamagedMessagesHideNothing.
	unreadablePerLane = 1000
)

// gatherer gathers pages: what waits for a phone, with its bodies. It decides
// nothing, so another dispatcher may have leased the messages of a page before the
// page is leased.
type gatherer struct {
	*shard
	consumers *consumers
	bodies    *bodies
}

// gather collects a page, and once more if something was accepted a moment ago
// and is not folded yet: a client that posts and then pulls gets its own messages.
func (s *gatherer) gather(ctx context.Context, q request.Pull) (*page, error) {
	folded := s.file.Cursor(s.enqueue)
	p, err := s.collect(ctx, q)
	if err != nil || len(p.candidates) > 0 {
		return p, err
	}
	if more, err := s.catchUp(ctx, q.Account, folded); err != nil || !more {
		return p, err
	}
	return s.collect(ctx, q)
}

// collect gathers up to q.Limit candidates: what the phone holds already, then
// the most urgent lane first, and in each lane first what was handed out before.
func (s *gatherer) collect(ctx context.Context, q request.Pull) (*page, error) {
	p := &page{}
	var lanes []state.LaneWork
	passed := s.bodies.unreadable.passed(s.deps.Now())
	kept := func(known state.Account, most int) ([]state.Place, error) {
		return known.HeldBy(q.Device, most, passed)
	}
	var held []state.Place
	err := s.account(q.Account, func(known state.Account) (err error) {
		if held, err = kept(known, q.Limit); err != nil {
			return err
		}
		lanes = known.Work(q, q.Limit, passed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.addListed(ctx, p, q, held, kept); err != nil {
		return nil, err
	}
	for _, work := range lanes {
		returned := func(known state.Account, most int) ([]state.Place, error) {
			return known.Returned(work.Lane, most, passed), nil
		}
		gaveUp, err := s.addListed(ctx, p, q, work.Returned, returned)
		if err != nil {
			p.putBack()
			return nil, err
		}
		if gaveUp {
			p.withheld = append(p.withheld, work.Lane)
		}
		if work.First.Seq == 0 {
			continue
		}
		if err := s.addFetched(ctx, p, q, work); err != nil {
			p.putBack()
			return nil, err
		}
	}
	p.fit()
	return p, nil
}

// addListed adds messages that the state lists, with bodies read from ENQUEUE by
// sequence. In place of those that cannot be read it lists more, and says whether
// it gave up before the page was full.
func (s *gatherer) addListed(ctx context.Context, p *page, q request.Pull, listed []state.Place, list func(known state.Account, most int) ([]state.Place, error)) (gaveUp bool, err error) {
	before := len(p.candidates)
	listed = listed[:min(q.Limit-before, len(listed))]
	for unread := 0; len(listed) > 0; {
		wanted := make([]candidate, len(listed))
		for i, place := range listed {
			wanted[i].Place = place
		}
		if err := s.bodies.read(ctx, wanted); err != nil {
			return false, err
		}
		missed := 0
		for _, c := range wanted {
			if c.body == nil {
				missed++
			} else if len(p.candidates) < q.Limit {
				p.candidates = append(p.candidates, c)
			}
		}
		if unread += missed; missed == 0 || unread >= unreadablePerLane || len(p.candidates) == q.Limit {
			return missed > 0 && len(p.candidates) < q.Limit, nil
		}
		err := s.account(q.Account, func(known state.Account) (err error) {
			listed, err = list(known, len(p.candidates)-before+min(max(2*unread, q.Limit), unreadablePerLane-unread))
			return err
		})
		if err != nil {
			return false, err
		}
		listed = slices.DeleteFunc(listed, func(place state.Place) bool { return p.has(place.ID) })
	}
	return false, nil
}

// addFetched adds messages of a lane that were never handed out. The state knows
// that there are some, so a consumer that gives none is asked why: it may be late,
// others may have fetched them, or it may have lost its place.
func (s *gatherer) addFetched(ctx context.Context, p *page, q request.Pull, work state.LaneWork) error {
	if len(p.candidates) == q.Limit {
		return nil
	}
	before, wait := len(p.candidates), fetchWait
	for range fetchTries {
		came, err := s.addFrom(ctx, p, q, work, wait)
		if err != nil || len(p.candidates) > before {
			return err
		}
		p.withheld = append(p.withheld, work.Lane)
		if came > 0 || !s.bodies.readable(ctx, work.First) || s.consumers.diagnose(ctx, q.Account, work.Lane) == withheld {
			return nil
		}
		wait = slowFetchWait
	}
	return nil
}

// addFrom adds what a lane's consumer gives, and says how many messages it gave.
func (s *gatherer) addFrom(ctx context.Context, p *page, q request.Pull, work state.LaneWork, wait time.Duration) (came int, err error) {
	before := len(p.candidates)
	for n := range fetchesPerLane {
		room := q.Limit - len(p.candidates)
		if room == 0 {
			break
		}
		got, err := s.consumers.fetch(ctx, q.Account, work.Lane, work.First.Seq, room, wait)
		if err != nil {
			return came, err
		}
		came += len(got)
		if err := s.classify(p, q.Account, got); err != nil {
			return came, err
		}
		if len(p.candidates) > before {
			wait = 0
		}
		if len(got) < room {
			break
		}
		// Many messages have ended that were never handed out. The state knows where the rest of the lane begins, so the
		// consumer is removed, and the next pull creates it there.
		if n > 0 && len(p.candidates) == before && got[len(got)-1].Seq < work.First.Seq {
			s.consumers.remove(ctx, streams.ConsumerName(q.Account, work.Lane))
		}
	}
	// Messages that were put back come in the order in which the consumer learned of that, in part behind younger ones.
	slices.SortFunc(p.candidates[before:], func(a, b candidate) int { return cmp.Compare(a.Seq, b.Seq) })
	return came, nil
}

// classify adds to the page those of the messages from a lane's consumer that may
// be offered. A consumer is only a cursor, and may be wrong about what was handed
// out: it forgets, or another node creates it again further back. So each message
// is looked up in the state, and is one of these:
//
//   - It cannot be read. It is acked and logged: the disk is damaged there.
//   - The page has it already. It is left alone, and comes once more.
//   - It was handed out before, has ended, or stands in the stream a second time.
//     It is acked: from now on the state lists it where it is needed.
//   - It was never handed out. It is a candidate, and stays unacked until its lease
//     is folded: if this dispatcher dies before that, the consumer gives it again.
func (s *gatherer) classify(p *page, a streams.AccountID, got []*bus.Fetched) error {
	first := len(p.candidates)
	for _, m := range got {
		e, err := state.CheckEnvelope(m.Data)
		if err != nil {
			s.bodies.logDamaged(m.Seq, 0, err)
			m.Ack()
			continue
		}
		// A consumer that was moved may give what it has just given. It comes
		// once more, and is acked then.
		if p.has(e.ID) {
			continue
		}
		p.candidates = append(p.candidates, candidate{
			Place: state.Place{ID: e.ID, Seq: m.Seq}, body: m.Data, until: e.Until, fetched: m,
		})
	}
	return s.account(a, func(known state.Account) error {
		kept := p.candidates[:first]
		for _, c := range p.candidates[first:] {
			offered, err := known.IsOffered(c.Place)
			if err != nil {
				return err
			}
			if !offered {
				c.fetched.Ack()
				continue
			}
			kept = append(kept, c)
		}
		p.candidates = kept
		return nil
	})
}
