package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/turn"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// decider publishes decisions about accounts. Those of this process about one
// account follow each other; those of several dispatchers are fenced.
type decider struct {
	*shard
	locks     turn.Turns[streams.AccountID] // who holds an account's may decide about it
	conflicts prometheus.Counter
}

// lock waits until nobody else in this process decides about the account. It
// fails only with ctx.
func (s *decider) lock(ctx context.Context, a streams.AccountID) (unlock func(), err error) {
	return s.locks.Take(ctx, a)
}

var errClock = fault.New(fault.Unavailable, "clock_differs", "This dispatcher's clock differs from the engines': it decides nothing until the wrong one is set right")

// decide publishes what propose makes of the account's state, if no other
// decision about the account has come in between; else it folds that one and
// proposes again. It returns once its decision is folded. Where propose gives nil,
// nothing is decided. The caller has locked the account.
func (s *decider) decide(ctx context.Context, a streams.AccountID, propose func(state.Account) (event.Event, error)) error {
	subject := streams.DecisionSubject(s.number, a)
	var unfolded, aged uint64
	for {
		var e event.Event
		var last uint64
		err := s.account(a, func(known state.Account) (err error) {
			last = known.LastDecision()
			e, err = propose(known)
			return err
		})
		if err != nil || e == nil {
			return err
		}
		if !s.deps.Agrees() {
			return errClock
		}
		decision, err := event.Message(subject, e)
		if err != nil {
			return err
		}
		fence := last
		switch last {
		case 0:
			// The projection forgets fences behind the horizon sooner than the
			// stream does.
			fence = unfolded
		case aged:
			fence = 0
		}
		seq, ours, err := s.settle(ctx, decision, fence)
		if err != nil {
			return err
		}
		if !ours {
			s.conflicts.Inc()
		}
		if seq == 0 {
			unfolded, aged = 0, last
			continue
		}
		if err := s.file.Wait(ctx, s.status, seq); err != nil {
			return fmt.Errorf("fold the account's decisions: %w", err)
		}
		if ours {
			return nil
		}
		unfolded, aged = seq, 0
	}
}

// settle publishes a decision until it knows which decision stands behind the
// fence: it, and it is ours, or another one. That is the fence itself while
// another one is under way, and 0 if the fence has aged out and nothing has come.
//
// A decision of which nobody knows whether it was stored is published again as
// it is: it may come in late, and is known by being the first after its fence.
func (s *decider) settle(ctx context.Context, decision *nats.Msg, fence uint64) (seq uint64, ours bool, err error) {
	for unsure := false; ; {
		stored, err := s.deps.Bus.PublishFenced(ctx, decision, fence)
		var wrong *bus.WrongLast
		refused := errors.As(err, &wrong)
		switch {
		case err == nil:
			return stored, true, nil
		case refused && !wrong.UnderWay && (!unsure || wrong.Last == 0):
			return wrong.Last, false, nil
		case errors.Is(err, bus.ErrUnknownOutcome):
			unsure = true
		case refused && !wrong.UnderWay: // by ours that came in late, or by another's
		case refused || unsure:
			// One is under way, perhaps ours, or nothing can be stored now.
			if clock.Sleep(ctx, askAgain) != nil {
				return 0, false, fmt.Errorf("publish %s: %w", decision.Subject, err)
			}
			if !unsure {
				return fence, false, nil
			}
		case errors.Is(err, bus.ErrFull):
			return 0, false, fault.New(fault.Full, "queue_full", "The queue is full, try again later").With(err)
		case errors.Is(err, bus.ErrNotStored):
			return 0, false, fault.New(fault.Unavailable, "not_stored", "The queue cannot be written now, try again").With(err)
		default:
			return 0, false, fmt.Errorf("publish %s: %w", decision.Subject, err)
		}
		first, err := s.decisionAfter(ctx, decision.Subject, fence)
		if err != nil {
			return 0, false, err
		}
		if first != nil {
			return first.Sequence, bytes.Equal(first.Data, decision.Data), nil
		}
	}
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

// decisionAfter reads the first decision about an account after a sequence, nil
// if there is none, and asks until it has an answer.
func (s *decider) decisionAfter(ctx context.Context, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
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
