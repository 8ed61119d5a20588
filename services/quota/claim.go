package quota

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

// A claim that lapses leaves nothing in the bucket that a watch could see, so a
// standby tries again and again. A try that is rejected stores nothing.
const retryEvery = time.Second

// errLeadLost ends a leadership, but not the service.
var errLeadLost = errors.New("leadership is lost")

// acquire waits until the leader's claim is free, and takes it. It fails only with
// ctx.
func (q *Quota) acquire(ctx context.Context) (*kv.Claim, error) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	token := []byte(nats.NewInbox())
	for warned := false; ; {
		claim, err := q.take(ctx, token)
		switch {
		case err == nil:
			return claim, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, kv.ErrClaimTaken) && !warned:
			warned = true
			q.log.Warn("claim not taken, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.ingresses.freed:
		case <-retry.C:
		}
	}
}

func (q *Quota) take(ctx context.Context, token []byte) (*kv.Claim, error) {
	ctx, cancel := context.WithTimeout(ctx, q.claims.RenewEvery())
	defer cancel()
	return q.claims.Take(ctx, streams.QuotaClaim, token)
}
