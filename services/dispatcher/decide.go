package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// decider publishes decisions about accounts.
//
// A decision follows from the state of its account, so it must not be stored if the state has changed since it was made.
// Within this process, a lock on the account sees to that. Between dispatchers, the stream does: all decisions about an
// account have one subject in STATUS, and each is stored only if the last one there is the one that its dispatcher has
// folded. That is the fence. A dispatcher that was too late folds the other decision and proposes again. Reports are no
// decisions: they are stored whenever they come, and the fold says what they mean after a decision that did not know
// of them.
type decider struct {
	*shard
	locks     keylock.Locks[streams.AccountID] // of accounts: the holder may decide
	conflicts prometheus.Counter               // proposals that came too late
}

// lock waits until nobody else in this process decides about the account. It
// fails only with ctx.
func (s *decider) lock(ctx context.Context, a streams.AccountID) (unlock func(), err error) {
	return s.locks.Lock(ctx, a)
}

var errClock = fault.New(fault.Unavailable, "clock_differs", "This dispatcher's clock differs from the engines': it decides nothing until the wrong one is set right")

// decide publishes what propose makes of the account's state, if no other
// decision about the account has come in between; else it folds that one and
// proposes again, so propose may be called several times. It returns once its
// decision is folded: the caller can read its effect in the state. Where propose
// gives nil, nothing is decided. The caller has locked the account.
func (s *decider) decide(ctx context.Context, a streams.AccountID, propose func(state.Account) (event.Event, error)) error {
	subject := streams.DecisionSubject(s.number, a)
	decisions := s.decisionsOf(subject)
	decisions.Outrun = s.conflicts.Inc
	err := decisions.Decide(ctx, func() (decision *nats.Msg, last uint64, err error) {
		var e event.Event
		err = s.account(a, func(known state.Account) (err error) {
			last = known.LastDecision()
			e, err = propose(known)
			return err
		})
		if err != nil || e == nil {
			return nil, 0, err
		}
		if !s.deps.Agrees() {
			return nil, 0, errClock
		}
		decision, err = event.Message(subject, e)
		return decision, last, err
	})
	switch {
	case errors.Is(err, bus.ErrFull):
		return fault.New(fault.Full, "queue_full", "The queue is full, try again later").With(err)
	case errors.Is(err, bus.ErrNotStored):
		return fault.New(fault.Unavailable, "not_stored", "The queue cannot be written now, try again").With(err)
	}
	return err
}

// decisionsOf are the decisions under a subject of STATUS. One is known here once
// it is folded.
func (s *shard) decisionsOf(subject string) bus.Decisions {
	return bus.Decisions{Bus: s.deps.Bus, Stream: s.status, Subject: subject, Await: func(ctx context.Context, seq uint64) error {
		return s.file.Wait(ctx, s.status, seq)
	}}
}

// decisionWithin bounds one decision of a reaction.
const decisionWithin = 30 * time.Second

// lockAndDecide is decide for a reaction: it locks the account itself, and takes
// decisionWithin at most.
func (s *decider) lockAndDecide(ctx context.Context, a streams.AccountID, propose func(state.Account) (event.Event, error)) error {
	ctx, cancel := context.WithTimeout(ctx, decisionWithin)
	defer cancel()
	unlock, err := s.lock(ctx, a)
	if err != nil {
		return err
	}
	defer unlock()
	return s.decide(ctx, a, propose)
}
