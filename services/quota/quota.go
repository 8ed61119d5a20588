// Package quota counts messages by account and UTC month, and grants room
// under the accounts' limits.
package quota

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
)

// Projection names quota's projection in requests about it.
const Projection = "quota"

// Deps is what quota is made of.
type Deps struct {
	service.Deps
	Shards streams.Shards
}

// Quota is one instance of the service. Any number may run: one leads and
// grants, the others fold and stand by.
type Quota struct {
	bus    *bus.Bus
	path   string
	name   string // its own, in the fences that it moves
	log    *zap.Logger
	now    func() time.Time
	month  func() string // whose counts alone are kept, empty while that is not to be said
	shards streams.Shards

	ledger  *ledger
	metrics *metrics

	opened chan struct{} // closed when what Run sets is set

	// Set by Run.
	file      *projection.File
	ingresses *ingresses
	claims    kv.Claims
}

// New makes an instance that does nothing until Run.
func New(cfg Config, d Deps) *Quota {
	q := &Quota{
		bus:    d.Bus,
		path:   filepath.Join(d.Dir, Projection+".db"),
		name:   nuid.Next(),
		log:    d.Log.Named("quota"),
		now:    d.Now,
		shards: d.Shards,
		ledger: newLedger(d.Now, d.Shards, cfg.MaxOpenGrants),
		opened: make(chan struct{}),
	}
	q.ledger.sure = d.Sure
	q.month = newMonth(d.Deps)
	q.metrics = newMetrics(d.Metrics, q.ledger)
	return q
}

// Name is quota.
func (q *Quota) Name() string { return "quota" }

// Ready returns when everything is folded that was stored at the start, so that
// this instance can lead. It fails with ctx, and while nothing can be folded.
func (q *Quota) Ready(ctx context.Context) error {
	select {
	case <-q.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := q.file.Err(); err != nil {
		return err
	}
	return q.file.Ready(ctx)
}

// Run folds, stands by, and serves while it leads. The buckets and streams
// must be there. The end of ctx is no error.
func (q *Quota) Run(ctx context.Context) error {
	err := q.run(ctx)
	// A claim that could not be renewed may lapse in the instant of the end.
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, errLeadLost) || errors.Is(err, kv.ErrClaimLost)) {
		err = nil
	}
	if q.file != nil {
		err = errors.Join(err, q.file.Close())
	}
	return err
}

func (q *Quota) run(ctx context.Context) error {
	bucket, err := kv.Open(ctx, q.bus, streams.ClaimsBucket, q.log)
	if err != nil {
		return err
	}
	q.claims = q.claimsIn(bucket)
	fold := count{q.shards}
	q.file, err = projection.Open(q.path, q.bus, fold, projection.Options{
		Committed: func(events []projection.Event) {
			// It fails where the file is closed, and nothing is granted any more.
			_ = q.file.View(func(tx *bolt.Tx) error {
				q.ledger.fold(events, func(e projection.Event, one counted) bool { return fold.repeated(tx, e, one) })
				return nil
			})
		},
		Replaced: q.ledger.load,
		Render:   render,
		Log:      q.log,
	})
	if err != nil {
		return fmt.Errorf("open projection %s: %w", Projection, err)
	}
	// Nothing is folded before its Run, so what was loaded stands at these.
	for _, shard := range q.shards.All() {
		stream := streams.EnqueueStream(shard)
		q.ledger.startAt(stream, q.file.Cursor(stream))
	}
	q.ingresses = newIngresses(q.now)
	close(q.opened)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return q.file.Run(ctx) })
	g.Go(func() error { return q.ingresses.follow(ctx, q.bus, bucket, q.log) })
	g.Go(func() error { return q.serveProjection(ctx) })
	g.Go(func() error { return q.measureLag(ctx) })
	g.Go(func() error { return q.lead(ctx) })
	return g.Wait()
}

func (q *Quota) claimsIn(bucket jetstream.KeyValue) kv.Claims {
	return kv.Claims{Bucket: bucket, TTL: streams.ClaimTTL, Now: q.now, Log: q.log}
}
