package dispatcher

import (
	"context"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// maxPage is the most messages that one pull gives.
const maxPage = event.MaxItems

// pull gives a phone a page of messages under a lease, and waits for work as
// long as the phone does.
func (s *shard) pull(ctx context.Context, q request.Pull) (request.Pulled, error) {
	if q.Limit < 1 || q.Limit > maxPage || q.Lease <= 0 || q.Attempts < 1 {
		return request.Pulled{}, fault.New(fault.Invalid, "bad_pull", "A pull names a limit, a lease and attempts")
	}
	if err := s.ready(ctx); err != nil {
		return request.Pulled{}, err
	}
	if q.Wait <= 0 {
		return s.offer(ctx, q)
	}
	own := s.polls.join(q.Account, q.Poll)
	defer s.polls.leave(own)
	over := time.NewTimer(q.Wait)
	defer over.Stop()
	for {
		page, err := s.offer(ctx, q)
		if err != nil || len(page.Messages) > 0 {
			return page, err
		}
		select {
		case <-own.woken:
		case <-own.ended:
			return page, nil
		case <-over.C:
			return page, nil
		case <-ctx.Done():
			return page, ctx.Err()
		}
		select {
		case <-own.ended: // a phone that has gone takes nothing
			return page, nil
		default:
		}
	}
}

// rivals bounds how often other dispatchers may be quicker in one offer.
const rivals = 10

// offer gives a phone what there is now.
func (s *shard) offer(ctx context.Context, q request.Pull) (request.Pulled, error) {
	none := request.Pulled{Messages: []request.Outgoing{}}
	giveBack, err := s.turns.Take(ctx, q.Account)
	if err != nil {
		return none, err
	}
	defer giveBack()
	if err := s.contact(ctx, q.Account, q.Device); err != nil {
		return none, err
	}
	for range rivals {
		p, err := s.gather(ctx, q)
		if err != nil {
			return none, err
		}
		found := len(p.candidates)
		if found == 0 {
			if p.withheld {
				s.polls.wakeLater(q.Account)
			}
			return none, nil
		}
		if err := s.lend(ctx, q, p); err != nil {
			p.putBack()
			return none, err
		}
		if len(p.candidates) == 0 {
			continue // another dispatcher took them all, and there may be more
		}
		if found == q.Limit || p.cut {
			s.polls.wake(q.Account) // there may be more
		}
		s.metrics.handedOut.Add(float64(len(p.candidates)))
		return p.answer(), nil
	}
	s.polls.wakeLater(q.Account)
	return none, nil
}

// gather collects, and once more if something was accepted a moment ago and is
// not folded yet: who posts reads its own messages.
func (s *shard) gather(ctx context.Context, q request.Pull) (*page, error) {
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

// lend leases the candidates, and leaves in p those that are under the lease;
// none if it has ended meanwhile.
func (s *shard) lend(ctx context.Context, q request.Pull, p *page) error {
	err := s.decide(ctx, q.Account, func(v view) (event.Event, error) {
		if v.openLeases(q.Account, s.cfg.MaxLeases) >= s.cfg.MaxLeases {
			refusal := fault.New(fault.RateLimited, "too_many_leases", "This account's phones hold too many pages: report on them, or wait for their leases to end")
			refusal.RetryAfter = 10 * time.Second
			return nil, refusal
		}
		if p.lease == 0 || v.taken(q.Account, p.lease) {
			p.lease = s.ids.Lease()
		}
		now := s.now()
		turns, err := p.turns(v, q, now)
		if err != nil || len(turns) == 0 {
			return nil, err
		}
		return event.Leased{
			Lease: p.lease, Device: q.Device, Name: q.Name, At: now, Until: now.Add(q.Lease.Truncate(time.Millisecond)),
			Policy: q.Policy, Attempts: q.Attempts, Messages: turns,
		}, nil
	})
	if err != nil {
		return err
	}
	return s.view(func(v view) error {
		if err := p.keepLeased(v, q.Account); err != nil {
			return err
		}
		l, ok, err := v.lease(q.Account, p.lease)
		if !ok || !s.now().Before(s.live(l).until) {
			p.candidates = nil // this process was stopped: others may have them by now
		}
		return err
	})
}

// taken says whether a lease of that id is there, of another dispatcher.
func (v view) taken(a streams.AccountID, l streams.LeaseID) bool {
	return v.bucket(leasesBucket).Get(leaseKey(a, l)) != nil
}
