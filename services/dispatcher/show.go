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
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Limit: `message list` gives at most 1,000 messages. Beyond it: the command fails.
// Used up by: the operator. Hurts: nobody else. Test: TestRequestsTooLarge.
const maxList = 1000

// questions answers where messages and groups stand. It changes nothing.
type questions struct {
	*shard
	bodies *bodies
}

// show finds a message and reads its events again.
func (s *questions) show(ctx context.Context, q request.Show) (request.Shown, error) {
	answer := request.Shown{Timeline: []request.Moment{}}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	var seq uint64
	var changes []uint64
	find := func() error {
		return s.view(func(v state.View) (err error) {
			account := q.Account
			if account == 0 {
				account = v.AccountOf(q.ID)
			}
			answer.Message, seq, changes, err = v.Account(account).Message(q.ID)
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
	steps := []place{{s.enqueue, seq}}
	for _, seq := range changes {
		steps = append(steps, place{s.status, seq})
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

// list gives an account's messages, newest first.
func (s *questions) list(ctx context.Context, q request.List) (request.Listed, error) {
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
	err := s.account(q.Account, func(known state.Account) (err error) {
		answer.Messages, err = known.List(q.Before, q.States, q.Limit)
		return err
	})
	return answer, err
}

// moment describes an event in words, without text or number.
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
