package messages

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// behindNetwork runs a core with a fence, which reaches the engine over a network that can stop, and gives a bus of which
// that is not so.
func behindNetwork(t *testing.T, dir string) (*Messages, *bustest.Network, *bus.Bus) {
	t.Helper()
	engine, direct := bustest.Start(t, dir)
	t.Cleanup(engine.Stop)
	if err := streams.Ensure(t.Context(), direct.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	network := bustest.NewNetwork(func() (net.Conn, error) { return engine.InProcessConn() })
	conn, err := engine.ConnectBy("core", network)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	fence := bus.NewFence(b, streams.EnqueueStream(0))
	enqueue := bus.NewCommitter(b, streams.EnqueueStream(0), bus.CommitterOptions{Fence: fence})
	c := New(Options{
		Bus: b, Shards: 1, Enqueue: []Committer{enqueue}, Fences: []*bus.Fence{fence},
		Identity: number{streams.NewIDs(time.Now, 0, time.Time{})}, Log: zap.NewNop(), Now: time.Now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, part := range []func(context.Context) error{c.Run, enqueue.Run} {
		g.Go(func() error { return part(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		conn.Close() // what waits for the network ends
		if err := g.Wait(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	move, err := event.Message(streams.FenceSubject(0, 0), event.Fence{By: "core"})
	if err != nil {
		t.Fatal(err)
	}
	if err := fence.Use(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	return c, network, direct
}

// moveFence is what quota does before it gives the room of a grant again.
func moveFence(t *testing.T, b *bus.Bus) {
	t.Helper()
	move, err := event.Message(streams.FenceSubject(0, 0), event.Fence{By: "quota"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.PublishMsg(context.Background(), move); err != nil {
		t.Fatal(err)
	}
}

// Whatever a sender posts is stored once, or not at all where the sender was told so, however late a copy of it arrives.
func TestEnqueue_ArrivesLate(t *testing.T) {
	due := drafts(2)
	for name, cmd := range map[string]Enqueue{"one": drafts(1), "several": drafts(20), "keyed": keyed(3, "k", "hash"), "scheduled": due} {
		for _, cut := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				bustest.Simulate(t, func(t *testing.T) {
					if name == "scheduled" {
						cmd.Due = time.Now().Add(time.Hour)
					}
					c, network, direct := behindNetwork(t, dir)
					late := network.StopAt("sms." + map[bool]string{true: "scheduled.", false: "enqueue."}[name == "scheduled"])
					done := make(chan error, 1)
					go func() {
						_, err := c.Enqueue(context.Background(), cmd)
						done <- err
					}()
					late.Await(t, `"text":"text 0"`)
					want := len(cmd.Drafts)
					if cut {
						late.Cut()
					} else {
						want = 0 // the fence has moved when it arrives
					}
					err := <-done
					if cut && err != nil || !cut && !fault.Is(err, fault.UnknownOutcome) {
						t.Fatalf("got %v", err)
					}
					late.Cut()
					time.Sleep(36 * time.Second)
					late.Arrive()
					moveFence(t, direct) // behind it
					c.bus = direct
					if got := stored(t, c, allMessages) + stored(t, c, "sms.scheduled.>"); got != want {
						t.Errorf("got %d messages, want %d", got, want)
					}
				})
			})
		}
	}
}

// A request whose fence another has moved asks quota again: others may have its room by now.
func TestEnqueue_FencedOff(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		c, _, direct := behindNetwork(t, dir)
		q := &quota{leader: 5}
		bustest.Run(t, q.run(direct))
		for {
			if _, err := bus.Call[request.Released](t.Context(), direct, request.QuotaRelease, request.Release{}); err == nil {
				break
			}
		}
		q.released = nil
		cmd := drafts(2)
		limited := *account
		limited.Plan.Limit = 100
		cmd.Caller.Account = &limited
		engine, tries := c.enqueue[0], 0
		c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
			if tries++; tries == 1 {
				moveFence(t, direct)
			}
			return engine.Commit(ctx, msgs)
		})
		accepted, err := c.Enqueue(t.Context(), cmd)
		if err != nil {
			t.Fatal(err)
		}
		m, err := direct.Get(t.Context(), streams.EnqueueStream(0), accepted.First)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode[event.Enqueued](m.Data)
		if err != nil || e.Grant != "g2" {
			t.Errorf("got %+v, %v, want what was granted after the move", e.Grant, err)
		}
		if got := stored(t, c, allMessages); tries != 2 || got != 2 || len(q.released) != 1 || q.released[0] != "g1" || !c.Idle() {
			t.Errorf("got %d tries, %d stored, released %v", tries, got, q.released)
		}
	})
}

// A new leader of quota hears of the open grants when nothing else is under way any more.
func TestOpenGrants_MovesFences(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		c, _, direct := behindNetwork(t, dir)
		before, err := c.fences[0].Expect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 7}); err != nil {
			t.Fatal(err)
		}
		sent, err := event.Message(streams.EnqueueSubject(0, account.ID, lane), event.Enqueued{ID: 1, Month: "2026-11"})
		if err != nil {
			t.Fatal(err)
		}
		before.Put(sent)
		if _, err := direct.JS.PublishMsg(t.Context(), sent); err == nil {
			t.Error("what was sent before is stored after the answer")
		}
	})
}
