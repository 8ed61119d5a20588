package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/retry"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// claimPause is between attempts to claim a number.
const claimPause = 100 * time.Millisecond

// claim holds an instance number, under which this ingress gives ids and answers requests. Two ingresses must never give
// ids under one number at the same time. Three things see to that:
//
//   - The claim is an entry in the claims bucket that is renewed, and expires unless it is. Ids are given only until a
//     time before it can expire, by this process's own clock (until).
//   - The ids of a number are reserved in each shard's stream (reserved), so the next holder goes on behind them, even if
//     clocks differ.
//   - A fence in each shard's ENQUEUE is moved when a number is taken. Messages that an earlier holder has sent, and that
//     arrive after that, are not stored.
type claim struct {
	bus    *bus.Bus
	shards streams.Shards
	log    *zap.Logger
	now    func() time.Time
	ttl    time.Duration                                     // the bucket's
	serve  func(ctx, life context.Context, number int) error // answers requests under the number
	idle   func() bool                                       // whether no message of ours is on its way into a stream
	owner  []byte                                            // the claim's value; the fences name it too
	fences []*bus.Fence                                      // of each shard

	mu    sync.Mutex
	ids   *reserved // of the last number, nil before the first
	until time.Time // when the ids may no longer be given
}

func newClaim(d Deps, serve func(ctx, life context.Context, number int) error, idle func() bool, fences []*bus.Fence) *claim {
	return &claim{bus: d.Aside, shards: d.Shards, log: d.Log, now: d.Now, ttl: streams.ClaimTTL, serve: serve, idle: idle, owner: []byte(nuid.Next()), fences: fences}
}

var errNoNumber = &fault.Error{
	Kind: fault.Unavailable, Code: "no_number", Text: "This server may not accept messages now, try again", RetryAfter: time.Second,
}

// Instance is the number that is held now.
func (c *claim) Instance() (int, error) {
	ids, _, err := c.held()
	if err != nil {
		return 0, err
	}
	return ids.number, nil
}

// Give fills ids with new ones of a shard. It waits if they have to be reserved first.
func (c *claim) Give(ctx context.Context, shard streams.Shard, ids []streams.MessageID) error {
	for {
		own, now, err := c.held()
		switch {
		case err != nil:
			return err
		case own.give(shard, now, ids):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", bus.ErrNotStored, ctx.Err())
		}
		if err := own.reserve(ctx, shard, ids[len(ids)-1]); err != nil {
			return err
		}
	}
}

// held gives the ids of the number that is held now.
func (c *claim) held() (ids *reserved, now time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now = c.now(); !now.Before(c.until) {
		return nil, now, errNoNumber
	}
	return c.ids, now, nil
}

// run claims a number, renews it, and claims another when it is lost. When ctx
// is done it gives the number back.
func (c *claim) run(ctx context.Context) error {
	for ctx.Err() == nil {
		taken, number, err := c.take(ctx)
		if err == nil {
			err = c.hold(ctx, taken, number)
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("no ingress number", zap.Error(err))
			_ = clock.Sleep(ctx, claimPause)
		}
	}
	return nil
}

// take claims the lowest number that is free.
func (c *claim) take(ctx context.Context) (taken *kv.Claim, number int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.ttl/4)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.ClaimsBucket)
	if err != nil {
		return nil, 0, fmt.Errorf("open bucket %s: %w", streams.ClaimsBucket, err)
	}
	claims := kv.Claims{Bucket: bucket, TTL: c.ttl, Now: c.now, Log: c.log}
	for number := range streams.MaxInstance + 1 {
		taken, err := claims.Take(ctx, streams.IngressClaim(number), c.owner)
		if !errors.Is(err, kv.ErrClaimTaken) {
			return taken, number, err
		}
	}
	return nil, 0, errors.New("claim an ingress number: all are taken")
}

// hold answers requests and gives ids under the number until it is lost or ctx
// is done.
func (c *claim) hold(running context.Context, taken *kv.Claim, number int) error {
	ctx, lose := context.WithCancelCause(running)
	defer lose(nil)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer lose(nil)
	serving.Go(func() { lose(c.serve(ctx, running, number)) })
	defer func() { c.giveBack(running, taken) }()

	ids, err := c.begin(ctx, taken, number)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	serving.Go(func() { ids.run(ctx) })
	c.log.Info("ingress number claimed", zap.Int("instance", number))
	return errors.Join(context.Cause(ctx), taken.Hold(ctx, c.useUntil))
}

// useUntil sets until when ids may be given.
func (c *claim) useUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
}

// begin waits until the number answers requests, and starts its ids after those
// that others have reserved.
func (c *claim) begin(ctx context.Context, taken *kv.Claim, number int) (*reserved, error) {
	err := retry.Do(ctx, claimPause/10, nil, func() error {
		_, err := bus.Call[request.Saw](ctx, c.bus, request.IngressSeen(number), request.Seen{})
		if !fault.Is(err, fault.Unavailable) {
			return retry.Stop(err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	ids := newReserved(c.bus, c.now, string(c.owner), number, c.shards)
	ids.begin(ctx)
	if err := c.fence(ctx, number); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids != nil {
		ids.ids.NotBefore(c.ids.ids.Message().Time().Add(time.Millisecond))
	}
	c.ids, c.until = ids, taken.Until()
	return ids, nil
}

// fence moves the fences, so that messages which earlier holders of the number have sent, and which have not arrived yet,
// are rejected.
func (c *claim) fence(ctx context.Context, number int) error {
	var moves sync.WaitGroup
	for i, fence := range c.fences {
		move, err := event.Message(streams.FenceSubject(streams.Shard(i), number), event.Fence{By: string(c.owner)})
		if err != nil {
			return err
		}
		moves.Go(func() {
			// No message is stored before the fence has been moved. So if a full stream does not take it, only senders
			// have to wait, and phones are served.
			if err := fence.Use(ctx, move); err != nil && ctx.Err() == nil {
				c.log.Warn("fence not moved, trying again with the next message", zap.Int("instance", number), zap.Error(err))
			}
		})
	}
	moves.Wait()
	return ctx.Err()
}

// giveBack ends the ids at once, and gives the number back at a stop. A claim that is deleted tells quota that this
// ingress stores nothing any more. If that is not sure, the claim is left to expire.
func (c *claim) giveBack(running context.Context, taken *kv.Claim) {
	c.useUntil(time.Time{})
	if running.Err() == nil || !c.idle() {
		return
	}
	_ = taken.GiveBack(running) // a claim that is not deleted expires
}
