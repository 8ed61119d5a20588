package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// decide publishes what propose makes of the projection, if no other decision
// about the account has come in between; else it folds that one and proposes
// again. It returns once its decision is folded; propose giving nil ends it
// with nothing decided. The caller has the account's turn.
//
// A decision of which nobody knows whether it was stored is published again as
// it is: it may come in late, and is known by being the first after its fence.
func (s *shard) decide(ctx context.Context, a streams.AccountID, propose func(view) (event.Event, error)) error {
	subject := streams.DecisionSubject(s.number, a)
	var unfolded, aged uint64
	var proposed *nats.Msg
	var last, fence uint64
	for unsure := false; ; {
		if !unsure {
			var e event.Event
			err := s.view(func(v view) (err error) {
				last = v.decision(a)
				e, err = propose(v)
				return err
			})
			if err != nil || e == nil {
				return err
			}
			fence = last
			switch last {
			case 0:
				// The projection forgets fences behind the horizon sooner than the
				// stream does.
				fence = unfolded
			case aged:
				fence = 0
			}
			if proposed, err = event.Message(subject, e); err != nil {
				return err
			}
		}
		seq, err := s.deps.Bus.PublishFenced(ctx, proposed, fence)
		var wrong *bus.WrongLast
		switch {
		case err == nil:
			return s.file.Wait(ctx, s.status, seq)
		case errors.As(err, &wrong) && wrong.Last == 0 && !wrong.UnderWay:
			s.metrics.conflicts.Inc()
			unfolded, aged, unsure = 0, last, false
			continue
		case errors.As(err, &wrong) && !wrong.UnderWay && !unsure:
			s.metrics.conflicts.Inc()
			unfolded, aged = wrong.Last, 0
			if err := s.file.Wait(ctx, s.status, wrong.Last); err != nil {
				return fmt.Errorf("fold another decision: %w", err)
			}
			continue
		case errors.Is(err, bus.ErrUnknownOutcome):
			unsure = true
		case errors.As(err, &wrong) && !wrong.UnderWay: // by ours, or by another's
		case unsure || errors.As(err, &wrong):
			// One is under way, perhaps ours, or nothing can be stored now.
			if sleepErr := clock.Sleep(ctx, askAgain); sleepErr != nil {
				return fmt.Errorf("publish %s: %w", subject, err)
			}
		case errors.Is(err, bus.ErrFull):
			return fault.New(fault.Full, "queue_full", "The queue is full, try again later").With(err)
		case errors.Is(err, bus.ErrNotStored):
			return fault.New(fault.Unavailable, "not_stored", "The queue cannot be written now, try again").With(err)
		default:
			return fmt.Errorf("publish %s: %w", subject, err)
		}
		if !unsure {
			continue
		}
		first, err := s.decisionAfter(ctx, subject, fence)
		if err != nil {
			return err
		}
		if first == nil {
			continue
		}
		if err := s.file.Wait(ctx, s.status, first.Sequence); err != nil {
			return fmt.Errorf("fold the next decision: %w", err)
		}
		if bytes.Equal(first.Data, proposed.Data) {
			return nil // it was ours
		}
		unfolded, aged, unsure = first.Sequence, 0, false
	}
}

// decideInTurn is decide for a reaction: it takes the account's turn, and has so
// long for it all.
func (s *shard) decideInTurn(ctx context.Context, a streams.AccountID, propose func(view) (event.Event, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	giveBack, err := s.turns.Take(ctx, a)
	if err != nil {
		return err
	}
	defer giveBack()
	return s.decide(ctx, a, propose)
}

// decisionAfter reads the first decision about an account after a sequence, nil
// if there is none, and asks until it has an answer.
func (s *shard) decisionAfter(ctx context.Context, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
	for {
		m, err := s.deps.Bus.FirstAfter(ctx, s.status, subject, seq)
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, bus.ErrNoMessage):
			return nil, nil
		}
		if clock.Sleep(ctx, askAgain) != nil {
			return nil, fmt.Errorf("learn what became of a decision: %w", err)
		}
	}
}

const askAgain = 100 * time.Millisecond
