package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/streams"
)

// consumers are the durable consumers of the lanes: each is the cursor over
// what was never handed out of its lane. Losing one costs reading, never an
// SMS: every message that it gives is looked up in the projection.
type consumers struct {
	mu   sync.Mutex
	open map[string]jetstream.Consumer
}

const (
	// ackWait brings back what was fetched by a dispatcher that died before
	// its lease was stored.
	ackWait = 30 * time.Second
	// keptConsumers bounds the handles that are kept; the next pull of a lane
	// whose handle was dropped looks its consumer up.
	keptConsumers = 20_000
)

// The engine's answers to a create (specs of JetStream's API errors).
const (
	codeConsumerCreate   = 10012 // among others: its start cannot be changed
	codeConsumerNotFound = 10014
	codeConsumerOffline  = 10119
	codeConsumerExists   = 10148
)

func (c *consumers) get(name string) jetstream.Consumer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[name]
}

func (c *consumers) put(name string, consumer jetstream.Consumer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil || len(c.open) >= keptConsumers {
		c.open = map[string]jetstream.Consumer{}
	}
	c.open[name] = consumer
}

func (c *consumers) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, name)
}

// fetch takes up to n messages of a lane that were never handed out, without
// waiting for more. lowest is where a consumer made anew begins.
func (s *shard) fetch(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64, n int) ([]jetstream.Msg, error) {
	name := streams.ConsumerName(a, l)
	for attempt := 0; ; attempt++ {
		consumer := s.lanes.get(name)
		if consumer == nil {
			made, err := s.makeConsumer(ctx, a, l, lowest)
			if err != nil {
				return nil, fmt.Errorf("make consumer %s: %w", name, err)
			}
			consumer = made
			s.lanes.put(name, consumer)
		}
		got, err := fetchNoWait(consumer, n)
		if err == nil || len(got) > 0 {
			return got, nil
		}
		s.lanes.forget(name)
		if attempt == 2 || ctx.Err() != nil {
			return nil, fmt.Errorf("fetch from consumer %s: %w", name, err)
		}
	}
}

func fetchNoWait(consumer jetstream.Consumer, n int) ([]jetstream.Msg, error) {
	batch, err := consumer.FetchNoWait(n)
	if err != nil {
		return nil, err
	}
	got := make([]jetstream.Msg, 0, n)
	for m := range batch.Messages() {
		got = append(got, m)
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
		return got, err
	}
	return got, nil
}

func (s *shard) makeConsumer(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64) (jetstream.Consumer, error) {
	name := streams.ConsumerName(a, l)
	js := s.deps.Bus.JS
	for attempt := 0; ; attempt++ {
		consumer, err := js.CreateConsumer(ctx, s.enqueue, jetstream.ConsumerConfig{
			Durable:           name,
			FilterSubject:     streams.EnqueueSubject(s.number, a, l),
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       lowest,
			AckPolicy:         jetstream.AckExplicitPolicy,
			AckWait:           ackWait,
			MaxDeliver:        -1,
			MaxAckPending:     -1,
			InactiveThreshold: s.cfg.ConsumerIdle,
			Replicas:          1,
			// File-backed ones cost 10 ms each when the engine stops.
			MemoryStorage: true,
		})
		if err == nil {
			return consumer, nil
		}
		var api *jetstream.APIError
		refused := errors.As(err, &api)
		switch {
		case refused && (api.ErrorCode == codeConsumerExists || api.ErrorCode == codeConsumerCreate):
			// It exists and stands where it stands.
			if consumer, err := js.Consumer(ctx, s.enqueue, name); err == nil {
				return consumer, nil
			}
		case refused && api.ErrorCode != codeConsumerNotFound && api.ErrorCode != codeConsumerOffline:
			return nil, err
		default:
			// Its node may be dead: make it elsewhere.
			_ = js.DeleteConsumer(ctx, s.enqueue, name)
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, err
		}
	}
}

// mend deletes a consumer that says it has nothing although the projection
// knows messages that were never handed out: the next pull makes it anew. It
// says whether there was such a consumer.
func (s *shard) mend(ctx context.Context, a streams.AccountID, l streams.Lane) bool {
	name := streams.ConsumerName(a, l)
	consumer := s.lanes.get(name)
	if consumer == nil {
		return false
	}
	info, err := consumer.Info(ctx)
	if err != nil || info.NumPending > 0 || info.NumAckPending > 0 {
		return false
	}
	s.lanes.forget(name)
	_ = s.deps.Bus.JS.DeleteConsumer(ctx, s.enqueue, name)
	return true
}
