package dispatcher

import (
	"context"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// reports answers ingresses what a phone's report changed, or would change.
type reports struct {
	*shard
	decisions *decider
	leases    *leases
}

// changed says what a stored report did. A message whose enqueue is not folded
// yet is known all the same.
func (s *reports) changed(ctx context.Context, q request.ChangedBy) (request.Changed, error) {
	if err := s.file.Wait(ctx, s.status, q.Seq); err != nil {
		return request.Changed{}, errCatchingUp.With(err)
	}
	folded := s.file.Cursor(s.enqueue)
	answer, known, err := s.changes(q)
	if err != nil {
		return answer, err
	}
	if !known {
		// A message without an enqueue is unknown only if all that ENQUEUE has of the account is folded.
		if more, err := s.catchUp(ctx, q.Account, folded); err != nil {
			return answer, err
		} else if more {
			if answer, _, err = s.changes(q); err != nil {
				return answer, err
			}
		}
	}
	return answer, s.contact(ctx, q.Account, q.Device)
}

func (s *reports) changes(q request.ChangedBy) (answer request.Changed, allKnown bool, err error) {
	answer.Messages = make([]request.Change, len(q.Messages))
	allKnown = true
	err = s.account(q.Account, func(known state.Account) (err error) {
		answer.Messages, allKnown, err = known.ChangedBy(q.Seq, q.Messages)
		return err
	})
	return answer, allKnown, err
}

// preview says what a report would change, by all that is stored about the account
// when it is asked. If the report would change nothing it is not stored, so the
// device's leases are renewed here.
func (s *reports) preview(ctx context.Context, q request.Preview) (request.Changed, error) {
	answer := request.Changed{Messages: make([]request.Change, len(q.Messages))}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	if err := s.foldKnown(ctx, q.Account); err != nil {
		return answer, err
	}
	err := s.account(q.Account, func(known state.Account) (err error) {
		answer.Messages, err = known.Preview(q.Device, q.Messages)
		return err
	})
	if err != nil {
		return answer, err
	}
	return answer, s.contact(ctx, q.Account, q.Device)
}

// contact renews the leases of a device that has reported.
func (s *reports) contact(ctx context.Context, a streams.AccountID, d streams.DeviceID) error {
	unlock, err := s.decisions.lock(ctx, a)
	if err != nil {
		return err
	}
	defer unlock()
	return s.leases.renew(ctx, a, d)
}

// commands decides what operators and senders ask for.
type commands struct {
	*shard
	decisions *decider
}

// cancel takes messages back that have not ended. A phone that holds one may
// send it all the same, and its report then counts.
func (s *commands) cancel(ctx context.Context, q request.Decide) (request.Decided, error) {
	return s.decide(ctx, q, func(known state.Account) (event.Event, []streams.MessageID, error) {
		return known.Cancel(q.Messages, q.Waiting, s.now())
	})
}

// requeue offers messages again that ended without success, or that a device
// holds after its lease lapsed.
func (s *commands) requeue(ctx context.Context, q request.Decide) (request.Decided, error) {
	return s.decide(ctx, q, func(known state.Account) (event.Event, []streams.MessageID, error) {
		return known.Requeue(q.Messages, s.now())
	})
}

// decide makes a decision about messages, by everything that is accepted now, and
// answers which messages it is about.
func (s *commands) decide(ctx context.Context, q request.Decide, propose func(state.Account) (event.Event, []streams.MessageID, error)) (request.Decided, error) {
	answer := request.Decided{Changed: []streams.MessageID{}}
	if len(q.Messages) > event.MaxItems {
		return answer, fault.New(fault.Invalid, "too_many", "At most 1000 messages at a time")
	}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	unlock, err := s.decisions.lock(ctx, q.Account)
	if err != nil {
		return answer, err
	}
	defer unlock()
	if err := s.foldAccepted(ctx); err != nil {
		return answer, err
	}
	err = s.decisions.decide(ctx, q.Account, func(known state.Account) (decision event.Event, err error) {
		decision, answer.Changed, err = propose(known)
		return decision, err
	})
	return answer, err
}
