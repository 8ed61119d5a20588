package state

import (
	"slices"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Message gives one message, with the sequence of its event in ENQUEUE and those
// of the events of STATUS that changed it. It is nil where there is none.
func (a Account) Message(m streams.MessageID) (found *request.Message, seq uint64, changes []uint64, err error) {
	r, ok, err := a.record(m)
	if err != nil || !ok || !r.known() {
		return nil, 0, nil, err
	}
	for _, step := range r.steps {
		changes = append(changes, step.seq)
	}
	found, err = a.message(m, r)
	return found, r.seq, changes, err
}

// List gives up to limit messages, newest first, that are older than before,
// unless that is zero, and in one of the states, unless there are none.
func (a Account) List(before streams.MessageID, states []streams.State, limit int) ([]request.Message, error) {
	all := []request.Message{}
	last := ^streams.MessageID(0)
	if before != 0 {
		last = before
	}
	c := a.bucket(messagesBucket).Cursor()
	var value []byte
	key, _ := c.Seek(messageKey(a.account, last))
	if key == nil {
		key, value = c.Last()
	} else {
		key, value = c.Prev()
	}
	for ; key != nil && streams.AccountID(id(key, 0)) == a.account && len(all) < limit; key, value = c.Prev() {
		r, err := decodeRecord(value)
		if err != nil {
			return all, err
		}
		if !r.known() || len(states) > 0 && !slices.Contains(states, r.currentState()) {
			continue
		}
		m, err := a.message(streams.MessageID(id(key, 1)), r)
		if err != nil {
			return all, err
		}
		all = append(all, *m)
	}
	return all, nil
}

func (a Account) message(m streams.MessageID, r record) (*request.Message, error) {
	answer := &request.Message{
		ID: m, Account: a.account, Lane: r.lane.String(), State: r.currentState(), Round: r.round, Offers: r.tries,
		Reason: r.reason, Lease: r.lease, Due: r.due, Valid: r.valid(), Group: r.group, Name: r.name,
	}
	if r.device != 0 {
		answer.Device = r.device.String()
	}
	l, ok, err := a.lease(r.lease)
	if err != nil {
		return nil, err
	}
	if ok && r.state == streams.Leased {
		if l.name != "" {
			answer.Device = l.name
		}
		if !l.held {
			answer.Until = l.until
		}
	}
	return answer, nil
}
