package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestPublishFenced(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	ctx := t.Context()
	m := message("s.decision", "", "one")
	first, err := b.PublishFenced(ctx, m, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Header) != 0 {
		t.Errorf("the message's header was changed: %v", m.Header)
	}
	if _, err := b.PublishFenced(ctx, message("s.other", "", "x"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = b.PublishFenced(ctx, message("s.decision", "", "late"), 0)
	var wrong *bus.WrongLast
	if !errors.As(err, &wrong) || wrong.Last != first || !errors.Is(err, bus.ErrNotStored) {
		t.Fatalf("got %v, want WrongLast %d", err, first)
	}
	if _, err := b.PublishFenced(ctx, message("s.decision", "", "two"), wrong.Last); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "x", "two"}, bodies(t, b)); diff != "" {
		t.Error(diff)
	}
}

// What the subject held has aged out: the engine names 0, and expecting 0 works.
func TestPublishFenced_AgedOut(t *testing.T) {
	b := bustest.New(t)
	s := makeStream(t, b)
	ctx := t.Context()
	seq, err := b.PublishFenced(ctx, message("s.decision", "", "old"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = b.PublishFenced(ctx, message("s.decision", "", "new"), seq)
	var wrong *bus.WrongLast
	if !errors.As(err, &wrong) || wrong.Last != 0 {
		t.Fatalf("got %v, want WrongLast 0", err)
	}
	if _, err := b.PublishFenced(ctx, message("s.decision", "", "new"), 0); err != nil {
		t.Error(err)
	}
}

func TestPublishFenced_Refusals(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b, func(c *jetstream.StreamConfig) { c.MaxBytes = 4 << 10 })
	ctx := t.Context()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	tests := map[string]struct {
		ctx  context.Context
		msg  *nats.Msg
		want error
	}{
		"full":             {ctx, message("s.x", "", string(make([]byte, 8<<10))), bus.ErrFull},
		"larger than any":  {ctx, message("s.x", "", string(make([]byte, 2*natsd.MaxPayload))), nats.ErrMaxPayload},
		"no stream":        {ctx, message("nobody", "", ""), nats.ErrNoResponders},
		"caller has ended": {cancelled, message("s.x", "", ""), context.Canceled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := b.PublishFenced(test.ctx, test.msg, 0)
			if !errors.Is(err, test.want) || !errors.Is(err, bus.ErrNotStored) || errors.Is(err, bus.ErrUnknownOutcome) {
				t.Errorf("got %v, want %v and ErrNotStored", err, test.want)
			}
		})
	}
}

func TestPublishFenced_DuplicateIDWithTheRightFence(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	ctx := t.Context()
	if _, err := b.PublishFenced(ctx, message("s.a", "id", ""), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.PublishFenced(ctx, message("s.b", "id", ""), 0); !errors.Is(err, bus.ErrDuplicate) {
		t.Errorf("got %v, want ErrDuplicate", err)
	}
}

func TestPublishFenced_LostAnswerIsUnknown(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l := startLossy(t, dir)
		makeStream(t, l.Bus)
		l.loseAnswers(1)
		_, err := l.PublishFenced(context.Background(), message("s.decision", "", "one"), 0)
		if !errors.Is(err, bus.ErrUnknownOutcome) || errors.Is(err, bus.ErrNotStored) {
			t.Errorf("got %v, want ErrUnknownOutcome", err)
		}
		l.waitConnected(t)
		last, err := l.LastForSubject(context.Background(), stream, "s.decision")
		if err != nil || string(last.Data) != "one" {
			t.Errorf("got %v, %v, want the message that was stored", last, err)
		}
	})
}

func TestReads(t *testing.T) {
	for name, direct := range map[string]bool{"direct": true, "leader only": false} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			makeStream(t, b, func(c *jetstream.StreamConfig) { c.AllowDirect = direct })
			ctx := t.Context()
			m := message("s.x", "id", "first")
			m.Header.Set("Trunkline-Kind", "k.v1")
			before := time.Now().Add(-time.Second)
			if _, err := b.JS.PublishMsg(ctx, m); err != nil {
				t.Fatal(err)
			}
			if _, err := b.JS.Publish(ctx, "s.empty", nil); err != nil {
				t.Fatal(err)
			}
			want := &jetstream.RawStreamMsg{Subject: "s.x", Sequence: 1, Header: m.Header, Data: []byte("first")}
			got, err := b.Get(ctx, stream, 1)
			if err != nil {
				t.Fatal(err)
			}
			last, err := b.LastForSubject(ctx, stream, "s.x")
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range []*jetstream.RawStreamMsg{got, last} {
				if got.Time.Before(before) || got.Time.After(time.Now()) {
					t.Errorf("got time %v", got.Time)
				}
				got.Time = time.Time{}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			if got, err := b.Get(ctx, stream, 2); err != nil || len(got.Data) != 0 || got.Subject != "s.empty" {
				t.Errorf("got %v, %v, want the empty message", got, err)
			}
			if _, err := b.Get(ctx, stream, 3); !errors.Is(err, bus.ErrNoMessage) {
				t.Errorf("got %v, want ErrNoMessage", err)
			}
			if _, err := b.LastForSubject(ctx, stream, "s.none"); !errors.Is(err, bus.ErrNoMessage) {
				t.Errorf("got %v, want ErrNoMessage", err)
			}
			if _, err := b.Get(ctx, "NONE", 1); err == nil || errors.Is(err, bus.ErrNoMessage) {
				t.Errorf("got %v, want an error of another stream", err)
			}
		})
	}
}
