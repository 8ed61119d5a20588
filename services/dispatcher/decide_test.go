package dispatcher

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bustest"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

func TestDecisionOnAnOldViewIsNotStored(t *testing.T) {
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
	defer s.close()

	account := streams.AccountIDOf("shop")
	publish := func() uint64 {
		m, err := event.Message(streams.DecisionSubject(0, account), event.Renewed{})
		if err != nil {
			t.Fatal(err)
		}
		ack, err := b.JS.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.file.Run(ctx) }()
	if err := s.file.Wait(t.Context(), s.status, publish()); err != nil {
		t.Fatal(err)
	}
	stop() // it sees nothing from now on
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	last := publish()

	asked := 0
	err = s.decide(t.Context(), account, func(view) (event.Event, error) {
		asked++
		return event.Renewed{}, nil
	})
	if err == nil || asked != 1 {
		t.Errorf("asked %d times, got %v, want to fold the other decision first", asked, err)
	}
	stored, err := b.LastForSubject(t.Context(), s.status, streams.DecisionSubject(0, account))
	if err != nil || stored.Sequence != last {
		t.Errorf("the last decision is %d, %v, want %d", stored.Sequence, err, last)
	}
}
