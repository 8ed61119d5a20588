package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
func (s *shard) decide(ctx context.Context, a streams.AccountID, propose func(view) (event.Event, error)) error {
	subject := streams.DecisionSubject(s.number, a)
	var unfolded, aged uint64
	var unsure [][]byte // decisions of ours that may come in late
	for {
		var e event.Event
		var last uint64
		err := s.view(func(v view) (err error) {
			last = v.decision(a)
			e, err = propose(v)
			return err
		})
		if err != nil || e == nil {
			return err
		}
		expect := last
		switch last {
		case 0:
			// The projection forgets fences behind the horizon sooner than the
			// stream does.
			expect = unfolded
		case aged:
			expect = 0
		}
		m, err := event.Message(subject, e)
		if err != nil {
			return err
		}
		seq, err := s.deps.Bus.PublishFenced(ctx, m, expect)
		var wrong *bus.WrongLast
		switch {
		case err == nil:
			return s.file.Wait(ctx, s.status, seq)
		case errors.As(err, &wrong):
			s.metrics.conflicts.Inc()
			if wrong.Last == 0 {
				unfolded, aged = 0, last
				continue
			}
			unfolded = wrong.Last
			if err := s.file.Wait(ctx, s.status, wrong.Last); err != nil {
				return fmt.Errorf("fold another decision: %w", err)
			}
			if len(unsure) == 0 {
				continue
			}
			stored, err := s.deps.Bus.Get(ctx, s.status, wrong.Last)
			if err != nil {
				return fmt.Errorf("read the last decision: %w", err)
			}
			if isOneOf(stored, unsure) {
				return nil
			}
		case errors.Is(err, bus.ErrUnknownOutcome):
			unsure = append(unsure, m.Data)
			stored, err := s.lastDecision(ctx, subject)
			if err != nil {
				return err
			}
			if stored == nil {
				continue
			}
			if err := s.file.Wait(ctx, s.status, stored.Sequence); err != nil {
				return fmt.Errorf("fold the last decision: %w", err)
			}
			if stored.Sequence > expect && isOneOf(stored, unsure) {
				return nil
			}
		case errors.Is(err, bus.ErrFull):
			return fault.New(fault.Full, "queue_full", "The queue is full, try again later").With(err)
		case errors.Is(err, bus.ErrNotStored):
			return fault.New(fault.Unavailable, "not_stored", "The queue cannot be written now, try again").With(err)
		default:
			return fmt.Errorf("publish %s: %w", e.Kind(), err)
		}
	}
}

func isOneOf(stored *jetstream.RawStreamMsg, decisions [][]byte) bool {
	return slices.ContainsFunc(decisions, func(d []byte) bool { return bytes.Equal(d, stored.Data) })
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

// lastDecision reads the newest decision about an account, nil if there is
// none, and asks until it has an answer.
func (s *shard) lastDecision(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	for {
		m, err := s.deps.Bus.LastForSubject(ctx, s.status, subject)
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
