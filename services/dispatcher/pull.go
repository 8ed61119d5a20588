package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
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
	own := s.polls.join(q)
	if own == nil {
		return crowded(s.offer(ctx, q))
	}
	owes := false // it was woken, and has not looked
	defer func() {
		if s.polls.leave(own) || owes {
			s.passOn(q)
		}
	}()
	over := time.NewTimer(q.Wait)
	defer over.Stop()
	for {
		page, err := s.offer(ctx, q)
		owes = owes && ctx.Err() != nil
		if err != nil || len(page.Messages) > 0 || page.Needs > 0 {
			return crowded(page, err)
		}
		resume := bus.Rest(ctx)
		select {
		case <-own.woken:
		case <-own.ended:
			page.Crowded = own.crowded
			return page, nil
		case <-over.C:
			return page, nil
		case <-ctx.Done():
			return page, ctx.Err()
		}
		owes = true
		select {
		case <-own.ended: // a phone that has gone takes nothing
			return page, nil
		default:
		}
		if err := resume(ctx); err != nil {
			return page, err
		}
	}
}

// maxInTurn is how many pulls of an account wait for the one before them.
// Used up by one account, and only its own pulls are refused.
const maxInTurn = 1024

var errCrowd = func() error {
	refusal := fault.New(fault.RateLimited, "too_many_pulls", "This account's phones ask more often than they can be answered")
	refusal.RetryAfter = time.Second
	return refusal
}()

// crowded answers a phone that wants to wait, where too many do.
func crowded(page request.Pulled, err error) (request.Pulled, error) {
	if errors.Is(err, errCrowd) {
		err = nil
	}
	page.Crowded = err == nil && len(page.Messages) == 0 && page.Needs == 0
	return page, err
}

// passOn wakes others for what a phone leaves behind that it might have taken.
func (s *shard) passOn(q request.Pull) {
	if !s.polls.waits(q.Account) {
		return
	}
	woken := map[work]bool{}
	_ = s.view(func(v view) error {
		for _, left := range v.work(q, 1, s.unreadable.passed(s.deps.Now())) {
			woken[workIn(left.lane)] = true
		}
		return nil
	})
	for w := range woken {
		s.polls.wake(q.Account, w)
	}
}

// inTurn waits until the account's pulls before it are done, outside of the
// bound on the requests that are worked on: it is the account's own.
func (s *shard) inTurn(ctx context.Context, a streams.AccountID) (giveBack func(), err error) {
	if s.turns.Users(a) >= maxInTurn {
		return nil, errCrowd
	}
	resume := bus.Rest(ctx)
	if giveBack, err = s.turns.Lock(ctx, a); err != nil {
		return nil, err
	}
	if err = resume(ctx); err != nil {
		giveBack()
	}
	return giveBack, err
}

// rivals bounds how often other dispatchers may be quicker in one offer.
const rivals = 10

// offer gives a phone what there is now.
func (s *shard) offer(ctx context.Context, q request.Pull) (request.Pulled, error) {
	none := request.Pulled{Messages: []request.Outgoing{}}
	giveBack, err := s.inTurn(ctx, q.Account)
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
			s.polls.wakeLater(q.Account, p.withheld)
			return none, nil
		}
		if none.Needs = p.over(q); none.Needs > 0 {
			p.putBack()
			s.polls.wakeLater(q.Account, lanes(q)) // who asked may not come again
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
			s.passOn(q) // there may be more
		}
		s.metrics.handedOut.Add(float64(len(p.candidates)))
		return p.answer(), nil
	}
	s.polls.wakeLater(q.Account, lanes(q))
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
		if !ok || !s.now().Before(l.until) {
			p.candidates = nil // this process was stopped: others may have them by now
		}
		return err
	})
}

// taken says whether a lease of that id is there, of another dispatcher.
func (v view) taken(a streams.AccountID, l streams.LeaseID) bool {
	return v.bucket(leasesBucket).Get(leaseKey(a, l)) != nil
}
