package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// claimPause is between attempts to claim a number, or to renew it.
const claimPause = 100 * time.Millisecond

// claim holds a number in the claims bucket, under which this ingress gives
// ids and answers requests.
type claim struct {
	bus    *bus.Bus
	shards streams.Shards
	log    *zap.Logger
	now    func() time.Time
	ttl    time.Duration                                     // the bucket's
	serve  func(ctx, life context.Context, number int) error // answers requests under the number
	idle   func() bool                                       // whether nothing of ours is under way
	owner  []byte                                            // the claim's value, and who moves the fences
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

// renewEvery is when a claim is renewed.
func (c *claim) renewEvery() time.Duration { return c.ttl / 4 }

// useFor is how long a claim is used, which is less than it lasts: an id that
// was given must be on its way before another ingress can hold the number.
func (c *claim) useFor() time.Duration { return c.ttl * 3 / 4 }

// Instance is the number that is held now.
func (c *claim) Instance() (int, error) {
	ids, _, err := c.held()
	if err != nil {
		return 0, err
	}
	return ids.number, nil
}

// Give fills ids with new ones of a shard. It waits where they are to be reserved first.
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

// run claims a number, keeps it, and claims another when it is lost. When ctx
// is done it gives the number back.
func (c *claim) run(ctx context.Context) error {
	for ctx.Err() == nil {
		h, err := c.take(ctx)
		if err == nil {
			err = c.hold(ctx, h)
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("no ingress number", zap.Error(err))
			_ = clock.Sleep(ctx, claimPause)
		}
	}
	return nil
}

// held is a number that was claimed.
type held struct {
	bucket   jetstream.KeyValue
	number   int
	key      string
	revision uint64
	until    time.Time
	unheard  time.Time // when the first renewal was sent of which nothing was heard; zero: there is none
}

// take claims the lowest number that is free.
func (c *claim) take(ctx context.Context) (*held, error) {
	ctx, cancel := context.WithTimeout(ctx, c.renewEvery())
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.ClaimsBucket)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", streams.ClaimsBucket, err)
	}
	for number := range streams.MaxInstance + 1 {
		h := &held{bucket: bucket, number: number, key: streams.IngressClaim(number), until: c.now().Add(c.useFor())}
		h.revision, err = bucket.Create(ctx, h.key, c.owner)
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return nil, fmt.Errorf("claim %s: %w", h.key, err)
		}
	}
	return nil, errors.New("claim an ingress number: all are taken")
}

// hold answers requests and gives ids under the number until it is lost or ctx
// is done.
func (c *claim) hold(running context.Context, h *held) error {
	ctx, lose := context.WithCancelCause(running)
	defer lose(nil)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer lose(nil)
	serving.Go(func() { lose(c.serve(ctx, running, h.number)) })
	defer func() { c.giveUp(running.Err() != nil, h) }()

	ids, err := c.begin(ctx, h)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	serving.Go(func() { ids.run(ctx) })
	c.log.Info("ingress number claimed", zap.Int("instance", h.number))
	renew := time.NewTicker(c.renewEvery())
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-renew.C:
			if err := c.renew(ctx, h); err != nil {
				return errors.Join(context.Cause(ctx), err)
			}
		}
	}
}

// begin waits until the number answers requests, and starts its ids after those
// that others have reserved.
func (c *claim) begin(ctx context.Context, h *held) (*reserved, error) {
	for {
		_, err := bus.Call[request.Saw](ctx, c.bus, request.IngressSeen(h.number), request.Seen{})
		if err == nil {
			break
		}
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return nil, err
		}
		_ = clock.Sleep(ctx, claimPause/10)
	}
	ids := newReserved(c.bus, c.now, string(c.owner), h.number, c.shards)
	ids.begin(ctx)
	if err := c.fence(ctx, h.number); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids != nil {
		ids.ids.NotBefore(c.ids.ids.Message().Time().Add(time.Millisecond))
	}
	c.ids, c.until = ids, h.until
	return ids, nil
}

// fence refuses what earlier holders of the number have sent and has not arrived.
func (c *claim) fence(ctx context.Context, number int) error {
	var moves sync.WaitGroup
	for i, fence := range c.fences {
		move, err := event.Message(streams.FenceSubject(streams.Shard(i), number), event.Fence{By: string(c.owner)})
		if err != nil {
			return err
		}
		moves.Go(func() {
			// Nothing is stored before it has been moved: a full stream stops senders only.
			if err := fence.Use(ctx, move); err != nil && ctx.Err() == nil {
				c.log.Warn("fence not moved, trying again with the next message", zap.Int("instance", number), zap.Error(err))
			}
		})
	}
	moves.Wait()
	return ctx.Err()
}

// renew keeps the claim: it tries until it is told that it did, or the claim may not be used any more. An error says
// that it is lost.
func (c *claim) renew(ctx context.Context, h *held) error {
	for told := false; ; {
		err := c.renewOnce(ctx, h)
		c.mu.Lock()
		c.until = h.until
		c.mu.Unlock()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLost) || ctx.Err() != nil:
			return err
		case !told:
			told = true
			c.log.Warn("ingress number not renewed, trying on", zap.Int("instance", h.number), zap.Error(err))
		}
		if !c.now().Before(h.until) {
			return fmt.Errorf("renew %s: %w", h.key, err)
		}
		_ = clock.Sleep(ctx, claimPause)
	}
}

var errLost = errors.New("lost to another")

// renewOnce waits for each answer as long as the time between renewals: an engine that is busy answers late, and what it
// did is not to be done again.
func (c *claim) renewOnce(ctx context.Context, h *held) error {
	sent := c.now()
	revision, err := c.update(ctx, h)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		// Ours, if the answer to an earlier renewal got lost.
		if err = c.learn(ctx, h); err != nil {
			return err
		}
		sent = c.now()
		revision, err = c.update(ctx, h)
	}
	if err != nil {
		if h.unheard.IsZero() {
			h.unheard = sent
		}
		return err
	}
	h.revision, h.until, h.unheard = revision, sent.Add(c.useFor()), time.Time{}
	return nil
}

func (c *claim) update(ctx context.Context, h *held) (revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.renewEvery())
	defer cancel()
	return h.bucket.Update(ctx, h.key, c.owner, h.revision)
}

// learn reads what stands there. If it is ours and newer than what we know, then a renewal of which nothing was heard
// was stored, no sooner than the first of them was sent.
func (c *claim) learn(ctx context.Context, h *held) error {
	ctx, cancel := context.WithTimeout(ctx, c.renewEvery())
	defer cancel()
	entry, err := h.bucket.Get(ctx, h.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), err == nil && string(entry.Value()) != string(c.owner):
		return fmt.Errorf("renew %s: %w", h.key, errLost)
	case err != nil:
		return err
	}
	if until := h.unheard.Add(c.useFor()); entry.Revision() > h.revision && !h.unheard.IsZero() && until.After(h.until) {
		h.until = until
	}
	h.revision, h.unheard = entry.Revision(), time.Time{}
	return nil
}

// giveUp ends the ids at once and deletes the claim, if it is still ours. A
// claim that is deleted tells quota that this ingress stores nothing any more;
// where that is not sure, it is left to run out.
func (c *claim) giveUp(stopping bool, h *held) {
	c.mu.Lock()
	c.until = time.Time{}
	c.mu.Unlock()
	if !stopping || !c.idle() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// Who cannot delete it leaves it to run out.
	_ = bus.DeleteOwn(ctx, h.bucket, h.key, c.owner)
}
