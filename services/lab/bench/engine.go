package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// engine is the ceiling of storing: one loop that stores full commits of the
// same events as fast as the engine syncs them, without HTTP, JSON or our group
// commit.
type engine struct {
	bus     *bus.Bus
	account streams.AccountID
	ids     *streams.IDs
}

func runEngine(ctx context.Context, dir string, obey func(context.Context, server) error) error {
	return withEngine(ctx, dir, func(b *bus.Bus) error {
		return obey(ctx, &engine{
			bus: b, account: streams.AccountIDOf(accountName(firstSender)), ids: streams.NewIDs(time.Now, instance, streams.Epoch),
		})
	})
}

func (*engine) hello() hello { return hello{} }

func (e *engine) do(ctx context.Context, q order) (answer, error) {
	if q.Do == doPublish {
		return e.publish(ctx, q.Count, q.For)
	}
	return unknown(q)
}

// publish stores commits of n messages, one after the other.
func (e *engine) publish(ctx context.Context, n int, d time.Duration) (answer, error) {
	commit := e.batch
	if n < ingress.DefaultConfig().BatchThreshold {
		commit = e.singles
	}
	bodies, err := bodies(n)
	if err != nil {
		return answer{}, err
	}
	var (
		stored  answer
		latency = newLatency()
		begun   = time.Now()
	)
	for stored.Took < d {
		before := stored.Took
		if err := commit(ctx, e.messages(bodies)); err != nil {
			return answer{}, err
		}
		stored.Took = time.Since(begun)
		stored.Messages += n
		latency.record(stored.Took - before)
	}
	stored.Latency, err = latency.encode()
	return stored, err
}

// bodies are n events of the size that the product stores.
func bodies(n int) ([][]byte, error) {
	all := make([][]byte, n)
	for i, m := range texts(n) {
		body, err := event.Encode(event.Enqueued{ID: 1, Phone: event.Private(m.Phone), Text: event.Private(m.Message), Month: "2026-01"})
		if err != nil {
			return nil, err
		}
		all[i] = body
	}
	return all, nil
}

func (e *engine) messages(bodies [][]byte) []*nats.Msg {
	subject := streams.EnqueueSubject(0, e.account, lane)
	all := make([]*nats.Msg, len(bodies))
	for i, body := range bodies {
		all[i] = &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
			event.KindHeader:      {string(event.KindEnqueued)},
			jetstream.MsgIDHeader: {e.account.String() + "/" + e.ids.Message().String()},
		}}
	}
	return all
}

// singles stores messages on their own, all under way at once.
func (e *engine) singles(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 1 {
		_, err := e.bus.JS.PublishMsg(ctx, msgs[0])
		return err
	}
	waiting := make([]jetstream.PubAckFuture, len(msgs))
	for i, msg := range msgs {
		var err error
		if waiting[i], err = e.bus.JS.PublishMsgAsync(msg); err != nil {
			return err
		}
	}
	for _, one := range waiting {
		select {
		case <-one.Ok():
		case err := <-one.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// batch stores messages as one atomic batch.
func (e *engine) batch(ctx context.Context, msgs []*nats.Msg) error {
	id := []string{nuid.Next()}
	last := len(msgs) - 1
	for i, msg := range msgs {
		msg.Header["Nats-Batch-Id"] = id
		msg.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
		if i == last {
			msg.Header["Nats-Batch-Commit"] = []string{"1"}
			break
		}
		if err := e.bus.Conn.PublishMsg(msg); err != nil {
			return err
		}
	}
	acknowledged, err := e.bus.Conn.RequestMsgWithContext(ctx, msgs[last])
	if err != nil {
		return err
	}
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		Count int                 `json:"count"`
	}
	switch err := json.Unmarshal(acknowledged.Data, &ack); {
	case err != nil:
		return err
	case ack.Error != nil:
		return ack.Error
	case ack.Count != len(msgs):
		return fmt.Errorf("the engine stored %d of %d messages", ack.Count, len(msgs))
	}
	return nil
}
