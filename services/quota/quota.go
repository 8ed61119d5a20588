// Package quota counts messages by account and UTC month, and grants room under the
// accounts' limits.
//
// Counts are a fold of the streams of accepted messages, so they are behind what is
// being stored right now. So that no account gets over its limit meanwhile, an
// ingress asks for a grant before it stores a request. The leader answers from its
// counts and the grants that are open. A grant closes when its messages are folded,
// when the ingress gives it back, or when its time is over. In the last case the
// leader first moves the fence of the ingress, so that its messages cannot arrive
// later.
//
// Open grants are in the leader's memory only. A new leader asks every ingress for
// its grants, moves the fences of those that do not answer, and folds up to a barrier
// in each shard before it grants anything there: see recover.
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

// Projection is the name of quota's projection in requests about it.
const Projection = "quota"

// Deps are the parts that quota needs.
type Deps struct {
	service.Deps
	Shards streams.Shards
}

// Quota is one instance of the service. Any number of them may run: one leads and
// grants, and the others fold and stand by.
type Quota struct {
	bus    *bus.Bus
	path   string
	name   string // of this instance, in the fences that it moves
	log    *zap.Logger
	now    func() time.Time
	month  func() string // see newMonth
	shards streams.Shards

	ledger  *ledger
	metrics *metrics

	opened chan struct{} // closed when Run has set the fields below

	// Set by Run.
	file      *projection.File
	ingresses *ingresses
	claims    kv.Claims
}

// New makes an instance. It does nothing until Run.
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

// Name is "quota".
func (q *Quota) Name() string { return "quota" }

// Ready returns when everything that was stored at the start is folded, so that this
// instance can lead. It fails with ctx, and while the projection cannot be written.
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

// Run folds, stands by, and serves while it leads. The buckets and streams must
// exist. The end of ctx is no error.
func (q *Quota) Run(ctx context.Context) error {
	err := q.run(ctx)
	// While the engine is away, a leadership that has lost its claim may last until ctx ends.
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
			// It fails only if the file is closed, and then nothing is granted any more.
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
	// Nothing is folded before the Run of the file, so the loaded counts go up to its cursors.
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
