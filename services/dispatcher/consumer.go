package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// ackWait brings back what was fetched by a dispatcher that died before
	// its lease was stored.
	ackWait = 30 * time.Second
	// fetchWait is for what the projection has seen and the consumer not yet.
	fetchWait = 100 * time.Millisecond
)

// The engine's answers to a create (specs of JetStream's API errors).
const (
	codeConsumerCreate   = 10012 // among others: its start cannot be changed
	codeConsumerNotFound = 10014
	codeConsumerOffline  = 10119
	codeConsumerExists   = 10148
)

// fetch takes up to n messages from the durable consumer of a lane: the cursor
// over what was never handed out of it. Losing one costs reading, never an SMS:
// every message that it gives is looked up in the projection. One made anew
// begins at lowest.
func (s *shard) fetch(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64, n int, wait time.Duration) ([]*bus.Fetched, error) {
	name := streams.ConsumerName(a, l)
	for attempt := 0; ; attempt++ {
		got, err := s.deps.Bus.Fetch(ctx, s.enqueue, name, n, wait)
		if err == nil || attempt == 2 || ctx.Err() != nil {
			return got, err
		}
		if errors.Is(err, bus.ErrNoConsumer) {
			if err := s.makeConsumer(ctx, a, l, lowest); err != nil {
				return nil, fmt.Errorf("make consumer %s: %w", name, err)
			}
		}
	}
}

func (s *shard) makeConsumer(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64) error {
	name := streams.ConsumerName(a, l)
	js := s.deps.Bus.JS
	for attempt := 0; ; attempt++ {
		_, err := js.CreateConsumer(ctx, s.enqueue, jetstream.ConsumerConfig{
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
			return nil
		}
		var api *jetstream.APIError
		refused := errors.As(err, &api)
		switch {
		case refused && (api.ErrorCode == codeConsumerExists || api.ErrorCode == codeConsumerCreate):
			// It exists and stands where it stands.
			if _, err := js.Consumer(ctx, s.enqueue, name); err == nil {
				return nil
			}
		case refused && api.ErrorCode != codeConsumerNotFound && api.ErrorCode != codeConsumerOffline:
			return err
		default:
			// Its node may be dead: make it elsewhere.
			_ = js.DeleteConsumer(ctx, s.enqueue, name)
		}
		if attempt == 3 || ctx.Err() != nil {
			return err
		}
	}
}

// mend deletes a consumer that says it has nothing although the projection
// knows messages that were never handed out: the next pull makes it anew. It
// says whether there was such a consumer.
func (s *shard) mend(ctx context.Context, a streams.AccountID, l streams.Lane) bool {
	name := streams.ConsumerName(a, l)
	consumer, err := s.deps.Bus.JS.Consumer(ctx, s.enqueue, name)
	if err != nil {
		return false
	}
	if info := consumer.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
		return false
	}
	_ = s.deps.Bus.JS.DeleteConsumer(ctx, s.enqueue, name)
	return true
}
