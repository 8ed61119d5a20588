package quota

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/retry"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// lead serves whenever this instance holds the claim.
func (q *Quota) lead(ctx context.Context) error {
	for {
		// One that is still folding would make everybody wait.
		if err := q.file.Ready(ctx); err != nil {
			return err
		}
		claim, err := q.acquire(ctx)
		if err != nil {
			return err
		}
		err = q.serveAsLeader(ctx, claim)
		if ctx.Err() != nil || q.bus.Conn.IsClosed() {
			return err
		}
		q.log.Warn("leads no more", zap.Uint64("leader", claim.Created()), zap.Error(err))
	}
}

// serveAsLeader is one leadership. Nothing is granted after it returns.
func (q *Quota) serveAsLeader(ctx context.Context, claim *kv.Claim) error {
	leader := claim.Created()
	q.log.Info("leads", zap.Uint64("leader", leader))
	lost := q.ledger.begin(leader, claim.Until())
	q.metrics.leader.Set(1)
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return claim.Hold(running, q.ledger.extend) })
	g.Go(func() error { return q.serve(running, ctx) })
	g.Go(func() error { return q.sweep(running) })
	g.Go(func() error { return q.endMonths(running, leader) })
	g.Go(func() error {
		select {
		case <-running.Done():
			return nil
		case <-lost:
			return fmt.Errorf("%w: the streams are not what was counted", errLeadLost)
		}
	})
	began := q.now()
	g.Go(func() error { q.recover(running, leader, began); return nil })
	err := g.Wait()
	q.metrics.leader.Set(0)
	q.ledger.end()
	if err := claim.GiveBack(ctx); err != nil {
		q.log.Warn("claim not given back, it will lapse", zap.Error(err))
	}
	return err
}

// sweep ends grants that neither their events nor a release have ended.
func (q *Quota) sweep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for shard, due := range q.ledger.due() {
			// Their events may be under way, or stored and not folded yet: then
			// they would be neither counted nor granted.
			err := q.fence(ctx, shard, instancesOf(due))
			if err == nil {
				err = q.foldAll(ctx, shard)
			}
			if err == nil {
				q.ledger.expire(due)
			} else if ctx.Err() == nil {
				q.log.Warn("grants kept beyond their time", zap.Int("grants", len(due)), zap.Error(err))
			}
		}
	}
}

// retry calls f until it succeeds or ctx is done, and says so in the log.
func (q *Quota) retry(ctx context.Context, what string, f func(context.Context) error) error {
	failed := func(err error) { q.log.Warn("trying again: "+what, zap.Error(err)) }
	return retry.Do(ctx, retryEvery, failed, func() error {
		err := f(ctx)
		if err != nil && q.bus.Conn.IsClosed() {
			return retry.Stop(fmt.Errorf("%s: %w", what, err))
		}
		return err
	})
}

// byShard sorts grants by where their events go.
func (q *Quota) byShard(all []request.Grant) map[streams.Shard][]request.Grant {
	sorted := make(map[streams.Shard][]request.Grant)
	for _, one := range all {
		shard := q.shards.Of(one.Account)
		sorted[shard] = append(sorted[shard], one)
	}
	return sorted
}
