package projection

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// A server that lost the pull sends no heartbeats for it.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := beginSession(t)
		s.open = true // as if it had pulled
		if err := s.run(t.Context()); !errors.Is(err, errSilent) {
			t.Errorf("got %v, want %v", err, errSilent)
		}
	})
}

// An event that the server delivered and that did not come is missed by the
// one behind it, or by the next heartbeat.
func TestMissedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { missEvent(t) })
}

func missEvent(t *testing.T) {
	b, s := beginSession(t)
	s.pace = pace{pull: time.Minute, heartbeat: 100 * time.Millisecond}
	if err := s.pull(); err != nil {
		t.Fatal(err)
	}
	next := func() *nats.Msg {
		if _, err := b.JS.Publish(t.Context(), "ORDERS.a", nil); err != nil {
			t.Fatal(err)
		}
		return <-s.messages
	}
	if err := s.receive(t.Context(), next()); err != nil {
		t.Fatal(err)
	}
	next()
	heartbeat := <-s.messages
	if err := s.receive(t.Context(), heartbeat); err == nil {
		t.Error("a heartbeat counted two events, and one was received")
	}
	if err := s.receive(t.Context(), next()); err == nil {
		t.Error("received the third event after the first")
	}
	if got := s.reader.queue.take(nil); len(got) != 2 || got[1].Seq != 1 {
		t.Errorf("queued %v", got)
	}
}

func beginSession(t *testing.T) (*bus.Bus, *session) {
	t.Helper()
	b := bustest.New(t)
	_, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"ORDERS.>"}})
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(b, zap.NewNop(), Source{Stream: "ORDERS"}, newQueue(), 10, cursor{}, 0)
	s, err := r.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return b, s
}
