package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// ackWait is when the engine gives a message again that was not acked: its dispatcher died before the lease was
	// stored.
	ackWait = 30 * time.Second
	// fetchWait is for messages that the projection has folded and the consumer has not seen yet.
	fetchWait = 100 * time.Millisecond
	// slowFetchWait is for a machine that is busier than that.
	slowFetchWait = time.Second
	// fetchTries bounds how often a consumer is asked that gives nothing.
	fetchTries = 4
)

// The engine's answers to a create (specs of JetStream's API errors).
const (
	codeConsumerCreate   = 10012 // among others: its start cannot be changed
	codeConsumerNotFound = 10014
	codeConsumerOffline  = 10119
	codeConsumerExists   = 10148
)

// consumers are the durable consumers of a shard's lanes. Each is a cursor over the
// messages of its lane that were never handed out. A consumer is never believed:
// every message that it gives is looked up in the state. So one that is lost costs
// some reading, and no SMS is lost or sent twice.
type consumers struct {
	*shard
	idle time.Duration // how long the engine keeps one that nobody fetches from
}

// fetch takes up to n messages from the consumer of a lane. One that is not there
// is created, and begins at lowest.
func (s *consumers) fetch(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64, n int, wait time.Duration) ([]*bus.Fetched, error) {
	name := streams.ConsumerName(a, l)
	for attempt := 0; ; attempt++ {
		got, err := s.deps.Bus.Fetch(ctx, s.enqueue, name, n, wait)
		silent := errors.Is(err, bus.ErrNoAnswer)
		if err == nil || attempt == fetchAttempts || ctx.Err() != nil || !silent && !errors.Is(err, bus.ErrNoConsumer) {
			return got, err
		}
		if silent {
			if s.exists(ctx, name) {
				continue // another dispatcher has created it again, or it is slow
			}
			s.deps.Log.Info("consumer does not answer, it is created again elsewhere", zap.Stringer("account", a), zap.Stringer("lane", l))
			s.remove(ctx, name)
		}
		if attempt > 0 { // it was created, and not all nodes know of it yet
			_ = clock.Sleep(ctx, time.Duration(attempt)*fetchPause)
		}
		if err := s.create(ctx, a, l, lowest); err != nil {
			return nil, fmt.Errorf("make consumer %s: %w", name, err)
		}
	}
}

var errNoConsumer = fault.New(fault.Unavailable, "no_consumer", "Messages cannot be handed out now, try again")

const (
	fetchAttempts = 4
	fetchPause    = 50 * time.Millisecond
	// createWithin bounds one try to create a consumer: the node that is to have
	// it may stand still.
	createWithin   = time.Second
	createAttempts = 3
	// lookWithin bounds the wait for an answer about a consumer, that it is there
	// or is deleted. A node that stands still does not answer.
	lookWithin = 500 * time.Millisecond
)

func (s *consumers) create(ctx context.Context, a streams.AccountID, l streams.Lane, lowest uint64) error {
	name := streams.ConsumerName(a, l)
	js := s.deps.Bus.JS
	for attempt := 0; ; attempt++ {
		within, cancel := context.WithTimeout(ctx, createWithin)
		_, err := js.CreateConsumer(within, s.enqueue, jetstream.ConsumerConfig{
			Durable:           name,
			FilterSubject:     streams.EnqueueSubject(s.number, a, l),
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       lowest,
			AckPolicy:         jetstream.AckExplicitPolicy,
			AckWait:           ackWait,
			MaxDeliver:        -1,
			MaxAckPending:     -1,
			InactiveThreshold: s.idle,
			Replicas:          1,
			// File-backed ones cost 10 ms each when the engine stops.
			MemoryStorage: true,
		})
		cancel()
		if err == nil {
			return nil
		}
		var api *jetstream.APIError
		refused := errors.As(err, &api)
		switch {
		case refused && (api.ErrorCode == codeConsumerExists || api.ErrorCode == codeConsumerCreate):
			// It exists and stands where it stands.
			if s.exists(ctx, name) {
				return nil
			}
			s.remove(ctx, name)
		case refused && api.ErrorCode != codeConsumerNotFound && api.ErrorCode != codeConsumerOffline && !bus.Away(err):
			return err
		default:
			// Its node may be dead: it is created elsewhere.
			s.remove(ctx, name)
		}
		if attempt == createAttempts || ctx.Err() != nil {
			return errNoConsumer.With(err)
		}
	}
}

func (s *consumers) exists(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	_, err := s.deps.Bus.JS.Consumer(ctx, s.enqueue, name)
	return err == nil
}

func (s *consumers) remove(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	_ = s.deps.Bus.JS.DeleteConsumer(ctx, s.enqueue, name)
}

// silence is why a lane's consumer gives nothing, although the state has messages
// that were never handed out.
type silence int

const (
	late     silence = iota // it has them
	withheld                // somebody has fetched them, and may give them back
	forgot                  // it takes them for acked
)

// diagnose asks a consumer why it gives nothing. One that forgot is deleted, and
// the next fetch creates it again.
func (s *consumers) diagnose(ctx context.Context, a streams.AccountID, l streams.Lane) silence {
	name := streams.ConsumerName(a, l)
	looking, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	consumer, err := s.deps.Bus.JS.Consumer(looking, s.enqueue, name)
	if err != nil {
		return late
	}
	switch info := consumer.CachedInfo(); {
	case info.NumAckPending > 0:
		return withheld
	case info.NumPending > 0:
		return late
	}
	s.remove(ctx, name)
	return forgot
}
