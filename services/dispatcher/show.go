package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// maxList is the most messages that one list gives. Only the operator meets
// it.
const maxList = 1000

// show finds a message and reads its events again.
func (s *shard) show(ctx context.Context, q request.Show) (request.Shown, error) {
	answer := request.Shown{Timeline: []request.Moment{}}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	var r record
	account := q.Account
	find := func() error {
		return s.view(func(v view) error {
			if account == 0 {
				account = v.accountOf(q.ID)
			}
			var ok bool
			var err error
			if r, ok, err = v.record(account, q.ID); err != nil || !ok || !r.known() {
				return err
			}
			answer.Message, err = v.message(account, q.ID, r)
			return err
		})
	}
	err := find()
	if err == nil && answer.Message == nil { // it may have been accepted a moment ago
		if err = s.foldAccepted(ctx); err == nil {
			err = find()
		}
	}
	if err != nil || answer.Message == nil {
		return answer, err
	}
	type place struct {
		stream string
		seq    uint64
	}
	steps := []place{{s.enqueue, r.seq}}
	for _, step := range r.steps {
		steps = append(steps, place{s.status, step.seq})
	}
	for _, step := range steps {
		m, err := s.deps.Bus.Get(ctx, step.stream, step.seq)
		if errors.Is(err, bus.ErrNoMessage) {
			continue // it has aged out
		}
		if err != nil {
			return answer, fault.New(fault.Unavailable, "unreadable", "The message's events cannot be read now").With(err)
		}
		answer.Timeline = append(answer.Timeline, moment(step.stream, q.ID, m))
	}
	slices.SortStableFunc(answer.Timeline, func(a, b request.Moment) int { return a.At.Compare(b.At) })
	return answer, nil
}

// accountOf finds whose message it is, at one seek an account.
func (v view) accountOf(m streams.MessageID) streams.AccountID {
	var owner streams.AccountID
	b := v.bucket(messagesBucket)
	eachAccount(b, func(a streams.AccountID) bool {
		if b.Get(messageKey(a, m)) != nil {
			owner = a
		}
		return owner == 0
	})
	return owner
}

func (v view) message(a streams.AccountID, m streams.MessageID, r record) (*request.Message, error) {
	answer := &request.Message{
		ID: m, Account: a, Lane: r.lane.String(), State: r.stands(), Round: r.round, Offers: r.tries,
		Reason: r.reason, Lease: r.lease, Due: r.due, Valid: r.valid(), Group: r.group, Name: r.name,
	}
	if r.device != 0 {
		answer.Device = r.device.String()
	}
	l, ok, err := v.lease(a, r.lease)
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

// list gives an account's messages, newest first.
func (s *shard) list(ctx context.Context, q request.List) (request.Listed, error) {
	answer := request.Listed{Messages: []request.Message{}}
	if q.Limit < 1 || q.Limit > maxList {
		return answer, fault.New(fault.Invalid, "bad_limit", "A list has 1 to 1000 messages")
	}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	if err := s.foldAccepted(ctx); err != nil {
		return answer, err
	}
	err := s.view(func(v view) error {
		last := ^streams.MessageID(0)
		if q.Before != 0 {
			last = q.Before
		}
		c := v.bucket(messagesBucket).Cursor()
		var value []byte
		key, _ := c.Seek(messageKey(q.Account, last))
		if key == nil {
			key, value = c.Last()
		} else {
			key, value = c.Prev()
		}
		for ; key != nil && streams.AccountID(id(key, 0)) == q.Account && len(answer.Messages) < q.Limit; key, value = c.Prev() {
			r, err := decodeRecord(value)
			if err != nil {
				return err
			}
			if !r.known() || len(q.States) > 0 && !slices.Contains(q.States, r.stands()) {
				continue
			}
			m, err := v.message(q.Account, streams.MessageID(id(key, 1)), r)
			if err != nil {
				return err
			}
			answer.Messages = append(answer.Messages, *m)
		}
		return nil
	})
	return answer, err
}

// moment tells an event in words, without text or number.
func moment(stream string, id streams.MessageID, m *jetstream.RawStreamMsg) request.Moment {
	kind := event.Kind(m.Header.Get(event.KindHeader))
	return request.Moment{At: m.Time.UTC(), Stream: stream, Seq: m.Sequence, Kind: string(kind), What: words(kind, id, m.Data)}
}

func words(kind event.Kind, id streams.MessageID, data []byte) string {
	switch kind {
	case event.KindEnqueued:
		if e, err := event.Decode[event.Enqueued](data); err == nil {
			if e.Released {
				return "due"
			}
			return "accepted, counts in " + e.Month
		}
	case event.KindScheduled:
		if e, err := event.Decode[event.Scheduled](data); err == nil {
			return "accepted, counts in " + e.Month + ", due " + e.Due.Format(time.RFC3339)
		}
	case event.KindLeased:
		if e, err := event.Decode[event.Leased](data); err == nil {
			return fmt.Sprintf("handed to %s until %s, lease %s", phone(e.Name, e.Device), e.Until.Format(time.RFC3339), e.Lease)
		}
	case event.KindLapsed:
		e, err := event.Decode[event.Lapsed](data)
		if err != nil {
			break
		}
		for _, lapse := range e.Messages {
			if lapse.ID == id {
				return fmt.Sprintf("lease %s ran out: %s", e.Lease, lapse.To)
			}
		}
	case event.KindCancelled:
		return "cancelled"
	case event.KindExpired:
		return "its validity ran out"
	case event.KindRequeued:
		return "offered again by an operator"
	case event.KindReported:
		e, err := event.Decode[event.Reported](data)
		if err != nil {
			break
		}
		for _, report := range e.Messages {
			if report.ID != id {
				continue
			}
			if report.Error != "" {
				return fmt.Sprintf("%s reported %s: %s", phone(e.Name, e.Device), report.State, report.Error)
			}
			return fmt.Sprintf("%s reported %s", phone(e.Name, e.Device), report.State)
		}
	}
	return ""
}

func phone(name string, device streams.DeviceID) string {
	switch {
	case name != "":
		return "phone " + name
	case device != 0:
		return "phone " + device.String()
	default:
		return "a phone"
	}
}
