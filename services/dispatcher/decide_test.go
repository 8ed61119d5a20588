package dispatcher

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/bustest"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// alone is a shard that nobody else serves, and that folds until it is told to stop.
func alone(t *testing.T) (s *shard, stop func()) {
	t.Helper()
	b := bustest.New(t)
	deployment := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	d := New(DefaultConfig(), Deps{Deps: service.Deps{Bus: b, Dir: t.TempDir(), Log: zap.NewNop(), Now: time.Now}, Shards: 1})
	s, err := d.open(0)
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
func (s *shard) decided(t *testing.T, a streams.AccountID, e event.Event) uint64 {
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
	err := s.decide(t.Context(), account, func(view) (event.Event, error) {
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

// A decision that is not there when it is looked for, and comes in after that, is known as one's own.
func TestDecisionThatComesInLate(t *testing.T) {
	s, _ := alone(t)
	account := streams.AccountIDOf("shop")
	if err := s.file.Wait(t.Context(), s.status, s.decided(t, account, event.Renewed{})); err != nil {
		t.Fatal(err)
	}
	lost := true
	s.deps.Bus.Gate = func() error {
		if lost {
			lost = false
			return bus.ErrUnknownOutcome
		}
		return nil
	}
	proposed := func(n int) event.Event { return event.Renewed{At: time.Unix(int64(n), 0).UTC()} }
	var first uint64
	asked := 0
	err := s.decide(t.Context(), account, func(view) (event.Event, error) {
		if asked++; asked == 2 {
			first = s.decided(t, account, proposed(1))
		}
		return proposed(asked), nil
	})
	if err != nil || asked != 2 {
		t.Errorf("asked %d times, got %v, want twice", asked, err)
	}
	stored, err := s.deps.Bus.LastForSubject(t.Context(), s.status, streams.DecisionSubject(0, account))
	if err != nil || first == 0 || stored.Sequence != first {
		t.Fatalf("the last decision is %d, %v, want the first, which is %d", stored.Sequence, err, first)
	}
	if got := s.file.Cursor(s.status); got < first {
		t.Errorf("folded up to %d, want %d", got, first)
	}
}
