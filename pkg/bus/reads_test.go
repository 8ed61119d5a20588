package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestReads_BySubject(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	ctx := t.Context()
	for _, subject := range []string{"s.a", "s.b", "s.a", "s.c"} {
		if _, err := b.JS.Publish(ctx, subject, []byte(subject)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		subjects []string
		want     uint64
	}{{[]string{"s.a", "s.b"}, 3}, {[]string{"s.b", "s.a"}, 3}, {[]string{"s.none", "s.b"}, 2}, {[]string{"s.none"}, 0}, {nil, 0}, {[]string{"s.>"}, 4}} {
		if got, err := b.LastForSubjects(ctx, stream, test.subjects...); err != nil || got != test.want {
			t.Errorf("last of %v: got %d, %v, want %d", test.subjects, got, err, test.want)
		}
	}
	if _, err := b.LastForSubjects(ctx, "NONE", "s.a"); err == nil {
		t.Error("last of a stream that is not there: got no error")
	}
	for _, test := range []struct {
		subject string
		from    uint64
		want    uint64 // 0: none
	}{{"s.a", 1, 1}, {"s.a", 2, 3}, {"s.a", 3, 3}, {"s.a", 4, 0}, {"s.*", 4, 4}, {"s.none", 1, 0}} {
		next, err := b.Next(ctx, stream, test.subject, test.from)
		after, afterErr := b.FirstAfter(ctx, stream, test.subject, test.from-1)
		if test.want == 0 {
			if !errors.Is(err, bus.ErrNoMessage) || !errors.Is(afterErr, bus.ErrNoMessage) {
				t.Errorf("%s from %d: got %v and %v, want ErrNoMessage", test.subject, test.from, err, afterErr)
			}
			continue
		}
		if err != nil || afterErr != nil || next.Sequence != test.want || after.Sequence != test.want || string(next.Data) != next.Subject {
			t.Errorf("%s from %d: got %v, %v and %v, %v, want %d", test.subject, test.from, next, err, after, afterErr, test.want)
		}
	}
	b.Conn.Close()
	_, getErr := b.Get(ctx, stream, 1)
	_, nextErr := b.Next(ctx, stream, "s.a", 1)
	_, lastErr := b.LastForSubjects(ctx, stream, "s.a")
	for what, err := range map[string]error{"get": getErr, "next": nextErr, "last": lastErr} {
		if !bus.Away(err) || errors.Is(err, bus.ErrNoMessage) {
			t.Errorf("%s over a closed connection: got %v", what, err)
		}
	}
}

// A stored message may have headers that look like the engine's.
func TestReads_OwnStatus(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	m := message("s.a", "", "body")
	m.Header.Set("Status", "404")
	if _, err := b.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), stream, 1); err != nil || string(got.Data) != "body" || got.Header.Get("Status") != "404" {
		t.Errorf("got %v, %v", got, err)
	}
}

