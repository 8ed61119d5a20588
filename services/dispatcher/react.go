package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// kept is how long a message and its events are known. Passed by every
	// message; it hurts who asks for an older one.
	kept = 30 * 24 * time.Hour
	// horizonEvery is how often the horizon moves.
	horizonEvery = time.Hour
	// lookAtLeast is how often a reaction looks that knows of nothing, for the
	// clock may have stepped.
	lookAtLeast = time.Minute
	// retryAfter follows a decision that could not be stored, or that did not
	// do what it was made for.
	retryAfter = time.Second
	// pace lies between two looks of a reaction, whatever happens meanwhile.
	pace = 10 * time.Millisecond
	// patience bounds one decision.
	patience = 30 * time.Second
	// farAhead is how far the end of a lease, or a report, is ahead if no clock
	// gave it that is nearly right. It is more than clocks may differ, and than
	// a decision is under way.
	farAhead = 10 * time.Minute
	// contactReach is how many lease times after a report the contacts of a
	// device can keep the rest of a lease. Used up by a phone that reports on
	// a part: only its own messages come back.
	contactReach = 3
)

// reaction does what time brings. What is due stands in the projection, so that
// a rebuild is silent and a dispatcher that was away misses nothing.
type reaction struct {
	look chan struct{} // has a token when something may be due sooner than thought
	do   func(context.Context) (next time.Time, err error)
}

func newReaction(do func(context.Context) (time.Time, error)) *reaction {
	return &reaction{look: make(chan struct{}, 1), do: do}
}

