package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// leases renews leases, and lets them lapse. When and how follows from the state:
// see state.Account.EndLease and RenewLeases.
//
// A lease has a stored end, by which dispatchers find it. That may be sooner than
// its true end: a report extends a lease without a decision, and a clock that
// stepped cannot tell how much of a lease has passed. So a dispatcher that finds a
// stored end has come decides one of two things: the lease lapses, or it is renewed
// until its true end. A lapse that did not know of a report is void when it is
// folded (state.Fold), and the next look decides again.
type leases struct {
	*shard
	decisions *decider

	decided      map[state.LeaseRef]bool // about which endDue has decided since decidedSince
	decidedSince time.Time
}

// endDue decides about the leases whose stored end has come, and says when the
// next one comes. It decides about one lease at most once in retryAfter: if the
// decision was void, the lease is still due, and must not be decided about in a
// loop.
func (s *leases) endDue(ctx context.Context) (next time.Time, err error) {
	if now := time.Now(); now.Sub(s.decidedSince) >= retryAfter {
		s.decided, s.decidedSince = map[state.LeaseRef]bool{}, now
	}
	for {
		now := s.now()
		next = now.Add(lookAtLeast)
		var due state.LeaseRef
		var waits bool
		err := s.view(func(v state.View) (err error) {
			due, waits, next, err = v.DueLease(now, next, s.decided)
			return err
		})
		switch {
		case err != nil:
			return next, err
		case due.ID == 0 && waits:
			return next, errAgain
		case due.ID == 0:
			return next, nil
		}
		s.decided[due] = true
		if err := s.end(ctx, due); err != nil {
			return next, err
		}
	}
}

// end lets a lease lapse that has ended, and renews any other.
func (s *leases) end(ctx context.Context, due state.LeaseRef) error {
	err := s.decisions.lockAndDecide(ctx, due.Account, func(known state.Account) (event.Event, error) {
		return known.EndLease(due.ID, s.since(), s.now())
	})
	if err != nil {
		return fmt.Errorf("end lease %s: %w", due.ID, err)
	}
	return nil
}

// renew renews the leases of a device that has just sent a request, where that is
// due. A phone without a name cannot be told from others, so nothing is renewed for
// it. The caller has locked the account.
func (s *leases) renew(ctx context.Context, a streams.AccountID, d streams.DeviceID) error {
	if d == 0 {
		return nil
	}
	return s.decisions.decide(ctx, a, func(known state.Account) (event.Event, error) {
		return known.RenewLeases(d, s.now())
	})
}
