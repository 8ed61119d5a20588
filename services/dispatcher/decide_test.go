package dispatcher

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// alone is the one dispatcher over a shard. It folds until it is stopped, and does nothing by itself.
func alone(t *testing.T) (s *server, stop func()) {
	t.Helper()
	b := bustest.New(t)
	deployment := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	d := New(DefaultConfig(), Deps{Deps: service.Deps{Bus: b, Dir: t.TempDir(), Log: zap.NewNop(), Now: time.Now}, Shards: 1})
	s, err := openServer(d, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.file.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		s.close()
	})
	return s, stop
}

// decided stores a decision about an account, as another dispatcher might.
func (s *server) decided(t *testing.T, a streams.AccountID, e event.Event) uint64 {
	t.Helper()
	m, err := event.Message(streams.DecisionSubject(0, a), e)
	if err != nil {
		t.Fatal(err)
	}
	ack, err := s.deps.Bus.JS.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestDecisionOnAnOldViewIsNotStored(t *testing.T) {
	s, stop := alone(t)
	account := streams.AccountIDOf("shop")
	if err := s.file.Wait(t.Context(), s.status, s.decided(t, account, event.Renewed{})); err != nil {
		t.Fatal(err)
	}
	stop() // it sees nothing from now on
	last := s.decided(t, account, event.Renewed{})

	asked := 0
	err := s.puller.decisions.decide(t.Context(), account, func(state.Account) (event.Event, error) {
		asked++
		return event.Renewed{}, nil
	})
	if err == nil || asked != 1 {
		t.Errorf("asked %d times, got %v, want to fold the other decision first", asked, err)
	}
	stored, err := s.deps.Bus.LastForSubject(t.Context(), s.status, streams.DecisionSubject(0, account))
	if err != nil || stored.Sequence != last {
		t.Errorf("the last decision is %d, %v, want %d", stored.Sequence, err, last)
	}
}

// answered is a dispatcher that has decided about an account once. Its next decisions are answered so and not sent, until the
// answers have run out.
func answered(t *testing.T, account streams.AccountID, answers []func(s *server) error) *server {
	t.Helper()
	s, _ := alone(t)
	if err := s.file.Wait(t.Context(), s.status, s.decided(t, account, event.Renewed{})); err != nil {
		t.Fatal(err)
	}
	s.deps.Bus.MayStore = func() error {
		if len(answers) == 0 {
			return nil
		}
		answer := answers[0]
		answers = answers[1:]
		return answer(s)
	}
	return s
}

// What a cluster may answer, and what a decision makes of it: it is stored once, is folded when decide returns, and is
// proposed again only if another came first.
func TestDecide_Answers(t *testing.T) {
	account := streams.AccountIDOf("shop")
	proposed := func(n int) event.Event { return event.Renewed{At: time.Unix(int64(n), 0).UTC()} }
	lost := func(*server) error { return bus.ErrUnknownOutcome }
	underWay := func(*server) error { return &bus.WrongLast{UnderWay: true} }
	stores := func(events ...event.Event) func(s *server) error {
		return func(s *server) error {
			for _, e := range events {
				s.decided(t, account, e)
			}
			return bus.ErrUnknownOutcome
		}
	}
	rival := proposed(100)
	for name, test := range map[string]struct {
		answers []func(*server) error
		asked   int
		want    []event.Event // after the first
	}{
		"none lost":                        {nil, 1, []event.Event{proposed(1)}},
		"lost":                             {[]func(*server) error{lost, lost}, 1, []event.Event{proposed(1)}},
		"another's under way":              {[]func(*server) error{underWay, underWay}, 3, []event.Event{proposed(3)}},
		"ours under way, and lost":         {[]func(*server) error{lost, underWay}, 1, []event.Event{proposed(1)}},
		"the answer is lost":               {[]func(*server) error{stores(proposed(1))}, 1, []event.Event{proposed(1)}},
		"and another decides after that":   {[]func(*server) error{stores(proposed(1), rival)}, 1, []event.Event{proposed(1), rival}},
		"another was first":                {[]func(*server) error{stores(rival)}, 2, []event.Event{rival, proposed(2)}},
		"nothing can be stored after that": {[]func(*server) error{lost, func(*server) error { return bus.ErrFull }}, 1, []event.Event{proposed(1)}},
		"aged out, and then not":           {[]func(*server) error{func(*server) error { return &bus.WrongLast{} }}, 3, []event.Event{proposed(3)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := answered(t, account, test.answers)
			before := s.file.Cursor(s.status)
			asked := 0
			err := s.puller.decisions.decide(t.Context(), account, func(state.Account) (event.Event, error) {
				asked++
				return proposed(asked), nil
			})
			if err != nil || asked != test.asked {
				t.Errorf("asked %d times, got %v, want %d", asked, err, test.asked)
			}
			seq := before
			for i, want := range test.want {
				m, err := s.deps.Bus.FirstAfter(t.Context(), s.status, streams.DecisionSubject(0, account), seq)
				if err != nil {
					t.Fatalf("decision %d: %v", i, err)
				}
				data, err := event.Message("", want)
				if err != nil || string(m.Data) != string(data.Data) {
					t.Errorf("decision %d: got %s, want %s", i, m.Data, data.Data)
				}
				if seq = m.Sequence; i == 0 && s.file.Cursor(s.status) < seq {
					t.Errorf("folded up to %d, want %d", s.file.Cursor(s.status), seq)
				}
			}
			if m, err := s.deps.Bus.FirstAfter(t.Context(), s.status, streams.DecisionSubject(0, account), seq); err == nil {
				t.Errorf("got %s, want no more", m.Data)
			}
		})
	}
}

// A phone gets what is left when another dispatcher was quicker with what it was to get.
func TestOffer_AnotherIsQuicker(t *testing.T) {
	s, _ := alone(t)
	account, lane := streams.AccountIDOf("shop"), streams.Lane{Priority: streams.Normal}
	ids := streams.NewIDs(time.Now, 7, streams.Epoch)
	var messages []streams.MessageID
	for range 2 {
		messages = append(messages, ids.Message())
		m, err := event.Message(streams.EnqueueSubject(0, account, lane), event.Enqueued{ID: messages[len(messages)-1], Text: "text", Month: "2026-11"})
		if err != nil {
			t.Fatal(err)
		}
		ack, err := s.deps.Bus.JS.PublishMsg(t.Context(), m)
		if err == nil {
			err = s.file.Wait(t.Context(), s.enqueue, ack.Sequence)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	quicker := sync.OnceFunc(func() {
		now := time.Now().UTC()
		s.decided(t, account, event.Leased{
			Lease: ids.Lease(), At: now, Until: now.Add(time.Minute), Policy: streams.Retry, Attempts: 3,
			Messages: []event.Attempt{{ID: messages[0]}},
		})
	})
	s.deps.Bus.MayStore = func() error {
		quicker()
		return nil
	}
	page, err := s.puller.offer(t.Context(), request.Pull{Account: account, Limit: 1, Lease: time.Minute, Attempts: 3, Policy: streams.Retry})
	if err != nil || len(page.Messages) != 1 || page.Messages[0].ID != messages[1] {
		t.Errorf("got %v, %v, want message %s", page.Messages, err, messages[1])
	}
}
