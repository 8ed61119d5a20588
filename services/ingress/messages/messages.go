// Package messages takes messages from senders, hands them to phones, takes the phones' reports, and looks up where messages
// stand. It keeps nothing that a restart would lose: what counts is in the streams, and dispatchers know the rest.
package messages

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/services/ingress/fleet"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Committer stores messages in one stream, whole or not at all.
type Committer interface {
	Commit(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error)
}

// Identity gives ids under this ingress's number.
type Identity interface {
	// Instance is the number, or a fault while it may be another's.
	Instance() (int, error)
	// Give fills ids, at least one, with rising ones that nobody else ever gives to messages of the shard. An error is a
	// fault while the number may be another's, or ErrNotStored.
	Give(ctx context.Context, shard streams.Shard, ids []streams.MessageID) error
}

// Options are what Messages are made of.
type Options struct {
	Bus      *bus.Bus
	Fleet    *fleet.Fleet // notes which phones call
	Shards   streams.Shards
	Enqueue  []Committer  // of the ENQUEUE stream of each shard
	Fences   []*bus.Fence // of this ingress in each of them, which its committer knows
	Status   []Committer  // of the STATUS stream of each shard
	Identity Identity
	Room     func() error // why no messages may be accepted now, as bus.ErrNotStored; nil: they always may
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Now      func() time.Time
	Sure     func() time.Time // a time that has surely come; nil: Now
}

// Messages takes, hands out and looks up the messages of all accounts.
type Messages struct {
	bus      *bus.Bus
	fleet    *fleet.Fleet
	shards   streams.Shards
	enqueue  []Committer
	fences   []*bus.Fence
	status   []Committer
	identity Identity
	room     func() error
	log      *zap.Logger
	now      func() time.Time
	sure     func() time.Time

	grants  *grants
	ids     *span
	repeats *repeats
	storage storage
	waits   waits

	keys     keylock.Locks[string] // requests with the same idempotency key follow each other
	lookups  keylock.Locks[lookup] // so do those of an account that look something up, a few at a time
	lookedUp atomic.Uint64
	metrics  *metrics
}

// New makes Messages that serve at once. How much accounts have stored is known while Run runs.
func New(o Options) *Messages {
	if o.Sure == nil {
		o.Sure = o.Now
	}
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	return &Messages{
		bus:      o.Bus,
		fleet:    o.Fleet,
		shards:   o.Shards,
		enqueue:  o.Enqueue,
		fences:   o.Fences,
		status:   o.Status,
		identity: o.Identity,
		room:     o.Room,
		log:      o.Log,
		now:      o.Now,
		sure:     o.Sure,
		grants:   newGrants(),
		ids:      newSpan(),
		repeats:  newRepeats(),
		metrics:  newMetrics(o.Metrics),
	}
}

// Run hears from the dispatchers which accounts have stored too much, until ctx is done.
func (m *Messages) Run(ctx context.Context) error {
	heard, err := m.bus.Conn.Subscribe(request.IngressStorage, m.storage.heard)
	if err != nil {
		m.log.Warn("accounts that have stored too much are not known here", zap.Error(err))
	}
	<-ctx.Done()
	if err == nil {
		_ = heard.Unsubscribe() // fails only when the connection is closed
	}
	return nil
}

// retrySoon is when to try again after something that passes by itself.
const retrySoon = time.Second

// storeFault is the fault for a commit that failed.
func storeFault(err error) error {
	var f *fault.Error
	switch {
	case errors.Is(err, bus.ErrFull):
		f = fault.New(fault.Full, "queue_full", "The queue is full")
		f.RetryAfter = 30 * time.Second
	case errors.Is(err, bus.ErrUnknownOutcome):
		f = fault.New(fault.UnknownOutcome, "outcome_unknown", "It is not known whether this was stored")
		f.RetryAfter = retrySoon
	case errors.Is(err, bus.ErrNotStored):
		f = fault.New(fault.Unavailable, "not_stored", "Nothing was stored, try again")
		f.RetryAfter = retrySoon
	default:
		return err
	}
	return f.With(err)
}
