package bus_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
)

// durable is a bus on an engine that syncs, as in production.
func durable(b *testing.B) *bus.Bus {
	b.Helper()
	server, err := natsd.Start(natsd.Options{Dir: b.TempDir(), InProcessOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Stop)
	conn, err := server.Connect("benchmark")
	if err != nil {
		b.Fatal(err)
	}
	made, err := bus.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	makeStream(b, made, func(c *jetstream.StreamConfig) { c.MaxBytes = 8 << 30 })
	return made
}

var ids atomic.Int64

// payload is n messages of 300 bytes with ids of their own.
func payload(n int) []*nats.Msg {
	msgs := make([]*nats.Msg, n)
	body := make([]byte, 300)
	for i := range msgs {
		id := ids.Add(1)
		msgs[i] = &nats.Msg{
			Subject: fmt.Sprintf("s.account%d.any.normal.text", id%100),
			Header:  nats.Header{jetstream.MsgIDHeader: {fmt.Sprint(id)}, "Trunkline-Kind": {"message.enqueued.v1"}},
			Data:    body,
		}
	}
	return msgs
}

// spread runs publish b.N times with n messages each, from senders at a time.
func spread(b *testing.B, senders, n int, publish func([]*nats.Msg) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wait sync.WaitGroup
	for range senders {
		wait.Go(func() {
			for left.Add(-1) >= 0 {
				if err := publish(payload(n)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "msgs/s")
}

func BenchmarkCommit(b *testing.B) {
	for _, load := range []struct{ senders, messages int }{{1, 1}, {32, 1}, {256, 1}, {8, 200}} {
		b.Run(fmt.Sprintf("%dx%d", load.senders, load.messages), func(b *testing.B) {
			made := durable(b)
			c := bus.NewCommitter(made, stream, bus.CommitterOptions{})
			start(b, c.Run)
			spread(b, load.senders, load.messages, func(msgs []*nats.Msg) error {
				_, err := c.Commit(context.Background(), msgs)
				return err
			})
		})
	}
}

// BenchmarkCeiling is what the engine does without a committer: synced single
// publishes, and full batches from one sender.
func BenchmarkCeiling(b *testing.B) {
	for _, senders := range []int{1, 256} {
		b.Run(fmt.Sprintf("single/%d", senders), func(b *testing.B) {
			made := durable(b)
			spread(b, senders, 1, func(msgs []*nats.Msg) error {
				_, err := made.JS.PublishMsg(context.Background(), msgs[0])
				return err
			})
		})
	}
	for _, n := range []int{20, 200, 1000} {
		b.Run(fmt.Sprintf("batch/%d", n), func(b *testing.B) {
			made := durable(b)
			spread(b, 1, n, func(msgs []*nats.Msg) error { return rawBatch(made, msgs) })
		})
	}
}

func rawBatch(b *bus.Bus, msgs []*nats.Msg) error {
	id := []string{nats.NewInbox()}
	last := len(msgs) - 1
	for i, m := range msgs {
		m.Header["Nats-Batch-Id"] = id
		m.Header["Nats-Batch-Sequence"] = []string{fmt.Sprint(i + 1)}
		if i == last {
			break
		}
		if err := b.Conn.PublishMsg(m); err != nil {
			return err
		}
	}
	msgs[last].Header["Nats-Batch-Commit"] = []string{"1"}
	_, err := b.Conn.RequestMsgWithContext(context.Background(), msgs[last])
	return err
}