// answering answers all requests of a subject that no stream has.
func answering(t *testing.T, b *bus.Bus, subject string, with *nats.Msg) {
	t.Helper()
	sub, err := b.Conn.Subscribe(subject, func(m *nats.Msg) {
		if err := m.RespondMsg(with); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// Who else answers on a subject is not taken for a stream that has stored, nor for one that gives a message.
func TestAnswersOfOthers(t *testing.T) {
	for name, m := range map[string]*nats.Msg{
		"nothing":     {Header: nats.Header{}},
		"no JSON":     {Data: []byte("?")},
		"no sequence": {Data: []byte("{}")},
		"other form":  {Data: []byte(`{"seq":"one"}`)},
		"no time":     {Data: []byte("?"), Header: nats.Header{jetstream.SequenceHeader: {"1"}}},
		"a status":    {Header: nats.Header{"Status": {"400"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			answering(t, b, "plain", m)
			answering(t, b, "$JS.API.DIRECT.GET.PLAIN", m)
			seq, err := b.PublishFenced(t.Context(), message("plain", "", "x"), 0)
			if !errors.Is(err, bus.ErrUnknownOutcome) || errors.Is(err, bus.ErrNotStored) || seq != 0 {
				t.Errorf("publish: got %d, %v, want an unknown outcome", seq, err)
			}
			if m, err := b.Next(t.Context(), "PLAIN", "s.a", 1); err == nil || errors.Is(err, bus.ErrNoMessage) {
				t.Errorf("read: got %v, %v, want an error", m, err)
			}
			if err := b.Require(t.Context(), "plain", 1, 1); err == nil || errors.Is(err, bus.ErrTooSmall) {
				t.Errorf("require: got %v, want an error that leaves it open", err)
			}
			got, err := bus.Call[[]int](t.Context(), b, "plain", 1)
			if err == nil || got != nil {
				t.Errorf("call: got %v, %v, want an error", got, err)
			}
		})
	}
	b := bustest.New(t)
	answering(t, b, "faulty", &nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"invalid"}}, Data: []byte("?")})
	if _, err := bus.Call[int](t.Context(), b, "faulty", 1); err == nil || fault.As(err).Kind != fault.Internal {
		t.Errorf("a fault that cannot be read: got %v", err)
	}
	answering(t, b, "one", &nats.Msg{Data: []byte("1")})
	if _, err := bus.Call[int](t.Context(), b, "one", func() {}); err == nil {
		t.Error("a request that cannot be written: got no error")
	}
	answering(t, b, "batches", &nats.Msg{Data: []byte(`{"error":{"code":400,"err_code":10060}}`)})
	if err := b.Require(t.Context(), "batches", 1, 1); err == nil || errors.Is(err, bus.ErrTooSmall) {
		t.Errorf("require: got %v, want an error that leaves it open", err)
	}
	if err := b.Require(t.Context(), "none", 1, 1); err == nil || errors.Is(err, bus.ErrTooSmall) {
		t.Errorf("require of nobody: got %v, want an error that leaves it open", err)
	}
	answering(t, b, "stored", &nats.Msg{Data: []byte(`{"seq":5}`)})
	if err := b.Require(t.Context(), "stored", 1, 1); err == nil {
		t.Error("require: a batch without a beginning was stored, and there is no error")
	}
}

// What the engine's settings carry is found out exactly, and nothing is stored for it.
func TestRequire_Exactly(t *testing.T) {
	b := bustest.New(t)
	s := makeStream(t, b)
	most := b.Conn.MaxPayload()
	for _, test := range []struct {
		payload int64
		batch   int
		want    error
	}{{most, 1000, nil}, {most + 1, 1000, bus.ErrTooSmall}, {1, 1 << 20, bus.ErrTooSmall}} {
		if err := b.Require(t.Context(), "s.x", test.payload, test.batch); !errors.Is(err, test.want) {
			t.Errorf("%d bytes, %d messages: got %v, want %v", test.payload, test.batch, err, test.want)
		}
	}
	if info, err := s.Info(t.Context()); err != nil || info.State.LastSeq != 0 {
		t.Errorf("got %+v, %v, want nothing stored", info, err)
	}
}

// What was subscribed to for an answer is not left behind.
func TestNothingStaysSubscribed(t *testing.T) {
	b := bustest.New(t)
	makeLane(t, makeStream(t, b))
	if _, err := b.LastForSubject(t.Context(), stream, "s.x"); !errors.Is(err, bus.ErrNoMessage) { // the connection's own inbox
		t.Fatal(err)
	}
	before := b.Conn.NumSubscriptions()
	for range 3 {
		if _, err := b.Fetch(t.Context(), stream, "lane", 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
	stop := start(t, c.Run)
	if _, err := c.Commit(t.Context(), messages(1, "a")); err != nil {
		t.Fatal(err)
	}
	stop()
	if got := b.Conn.NumSubscriptions(); got != before {
		t.Errorf("got %d subscriptions, want %d as before", got, before)
	}
}

// Exactly the largest message fits, also where a batch adds to it.
func TestCommit_LargestMessage(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{Threshold: 1})
	start(t, c.Run)
	const batchAdds = 128
	sized := func(size int64) *nats.Msg {
		m := message("s.large", "", "")
		m.Header.Set("X", "x")
		m.Data = make([]byte, size-int64(m.Size()))
		return m
	}
	largest := b.Conn.MaxPayload() - batchAdds
	if _, err := c.Commit(t.Context(), []*nats.Msg{sized(largest), sized(largest)}); err != nil {
		t.Errorf("two of the largest: got %v", err)
	}
	if _, err := c.Commit(t.Context(), []*nats.Msg{sized(largest + 1)}); !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("one byte more: got %v, want ErrNotStored", err)
	}
}

// Without a connection there is no answer, and it is said that there is none.
func TestClosedConnection(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.PublishFenced(gone, message("s.a", "", ""), 0); !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("publish for who has gone: got %v, want ErrNotStored", err)
	}
	b.Conn.Close()
	if err := bus.NewCommitter(b, stream, bus.CommitterOptions{}).Run(t.Context()); err == nil {
		t.Error("committer: got no error")
	}
	if got, err := b.Fetch(t.Context(), stream, "lane", 1, 0); err == nil || got != nil {
		t.Errorf("fetch: got %v, %v, want an error", got, err)
	}
	if _, err := b.PublishFenced(t.Context(), message("s.a", "", ""), 0); !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("publish: got %v, want ErrNotStored", err)
	}
	if err := b.Serve(t.Context(), bus.ServeOptions{Name: "x", Version: "1.0.0"}); err == nil {
		t.Error("serve: got no error")
	}
}

// Of a consumer of which nothing is heard, the fetch says so after its time, and when its caller goes, at once.
func TestFetch_NobodyAnswers(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		sub, err := b.Conn.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.NONE.lane")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sub.Unsubscribe() }()
		began := time.Now()
		if got, err := b.Fetch(t.Context(), "NONE", "lane", 1, time.Second); !errors.Is(err, bus.ErrNoAnswer) || got != nil {
			t.Errorf("got %v, %v, want ErrNoAnswer", got, err)
		}
		if took := time.Since(began); took < time.Second || took > time.Minute {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if got, err := b.Fetch(ctx, "NONE", "lane", 1, time.Second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, bus.ErrNoAnswer) || got != nil {
			t.Errorf("for who has gone: got %v, %v", got, err)
		}
	})
}
