package bustest

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// Run runs parts until the test ends. The test fails if one of them fails.
func Run(t testing.TB, parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// Mute makes the engine of b ignore all requests about streams and buckets, until speak is called.
func Mute(t testing.TB, b *bus.Bus) (speak func()) {
	t.Helper()
	if _, err := b.Conn.Subscribe("mute.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	heard := b.JS
	var err error
	if b.JS, err = jetstream.NewWithAPIPrefix(b.Conn, "mute"); err != nil {
		t.Fatal(err)
	}
	return func() { b.JS = heard }
}
