package state

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// ChangedBy says what the event of STATUS at a sequence did to messages, and
// whether all of them are known. One whose enqueue is not folded yet is not.
func (a Account) ChangedBy(seq uint64, messages []streams.MessageID) (changes []request.Change, allKnown bool, err error) {
	changes, allKnown = make([]request.Change, len(messages)), true
	for i, m := range messages {
		r, _, err := a.record(m)
		if err != nil {
			return changes, false, err
		}
		known := r.known()
		changes[i] = request.Change{Known: known, Changed: known && r.changedBy(seq), State: r.currentState()}
		allKnown = allKnown && known
	}
	return changes, allKnown, nil
}

// Preview says what reports of a device would change if they were stored now.
func (a Account) Preview(device streams.DeviceID, reports []request.Report) ([]request.Change, error) {
	changes := make([]request.Change, len(reports))
	for i, report := range reports {
		r, _, err := a.record(report.ID)
		if err != nil {
			return changes, err
		}
		holder, err := a.isHolder(&r, device)
		if err != nil {
			return changes, err
		}
		changes[i] = request.Change{Known: r.known(), Changed: r.known() && r.moves(report.State, holder), State: r.currentState()}
	}
	return changes, nil
}

// Cancel is the decision that takes back the messages that have not ended; if
// waiting is set, only those that wait to be handed out or are scheduled. It gives
// their ids too. It is nil if there are none.
func (a Account) Cancel(messages []streams.MessageID, waiting bool, now time.Time) (event.Event, []streams.MessageID, error) {
	attempts, ids, err := a.attempts(messages, func(r record, _ bool) bool {
		return !r.state.Terminal() && (!waiting || r.state == streams.Pending)
	})
	if err != nil || len(ids) == 0 {
		return nil, ids, err
	}
	return event.Cancelled{At: now, Messages: attempts}, ids, nil
}

// Requeue is the decision that offers messages again: those that ended without
// success, and those that a device holds after its lease lapsed. It gives their ids
// too. It is nil if there are none.
func (a Account) Requeue(messages []streams.MessageID, now time.Time) (event.Event, []streams.MessageID, error) {
	attempts, ids, err := a.attempts(messages, func(r record, held bool) bool {
		return r.state.Terminal() && !r.state.Success() || r.state == streams.Leased && held
	})
	if err != nil || len(ids) == 0 {
		return nil, ids, err
	}
	return event.Requeued{
		At: now,
		// Limit: a requeued message is valid for 72 h from then, if less than that was left. Beyond it: it expires.
		// Used up by: a message that no phone takes in this time. Hurts: only its sender; it can be requeued again.
		// Test: TestExpiredMessagesAreNotHandedOut.
		Until:    now.Add(streams.DefaultValidity),
		Messages: attempts,
	}, ids, nil
}

// attempts are the current attempts of the messages that fit, and their ids.
func (a Account) attempts(messages []streams.MessageID, fits func(r record, held bool) bool) (all []event.Attempt, ids []streams.MessageID, err error) {
	ids = []streams.MessageID{}
	for _, m := range messages {
		r, _, err := a.record(m)
		if err != nil {
			return nil, ids, err
		}
		held, err := a.isHeld(&r)
		if err != nil {
			return nil, ids, err
		}
		if r.known() && fits(r, held) {
			all = append(all, event.Attempt{ID: m, Round: r.round})
			ids = append(ids, m)
		}
	}
	return all, ids, nil
}
