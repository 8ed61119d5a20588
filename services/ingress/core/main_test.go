package core

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// number is an identity that is never lost.
type number struct{ ids *streams.IDs }

func (n number) Instance() (int, error) { return 0, nil }

func (n number) Give(_ context.Context, _ streams.Shard, ids []streams.MessageID) error {
	for i := range ids {
		ids[i] = n.ids.Message()
	}
	return nil
}

// commit is a committer that does something else besides.
type commit func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error)

func (c commit) Commit(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
	return c(ctx, msgs)
}

var account = &streams.Account{ID: streams.AccountIDOf("acme"), Name: "acme"}

var deployment = streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}

// newCore runs a core on a real engine without other parts.
func newCore(t testing.TB) *Core {
	t.Helper()
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	return newCoreOn(t, b, 0)
}

// newCoreOn runs a core of another ingress beside others on their engine.
func newCoreOn(t testing.TB, b *bus.Bus, instance int) *Core {
	t.Helper()
	enqueue := bus.NewCommitter(b, streams.EnqueueStream(0), bus.CommitterOptions{})
	status := bus.NewCommitter(b, streams.StatusStream(0), bus.CommitterOptions{})
	c := New(Options{
		Bus: b, Shards: 1, Enqueue: []Committer{enqueue}, Status: []Committer{status},
		Identity: number{streams.NewIDs(time.Now, instance, time.Time{})}, Log: zap.NewNop(), Now: time.Now,
	})
	run(t, c.Run, enqueue.Run, status.Run)
	<-c.accounts.loaded
	<-c.sessions.loaded
	return c
}

// run runs parts until the test ends.
func run(t testing.TB, parts ...func(context.Context) error) {
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

// stored counts what is under a subject of the ENQUEUE stream.
func stored(t *testing.T, c *Core, subject string) int {
	t.Helper()
	stream, err := c.bus.JS.Stream(t.Context(), streams.EnqueueStream(0))
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, count := range info.State.Subjects {
		n += int(count)
	}
	return n
}
