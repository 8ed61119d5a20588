package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestFetch(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		s := makeStream(t, b)
		ctx := t.Context()
		fetch := func(n int, wait time.Duration) []*bus.Fetched {
			t.Helper()
			got, err := b.Fetch(ctx, "S", "lane", n, wait)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if _, err := b.Fetch(ctx, "S", "lane", 5, time.Second); !errors.Is(err, bus.ErrNoConsumer) {
			t.Fatalf("without a consumer: %v, want ErrNoConsumer", err)
		}
		makeLane(t, s)
		if got := fetch(5, 0); len(got) != 0 {
			t.Fatalf("got %d messages of none", len(got))
		}
		begun := time.Now()
		if got := fetch(5, time.Second); len(got) != 0 || time.Since(begun) < time.Second {
			t.Fatalf("got %d messages of none after %s, want to have waited a second", len(got), time.Since(begun))
		}
		for _, body := range []string{"one", "two", "three"} {
			if _, err := b.JS.PublishMsg(ctx, message("s.x", "", body)); err != nil {
				t.Fatal(err)
			}
		}
		first := fetch(2, time.Second)
		if len(first) != 2 || string(first[0].Data) != "one" || first[1].Seq != 2 {
			t.Fatalf("got %v", first)
		}
		first[0].Ack()
		first[1].Nak()
		var rest []string
		for _, m := range fetch(5, time.Second) {
			rest = append(rest, string(m.Data))
			m.Ack()
		}
		for _, m := range fetch(5, time.Second) { // what was given back may come by itself
			rest = append(rest, string(m.Data))
			m.Ack()
		}
		if len(rest) != 2 {
			t.Errorf("then got %v, want two and three", rest)
		}
		time.Sleep(time.Hour)
		if got := fetch(5, 0); len(got) != 0 {
			t.Errorf("got %d messages that were acked", len(got))
		}
	})
}

// The engine's count of what a consumer has before it lags behind the store:
// a caller with the answer to a publish must get the message all the same.
func TestFetch_SeesWhatWasJustStored(t *testing.T) {
	b := bustest.New(t)
	makeLane(t, makeStream(t, b))
	for i := range 2000 {
		if _, err := b.JS.PublishMsg(t.Context(), message("s.x", "", "body")); err != nil {
			t.Fatal(err)
		}
		got, err := b.Fetch(t.Context(), "S", "lane", 10, 5*time.Second)
		if err != nil || len(got) != 1 {
			t.Fatalf("message %d: got %d, %v", i, len(got), err)
		}
		got[0].Ack()
	}
}

// The engine cuts short what it gives when the wait is over: it is asked for the
// rest, and what is left then comes with the next fetch.
func TestFetch_CutShort(t *testing.T) {
	b := bustest.New(t)
	makeLane(t, makeStream(t, b))
	const n = 20_000
	for range n {
		if _, err := b.JS.PublishMsgAsync(message("s.x", "", "body"), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	<-b.JS.PublishAsyncComplete()
	var fetches, seq uint64
	before := b.Conn.Stats().OutMsgs
	for seq < n {
		got, err := b.Fetch(t.Context(), "S", "lane", n, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		fetches++
		for _, m := range got {
			if seq++; m.Seq != seq {
				t.Fatalf("got %d, want %d", m.Seq, seq)
			}
		}
	}
	if asked := b.Conn.Stats().OutMsgs - before; asked <= fetches || asked > 2*fetches {
		t.Errorf("asked %d times in %d fetches, want once or twice in each", asked, fetches)
	}
}

func makeLane(t *testing.T, s jetstream.Stream) {
	t.Helper()
	_, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable: "lane", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxAckPending: -1, MemoryStorage: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}