// lookAgain makes it look for the next thing due.
func (r *reaction) lookAgain() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// react does what is due, one after the other, until ctx is done.
func (s *shard) react(ctx context.Context, r *reaction) error {
	if err := s.file.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	failed := false
	for {
		next, err := s.now().Add(lookAtLeast), s.file.Err()
		if err == nil && !s.deps.Agrees() {
			err = errClock
		}
		if err == nil {
			next, err = r.do(ctx)
		}
		again := errors.Is(err, errAgain)
		if err != nil && !again && !failed && ctx.Err() == nil && s.file.Err() == nil { // which says so itself
			s.deps.Log.Warn("could not store a decision, trying again until it is stored", zap.Error(err), zap.Int("shard", int(s.number)))
		}
		failed = err != nil && !again
		rest := pace
		if err != nil {
			rest, next = retryAfter, time.Time{}
		}
		if clock.Sleep(ctx, rest) != nil {
			return nil
		}
		timer := time.NewTimer(min(next.Sub(s.deps.Now()), lookAtLeast))
		select {
		case <-timer.C:
		case <-r.look:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// errAgain ends a look that found what it had decided about already.
var errAgain = errors.New("decided already")

// endLeases moves the horizon and ends the leases that are due. It decides about
// one at most once in retryAfter: what was decided may have been void.
func (s *shard) endLeases(ctx context.Context) (time.Time, error) {
	next, err := s.moveHorizon(ctx)
	if err != nil {
		return next, err
	}
	if now := time.Now(); now.Sub(s.endingSince) >= retryAfter {
		s.ending, s.endingSince = map[leaseRef]bool{}, now
	}
	for {
		now := s.now()
		var due leaseRef
		var waits bool
		err := s.view(func(v view) error {
			var ends time.Time
			var err error
			due, waits, ends, err = s.due(v, now, now.Add(lookAtLeast))
			next = clock.Earlier(next, ends)
			return err
		})
		switch {
		case err != nil:
			return next, err
		case due.id == 0 && waits:
			return next, errAgain
		case due.id == 0:
			return next, nil
		}
		s.ending[due] = true
		if err := s.endLease(ctx, due); err != nil {
			return next, err
		}
	}
}

// leaseRef names a lease.
type leaseRef struct {
	account streams.AccountID
	id      streams.LeaseID
}

// due finds a lease of which the stored end has come, or is one that this clock
// cannot have given. If there is none it says when the next one comes, and
// whether one waits that was decided about.
func (s *shard) due(v view, now, next time.Time) (due leaseRef, waits bool, ends time.Time, err error) {
	c := v.bucket(dueBucket).Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		at := fromMillis(id(key, 0))
		if at.After(now) {
			next = clock.Earlier(next, at)
			break
		}
		if due = leaseOf(key); !s.ending[due] {
			return due, false, next, nil
		}
		waits = true
	}
	if key, _ := c.Last(); key != nil {
		due = leaseOf(key)
		l, _, err := v.lease(due.account, due.id)
		switch {
		case err != nil:
			return leaseRef{}, waits, next, err
		case l.ahead(now) && !s.ending[due]:
			return due, false, next, nil
		}
		waits = waits || l.ahead(now)
	}
	return leaseRef{}, waits, next, nil
}

// leaseOf reads a key of dueBucket.
func leaseOf(key []byte) leaseRef {
	return leaseRef{streams.AccountID(id(key, 1)), streams.LeaseID(id(key, 2))}
}

// ahead says whether a lease's end is further off than any clock gives one that
// agrees with now.
func (l *lease) ahead(now time.Time) bool { return l.until.Sub(now) > l.length+farAhead }

// end is when a lease ends that the clock gave, or is due to: no sooner than its
// length after it was given, renewed or reported on last, by time that passed.
//
// A clock that began, or stepped, cannot tell how long ago anything was before
// that. So each lease from before has its whole length from then. One that ends
// too late was given by a clock that was ahead, and has its whole length from now.
func (l lease) end(since, now time.Time) time.Time {
	l.until = clock.Later(clock.Later(l.until, l.reportedUntil()), since.Add(l.length))
	if l.ahead(now) {
		return now.Add(l.length)
	}
	return l.until
}

// endLease lets a lease lapse that has ended, and renews any other.
func (s *shard) endLease(ctx context.Context, due leaseRef) error {
	err := s.decideInTurn(ctx, due.account, func(v view) (event.Event, error) {
		l, ok, err := v.lease(due.account, due.id)
		if err != nil || !ok {
			return nil, err
		}
		return ending(v, due.account, due.id, l, s.since(), s.now())
	})
	if err != nil {
		return fmt.Errorf("end lease %s: %w", due.id, err)
	}
	return nil
}

// ending decides about one lease: nothing before its end.
func ending(v view, a streams.AccountID, leaseID streams.LeaseID, l lease, since, now time.Time) (event.Event, error) {
	if l.held || now.Before(l.until) && !l.ahead(now) {
		return nil, nil
	}
	if until := l.end(since, now); until.After(now) {
		return event.Renewed{At: now, Leases: []event.Renewal{{Lease: leaseID, Until: until}}}, nil
	}
	e := event.Lapsed{At: now, Lease: leaseID}
	for _, m := range v.members(a, leaseID) {
		r, _, err := v.record(a, m)
		if err != nil {
			return nil, err
		}
		e.Messages = append(e.Messages, event.Lapse{ID: m, Round: r.round, To: fate(l, r)})
	}
	return e, nil
}

// fate is what becomes of a message whose lease lapses.
func fate(l lease, r record) streams.State {
	switch {
	case l.policy == streams.Hold:
		return streams.Leased
	case l.policy == streams.Fail || r.tries >= l.attempts:
		return streams.Failed
	default:
		return streams.Pending
	}
}

// contact renews the leases of a device that has shown itself, where it has
// reported on one and less than half of it is left. The caller has the account's
// turn.
func (s *shard) contact(ctx context.Context, a streams.AccountID, d streams.DeviceID) error {
	if d == 0 {
		return nil
	}
	return s.decide(ctx, a, func(v view) (event.Event, error) {
		now := s.now()
		e := event.Renewed{At: now}
		for _, leaseID := range v.deviceLeases(a, d, running) {
			l, ok, err := v.lease(a, leaseID)
			if err != nil {
				return nil, err
			}
			if until, renew := l.renewal(now); ok && renew && len(e.Leases) < event.MaxItems {
				e.Leases = append(e.Leases, event.Renewal{Lease: leaseID, Until: until})
			}
		}
		if len(e.Leases) == 0 {
			return nil, nil
		}
		return e, nil
	})
}

// renewal is until when a contact now makes the lease last, if it does. One of
// which nothing was reported is not renewed: the phone may never have got it.
func (l *lease) renewal(now time.Time) (time.Time, bool) {
	if l.reported.IsZero() || l.until.Sub(now) >= l.length/2 {
		return l.until, false
	}
	until := clock.Earlier(now.Add(l.length), l.reported.Add(contactReach*l.length))
	return until, until.After(l.until) && until.After(now)
}

// moveHorizon moves the horizon to where it is due, and says when it is due
// next. It moves by the hour, however far, for all that one event drops is
// dropped in one transaction.
func (s *shard) moveHorizon(ctx context.Context) (time.Time, error) {
	for {
		due, moved, err := s.moveHorizonOnce(ctx)
		s.full.Store(errors.Is(err, bus.ErrFull))
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("move horizon: %w", err)
		case !moved:
			return s.wait(due), nil
		}
	}
}

// moveHorizonOnce moves the horizon on by an hour at most, if it is due. It
// gives when the horizon is due next.
func (s *shard) moveHorizonOnce(ctx context.Context) (due time.Time, moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	subject := streams.HorizonSubject(s.number)
	err = s.decisions(subject).Decide(ctx, func() (m *nats.Msg, last uint64, err error) {
		var before time.Time
		err = s.view(func(v view) error {
			before, last = v.horizon()
			return nil
		})
		now := s.sure()
		due = before.Add(kept + horizonEvery)
		if moved = err == nil && !due.After(now); !moved {
			return nil, 0, err
		}
		to := now.Add(-kept)
		if !before.IsZero() {
			to = clock.Earlier(to, before.Add(horizonEvery))
		}
		// In this order: all of ENQUEUE up to there was stored by then.
		e := event.Horizon{Before: to, Enqueue: s.file.Cursor(s.enqueue)}
		e.At = s.now()
		m, err = event.Message(subject, e)
		return m, last, err
	})
	return due, moved, err
}
