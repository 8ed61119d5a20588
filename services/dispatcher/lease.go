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
type leases struct {
	*shard
	decisions *decider

	decided      map[state.LeaseRef]bool // those decided about by endDue, since then
	decidedSince time.Time
}

// endDue ends the leases that are due, and says when the next one is. It decides
// about one at most once in retryAfter: what was decided may have been void.
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

// renew renews the leases of a device that has shown itself, where that is due.
// The caller has locked the account.
func (s *leases) renew(ctx context.Context, a streams.AccountID, d streams.DeviceID) error {
	if d == 0 {
		return nil
	}
	return s.decisions.decide(ctx, a, func(known state.Account) (event.Event, error) {
		return known.RenewLeases(d, s.now())
	})
}
