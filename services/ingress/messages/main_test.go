package messages

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/fleet"
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

// newMessages runs Messages on a real engine without other parts.
func newMessages(t testing.TB) *Messages {
	t.Helper()
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	return newMessagesOn(t, b, 0)
}

// newMessagesOn runs Messages of another ingress beside others on their engine.
func newMessagesOn(t testing.TB, b *bus.Bus, instance int) *Messages {
	t.Helper()
	enqueue := bus.NewCommitter(b, streams.EnqueueStream(0), bus.CommitterOptions{})
	status := bus.NewCommitter(b, streams.StatusStream(0), bus.CommitterOptions{})
	m := New(Options{
		Bus: b, Fleet: newFleet(b), Shards: 1, Enqueue: []Committer{enqueue}, Status: []Committer{status},
		Identity: number{streams.NewIDs(time.Now, instance, time.Time{})}, Log: zap.NewNop(), Now: time.Now,
	})
	bustest.Run(t, m.Run, enqueue.Run, status.Run)
	return m
}

func newFleet(b *bus.Bus) *fleet.Fleet {
	return fleet.New(fleet.Options{Bus: b, Log: zap.NewNop(), Now: time.Now})
}

// stored counts what is under a subject of the ENQUEUE stream.
func stored(t *testing.T, c *Messages, subject string) int {
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
