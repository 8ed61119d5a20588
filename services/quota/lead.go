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

// lead takes the claim whenever it is free, and serves while it has it.
func (q *Quota) lead(ctx context.Context) error {
	for {
		// A leader that still folds the past would let everybody wait.
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

// serveAsLeader is one leadership: it begins with a claim, and ends when that is
// lost, when the streams are not the ones that were counted, or with ctx. Nothing is
// granted after it returns.
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

// sweep closes grants whose time is over, and that neither their events nor a
// release have closed.
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
			// Their messages may be under way, or stored and not folded yet. Closed now,
			// they would be neither counted nor granted, and the account could go over
			// its limit. So what is under way is rejected first, and what is stored is
			// folded.
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

// retry calls f until it succeeds, and logs each failure. It fails with ctx, and when
// the connection is closed.
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

// byShard groups grants by the shard of their messages.
func (q *Quota) byShard(all []request.Grant) map[streams.Shard][]request.Grant {
	sorted := make(map[streams.Shard][]request.Grant)
	for _, one := range all {
		shard := q.shards.Of(one.Account)
		sorted[shard] = append(sorted[shard], one)
	}
	return sorted
}
