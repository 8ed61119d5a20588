package dispatcher

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

var errClock = fault.New(fault.Unavailable, "clock_differs", "This dispatcher's clock differs from the engines': it decides nothing until the wrong one is set right")

// decide publishes what propose makes of the projection, if no other decision
// about the account has come in between; else it folds that one and proposes
// again. It returns once its decision is folded; propose giving nil ends it
// with nothing decided. The caller holds the account's lock.
func (s *shard) decide(ctx context.Context, a streams.AccountID, propose func(view) (event.Event, error)) error {
	subject := streams.DecisionSubject(s.number, a)
	decisions := s.decisions(subject)
	decisions.Outrun = s.metrics.conflicts.Inc
	err := decisions.Decide(ctx, func() (decision *nats.Msg, last uint64, err error) {
		var e event.Event
		err = s.view(func(v view) (err error) {
			last = v.decision(a)
			e, err = propose(v)
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

// decisions are those of a subject in STATUS, known once they are folded.
func (s *shard) decisions(subject string) bus.Decisions {
	return bus.Decisions{Bus: s.deps.Bus, Stream: s.status, Subject: subject, Await: func(ctx context.Context, seq uint64) error {
		return s.file.Wait(ctx, s.status, seq)
	}}
}

// decideInTurn is decide for a reaction: it locks the account, and has so long
// for it all.
func (s *shard) decideInTurn(ctx context.Context, a streams.AccountID, propose func(view) (event.Event, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	unlock, err := s.turns.Lock(ctx, a)
	if err != nil {
		return err
	}
	defer unlock()
	return s.decide(ctx, a, propose)
}
