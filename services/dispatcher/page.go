package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// fetchesPerLane bounds how long a pull reads past what is done already.
	fetchesPerLane = 10
	// catchUpWithin bounds a wait for what is accepted and not folded yet.
	catchUpWithin = 2 * time.Second
	// readers is how many messages are read by sequence at a time.
	readers = 8
	// readAtOnce is how many are read before their size is looked at: each can be as large as a text may be.
	readAtOnce = 64
)

// candidate is a message that may go out. Body is its enqueued event.
type candidate struct {
	id      streams.MessageID
	seq     uint64
	body    []byte
	until   time.Time    // its validity as its event has it, where that may not be folded yet
	fetched *bus.Fetched // from the lane's consumer; nil: from the projection's lists
}

// page is what a pull gathers.
type page struct {
	lease      streams.LeaseID
	candidates []candidate
	withheld   []streams.Lane // whose consumers did not give what the projection knows
	cut        bool           // there was more than fits into an answer
}

// maxPageBytes is the most that the messages of a page may be; one alone may be
// larger. Used up by an account with large texts, and only its own pages are shorter.
const maxPageBytes = 4 << 20

// fit puts back what does not fit into an answer.
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

// over is how many bytes the page has beyond what was asked for. Where what fits
// is wanted, it puts the rest back, unless not even the first fits.
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

