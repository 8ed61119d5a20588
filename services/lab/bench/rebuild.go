package bench

import (
	"context"

	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/streams"
)

const dispatcherProjection = "dispatcher-0"

// rebuildStock is from how many events on a rebuild tells something.
const rebuildStock = 200_000

// rebuild rebuilds the projections over what the run has stored.
func (r *run) rebuild(ctx context.Context) error {
	product := r.main
	if product == nil {
		var err error
		if product, err = r.product(ctx); err != nil {
			return err
		}
		r.step("rebuild: fill")
		if err := r.fill(ctx, product, min(r.Backlog, rebuildStock)); err != nil {
			return err
		}
	}
	if err := r.awaitFolds(ctx, product); err != nil {
		return err
	}
	for _, name := range []string{dispatcherProjection, quota.Projection} {
		r.step("rebuild %s", name)
		err := r.profiled(ctx, Rebuild+"-"+name, []*process{product}, func() error {
			done, err := product.ask(ctx, order{Do: doRebuild, Name: name})
			events := done.Events[streams.EnqueueStream(0)]
			if name == dispatcherProjection {
				events += done.Events[streams.StatusStream(0)]
			}
			r.result.Rebuild = append(r.result.Rebuild, RebuildRun{
				Projection: name, Events: events, Seconds: done.Took.Seconds(), Rate: perSecond(int(events), done.Took),
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
