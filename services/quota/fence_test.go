package quota

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// late is a sender whose messages are on their way for as long as a test likes.
type late struct {
	*sender
	fence *bus.Fence
}

func (w *world) startLate(number int) *late {
	w.t.Helper()
	l := &late{w.startSender(number), bus.NewFence(w.bus, streams.EnqueueStream(0))}
	move, err := event.Message(streams.FenceSubject(0, number), event.Fence{By: "late"})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := l.fence.Use(w.t.Context(), move); err != nil {
		w.t.Fatal(err)
	}
	return l
}

// send reserves room and makes messages as an ingress does, which have not arrived.
func (l *late) send(account streams.AccountID, count int, limit int64) (request.Grant, []*nats.Msg) {
	l.w.t.Helper()
	expected, err := l.fence.Expect(l.w.t.Context())
	if err != nil {
		l.w.t.Fatal(err)
	}
	given, err := l.reserve(account, count, limit)
	if err != nil {
		l.w.t.Fatal(err)
	}
	msgs := make([]*nats.Msg, count)
	for i := range msgs {
		msgs[i] = l.w.message(account, given.Month, given.ID)
	}
	expected.Put(msgs[0])
	return given, msgs
}

// arrive hands messages to the engine as they were sent.
func (w *world) arrive(msgs []*nats.Msg) error {
	ctx, cancel := context.WithCancel(context.Background())
	c := bus.NewCommitter(w.bus, streams.EnqueueStream(0), bus.CommitterOptions{})
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	_, err := c.Commit(ctx, msgs)
	cancel()
	return errors.Join(err, <-done)
}

// Room that a grant left is given again only when what was sent for it cannot be stored any more.
func TestLateMessagesFindNoRoom(t *testing.T) {
	const limit = 10
	tests := map[string]func(w *world, l *late, i *instance){
		"the grant ends by itself": func(w *world, _ *late, _ *instance) {
			time.Sleep(request.GrantTTL + 2*time.Second)
		},
		"the leader is killed, and then the ingress": func(w *world, l *late, i *instance) {
			i.kill()
			l.kill()
			time.Sleep(2 * streams.ClaimTTL)
			w.start("b")
		},
		"the ingress is killed, and then the leader": func(w *world, l *late, i *instance) {
			l.kill()
			i.kill()
			time.Sleep(request.GrantTTL + 20*time.Second) // its claim is gone, too
			w.start("b")
		},
	}
	for name, wait := range tests {
		t.Run(name, func(t *testing.T) {
			bustest.Simulate(t, func(t *testing.T) {
				w := newWorld(t, 1)
				i := w.start("a")
				w.await("a leader", w.granting)
				l := w.startLate(1)
				_, msgs := l.send(alice, limit, limit)
				wait(w, l, i)
				w.await("room", func() bool { got, err := w.usage(alice); return err == nil && got.Used == 0 })
				other := w.startSender(2)
				if err := other.enqueue(alice, limit, limit); err != nil {
					t.Fatal(err)
				}
				var wrong *bus.WrongLast
				if err := w.arrive(msgs); !errors.As(err, &wrong) {
					t.Errorf("late messages: got %v, want that they are refused", err)
				}
				if stored := w.stored(alice); stored != limit {
					t.Errorf("got %d stored, the limit is %d", stored, limit)
				}
			})
		})
	}
}

// What arrives in time is stored, though another leader has come meanwhile, and is what its grant was for.
func TestMessagesInTimeOutliveTheLeader(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		l := w.startLate(1)
		_, msgs := l.send(alice, 4, 10)
		i.stop()
		next := w.start("b")
		w.await("the next leader", w.granting)
		w.mustUse(alice, 4)
		if err := w.arrive(msgs); err != nil {
			t.Errorf("in time: got %v", err)
		}
		next.folded()
		w.mustUse(alice, 4)
	})
}