// collect gathers up to q.Limit candidates, the most urgent lane first, in each
// lane what was handed out before first.
func (s *shard) collect(ctx context.Context, q request.Pull) (*page, error) {
	p := &page{}
	var lanes []laneWork
	passed := s.unreadable.passed(s.deps.Now())
	kept := func(v view, most int) ([]candidate, error) { return v.heldBy(q.Account, q.Device, most, passed) }
	var held []candidate
	err := s.view(func(v view) (err error) {
		if held, err = kept(v, q.Limit); err != nil {
			return err
		}
		lanes = v.work(q, q.Limit, passed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.addListed(ctx, p, q.Limit, held, kept); err != nil {
		return nil, err
	}
	for _, work := range lanes {
		returned := func(v view, most int) ([]candidate, error) {
			return v.handedOut(q.Account, work.lane, most, passed), nil
		}
		gaveUp, err := s.addListed(ctx, p, q.Limit, work.returned, returned)
		if err != nil {
			p.putBack()
			return nil, err
		}
		if gaveUp {
			p.withheld = append(p.withheld, work.lane)
		}
		if work.first.seq == 0 {
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

// read reads bodies from ENQUEUE by sequence, and leaves those out that have
// aged out of it or are damaged there.
func (s *shard) read(ctx context.Context, wanted []candidate) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i := range wanted {
		group.Go(func() error {
			c := &wanted[i]
			m, err := s.deps.Bus.Get(ctx, s.enqueue, c.seq)
			switch {
			case errors.Is(err, bus.ErrNoMessage):
				s.missing(ctx, c.seq, c.id)
			case err != nil:
				return err
			default:
				if err := bodyOf(m.Data, c.id); err != nil {
					s.say(c.seq, c.id, err)
					return nil
				}
				s.unreadable.forget(c.seq)
				c.body = m.Data
			}
			return nil
		})
	}
	return group.Wait()
}

// addFetched adds what was never handed out of a lane. The projection knows
// that there is something, so a consumer that gives nothing is asked why.
func (s *shard) addFetched(ctx context.Context, p *page, q request.Pull, work laneWork) error {
	if len(p.candidates) == q.Limit {
		return nil
	}
	before, wait := len(p.candidates), fetchWait
	for range fetchTries {
		came, err := s.addFrom(ctx, p, q, work, wait)
		if err != nil || len(p.candidates) > before {
			return err
		}
		p.withheld = append(p.withheld, work.lane)
		if came > 0 || !s.readable(ctx, work.first) || s.mend(ctx, q.Account, work.lane) == withheld {
			return nil
		}
		wait = slowFetchWait
	}
	return nil
}

// addFrom adds what a lane's consumer gives, and says how many it gave.
func (s *shard) addFrom(ctx context.Context, p *page, q request.Pull, work laneWork, wait time.Duration) (came int, err error) {
	before := len(p.candidates)
	for n := range fetchesPerLane {
		room := q.Limit - len(p.candidates)
		if room == 0 {
			break
		}
		got, err := s.fetch(ctx, q.Account, work.lane, work.first.seq, room, wait)
		if err != nil {
			return came, err
		}
		came += len(got)
		if err := s.sort(p, q.Account, got); err != nil {
			return came, err
		}
		if len(p.candidates) > before {
			wait = 0
		}
		if len(got) < room {
			break
		}
		// Much has ended that was never handed out, and the projection knows
		// where what has not begins.
		if n > 0 && len(p.candidates) == before && got[len(got)-1].Seq < work.first.seq {
			s.dropConsumer(ctx, streams.ConsumerName(q.Account, work.lane))
		}
	}
	// What was put back comes as its consumer heard of it: in part behind what is younger, where it was fetched meanwhile.
	slices.SortFunc(p.candidates[before:], func(a, b candidate) int { return cmp.Compare(a.seq, b.seq) })
	return came, nil
}

// sort keeps of what a consumer gave what was never handed out, and acks what
// is done.
func (s *shard) sort(p *page, a streams.AccountID, got []*bus.Fetched) error {
	first := len(p.candidates)
	for _, m := range got {
		e, err := event.Decode[event.Enqueued](m.Data)
		if err != nil {
			s.say(m.Seq, 0, err)
			m.Ack()
			continue
		}
		// A consumer that was moved may give what it has just given. It comes
		// once more, and is acked then.
		if slices.ContainsFunc(p.candidates, func(c candidate) bool { return c.id == e.ID }) {
			continue
		}
		p.candidates = append(p.candidates, candidate{id: e.ID, seq: m.Seq, body: m.Data, until: e.Until, fetched: m})
	}
	return s.view(func(v view) error {
		kept := p.candidates[:first]
		for _, c := range p.candidates[first:] {
			r, _, err := v.record(a, c.id)
			if err != nil {
				return err
			}
			// What was scheduled may stand in the stream twice, released by two
			// dispatchers: the first counts.
			if !r.fresh() || r.waiting() && r.seq != c.seq {
				c.fetched.Ack()
				continue
			}
			kept = append(kept, c)
		}
		p.candidates = kept
		return nil
	})
}

// turns names the candidates that may still go out, as the projection has them
// now.
func (p *page) turns(v view, q request.Pull, now time.Time) ([]event.Turn, error) {
	all := make([]event.Turn, 0, len(p.candidates))
	for _, c := range p.candidates {
		r, ok, err := v.record(q.Account, c.id)
		if err != nil {
			return nil, err
		}
		if !ok || !r.known() {
			r.until = c.until
		}
		if r.expired(now) {
			continue
		}
		switch r.state {
		case streams.Pending:
			all = append(all, event.Turn{ID: c.id, Round: r.round})
		case streams.Leased:
			l, ok, err := v.lease(q.Account, r.lease)
			if err != nil {
				return nil, err
			}
			if ok && l.held && l.device == q.Device {
				all = append(all, event.Turn{ID: c.id, Round: r.round})
			}
		}
	}
	return all, nil
}

// keepLeased drops the candidates that are not under the page's lease: another
// dispatcher took them, or a report ended them. The consumer forgets what is
// done.
func (p *page) keepLeased(v view, a streams.AccountID) error {
	kept := p.candidates[:0]
	for _, c := range p.candidates {
		r, _, err := v.record(a, c.id)
		if err != nil {
			return err
		}
		if c.fetched != nil && !r.fresh() {
			c.fetched.Ack()
		}
		if r.state == streams.Leased && r.lease == p.lease {
			kept = append(kept, c)
		}
	}
	p.candidates = kept
	return nil
}

// putBack lets the consumers give again what a failed pull took from them.
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
		answer.Messages[i] = request.Outgoing{ID: c.id, Body: c.body}
	}
	return answer
}

// catchUp looks for a message of the account's that ENQUEUE holds behind what
// was folded, waits until it is folded too, and says whether there was one. The
// caller took folded before it read the projection.
func (s *shard) catchUp(ctx context.Context, a streams.AccountID, folded uint64) (bool, error) {
	m, err := s.deps.Bus.Next(ctx, s.enqueue, streams.AccountSubjects(s.number, a), folded+1)
	if errors.Is(err, bus.ErrNoMessage) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for unfolded messages: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	return true, s.file.Wait(ctx, s.enqueue, m.Sequence)
}

// foldAccepted waits until everything is folded that is accepted now.
func (s *shard) foldAccepted(ctx context.Context) error {
	return s.foldLast(ctx, s.enqueue, streams.AcceptedSubjects(s.number)...)
}

// foldKnown waits until everything is folded that is stored now about an
// account, whichever dispatcher or ingress stored it.
func (s *shard) foldKnown(ctx context.Context, a streams.AccountID) error {
	if err := s.foldLast(ctx, s.enqueue, streams.AccountSubjects(s.number, a), streams.ScheduledSubject(s.number, a)); err != nil {
		return err
	}
	return s.foldLast(ctx, s.status, streams.DecisionSubject(s.number, a), streams.ReportSubject(s.number, a))
}

func (s *shard) foldLast(ctx context.Context, stream string, subjects ...string) error {
	last, err := s.deps.Bus.LastForSubjects(ctx, stream, subjects...)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
		defer cancel()
		err = s.file.Wait(ctx, stream, last)
	}
	if err != nil {
		return errCatchingUp.With(err)
	}
	return nil
}
