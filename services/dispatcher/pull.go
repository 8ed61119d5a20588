package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Limit: one pull gives at most 1,000 messages. Beyond it: a larger limit is rejected; the HTTP API asks for 200 at most.
// Used up by: nobody. Hurts: nobody. Test: TestRequestsTooLarge.
const maxPage = event.MaxItems

// puller gives phones pages of messages under leases.
//
// A page is gathered first, and leased by a decision then. Only what is under the lease once that is folded goes to the
// phone: a message that another dispatcher leased first is not. So no message is on two phones, whatever was fetched.
type puller struct {
	*shard
	gatherer  *gatherer
	decisions *decider
	leases    *leases
	polls     *polls
	ids       *streams.IDs
	maxLeases int
	handedOut prometheus.Counter
}

// pull gives a phone a page of messages under a lease, and waits for work as
// long as the phone does.
func (s *puller) pull(ctx context.Context, q request.Pull) (request.Pulled, error) {
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
	owes := false // it was woken for work and has not looked for it yet
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

// Limit: 1,024 pulls of an account wait for the one before them. Beyond it: 429 `too_many_pulls` with Retry-After 1, or
// with `wait` another look after 8 s.
// Used up by: an account with very many phones, or with one that pulls in a loop. Hurts: only that account.
// Test: TestPullsThatLockAreBounded.
const maxLocking = 1024

var errCrowd = func() error {
	refusal := fault.New(fault.RateLimited, "too_many_pulls", "This account's phones ask more often than they can be answered")
	refusal.RetryAfter = time.Second
	return refusal
}()

// crowded marks the answer to a phone that wants to wait, while too many phones do.
func crowded(page request.Pulled, err error) (request.Pulled, error) {
	if errors.Is(err, errCrowd) {
		err = nil
	}
	page.Crowded = err == nil && len(page.Messages) == 0 && page.Needs == 0
	return page, err
}

// passOn wakes other phones for work that this phone was to take, and leaves behind.
func (s *puller) passOn(q request.Pull) {
	if !s.polls.waits(q.Account) {
		return
	}
	woken := map[wakeKey]bool{}
	_ = s.account(q.Account, func(known state.Account) error {
		for _, left := range known.Work(q, 1, s.gatherer.bodies.unreadable.passed(s.deps.Now())) {
			woken[keyOf(left.Lane)] = true
		}
		return nil
	})
	for key := range woken {
		s.polls.wake(q.Account, key)
	}
}

// lock locks the account, outside of the bound on the requests that are worked
// on: the wait is the account's own.
func (s *puller) lock(ctx context.Context, a streams.AccountID) (unlock func(), err error) {
	if s.decisions.locks.Users(a) >= maxLocking {
		return nil, errCrowd
	}
	resume := bus.Rest(ctx)
	if unlock, err = s.decisions.lock(ctx, a); err != nil {
		return nil, err
	}
	if err = resume(ctx); err != nil {
		unlock()
	}
	return unlock, err
}

// rivals bounds how often other dispatchers may be quicker in one offer.
const rivals = 10

// offer gives a phone a page of what there is now; an empty one if there is nothing,
// or if the page needs more room than its ingress has.
func (s *puller) offer(ctx context.Context, q request.Pull) (request.Pulled, error) {
	none := request.Pulled{Messages: []request.Outgoing{}}
	unlock, err := s.lock(ctx, q.Account)
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := s.leases.renew(ctx, q.Account, q.Device); err != nil {
		return none, err
	}
	for range rivals {
		p, err := s.gatherer.gather(ctx, q)
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
			s.polls.wakeLater(q.Account, state.Lanes(q)) // this phone may not come again
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
		s.handedOut.Add(float64(len(p.candidates)))
		return p.answer(), nil
	}
	s.polls.wakeLater(q.Account, state.Lanes(q))
	return none, nil
}

// lend leases the candidates, and leaves in p those that are under the lease once
// the decision is folded; none if the lease has ended meanwhile. Each proposal looks
// at the candidates again: what another dispatcher has leased in between is left out.
func (s *puller) lend(ctx context.Context, q request.Pull, p *page) error {
	err := s.decisions.decide(ctx, q.Account, func(known state.Account) (event.Event, error) {
		if known.OpenLeases(s.maxLeases) >= s.maxLeases {
			refusal := fault.New(fault.RateLimited, "too_many_leases", "This account's phones hold too many pages: report on them, or wait for their leases to end")
			refusal.RetryAfter = 10 * time.Second
			return nil, refusal
		}
		if p.lease == 0 || known.HasLease(p.lease) { // another dispatcher has given this id
			p.lease = s.ids.Lease()
		}
		now := s.now()
		attempts, err := p.attempts(known, q.Device, now)
		if err != nil || len(attempts) == 0 {
			return nil, err
		}
		return event.Leased{
			Lease: p.lease, Device: q.Device, Name: q.Name, At: now, Until: now.Add(q.Lease.Truncate(time.Millisecond)),
			Policy: q.Policy, Attempts: q.Attempts, Messages: attempts,
		}, nil
	})
	if err != nil {
		return err
	}
	return s.account(q.Account, func(known state.Account) error {
		if err := p.retainLeased(known); err != nil {
			return err
		}
		until, ok, err := known.LeaseUntil(p.lease)
		if !ok || !s.now().Before(until) {
			p.candidates = nil // this process stood still for as long as the lease: others may have them by now
		}
		return err
	})
}

// hangUp ends the wait of a phone that has gone.
func (s *puller) hangUp(_ context.Context, q request.Hangup) (struct{}, error) {
	s.polls.hangUp(q.Poll)
	return struct{}{}, nil
}
