package bus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

const stream = "S"

// makeStream makes the stream S on s.>, as the ones of the product are.
func makeStream(t testing.TB, b *bus.Bus, change ...func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	config := jetstream.StreamConfig{
		Name:               stream,
		Subjects:           []string{"s.>"},
		AllowAtomicPublish: true,
		AllowMsgTTL:        true,
		AllowDirect:        true,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           1 << 30,
	}
	for _, c := range change {
		c(&config)
	}
	s, err := b.JS.CreateStream(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs f until the test ends, and waits for it.
func start(t testing.TB, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() {
		cancel()
		done.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// message makes one with a body; an id if it is not empty.
func message(subject, id, body string) *nats.Msg {
	m := nats.NewMsg(subject)
	if id != "" {
		m.Header.Set(jetstream.MsgIDHeader, id)
	}
	m.Data = []byte(body)
	return m
}

// messages makes n of them with the ids prefix-1 and on.
func messages(n int, prefix string) []*nats.Msg {
	all := make([]*nats.Msg, n)
	for i := range all {
		id := fmt.Sprintf("%s-%d", prefix, i+1)
		all[i] = message("s."+prefix, id, id)
	}
	return all
}

// bodies reads a whole stream.
func bodies(t testing.TB, b *bus.Bus) []string {
	t.Helper()
	ctx := context.Background()
	s, err := b.JS.Stream(ctx, stream)
	for bus.Away(err) {
		s, err = b.JS.Stream(ctx, stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := b.Get(ctx, stream, seq)
		for bus.Away(err) { // nodes that are few may be looking for a leader
			m, err = b.Get(ctx, stream, seq)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(m.Data))
	}
	return all
}
