package ingress

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

	mu     sync.Mutex
	ids    *streams.IDs // the last ones, nil before the first
	number int
	until  time.Time // when the ids may no longer be given
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

// IDs gives the ids of the number that is held now.
func (c *claim) IDs() (*streams.IDs, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.now().Before(c.until) {
		return nil, 0, errNoNumber
	}
	return c.ids, c.number, nil
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

	if err := c.begin(ctx, h); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
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
// of all messages that are stored.
func (c *claim) begin(ctx context.Context, h *held) error {
	for {
		_, err := bus.Call[request.Saw](ctx, c.bus, request.IngressSeen(h.number), request.Seen{})
		if err == nil {
			break
		}
		if !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return err
		}
		_ = clock.Sleep(ctx, claimPause/10)
	}
	var floor time.Time
	for _, shard := range c.shards.All() {
		stream, err := c.bus.JS.Stream(ctx, streams.EnqueueStream(shard))
		if err != nil {
			return fmt.Errorf("read newest event: %w", err)
		}
		state := stream.CachedInfo().State
		given, err := c.given(ctx, shard, state.LastSeq)
		if err != nil {
			return fmt.Errorf("read newest ids: %w", err)
		}
		for _, newest := range []time.Time{state.LastTime, given} {
			if newest.After(floor) {
				floor = newest
			}
		}
	}
	if err := c.fence(ctx, h.number); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids != nil {
		if last := c.ids.Message().Time(); last.After(floor) {
			floor = last
		}
	}
	c.ids = streams.NewIDs(c.now, h.number, floor.Add(time.Millisecond))
	c.number, c.until = h.number, h.until
	return nil
}

const (
	// idsLooked is how many of a shard's newest events are looked at for their ids. A commit has at most as many messages.
	idsLooked = 1000
	// idsLookedAcross is the same over a network, where each costs a question to the stream's leader.
	idsLookedAcross = 16
	// idsAhead is how much newer an id may be than those, which was given before and whose message was stored earlier.
	idsAhead = 30 * time.Second
)

// given is a time by which no id was given of a message in a shard. The time at which the newest event was stored is one
// too, unless the ids came from a clock that was ahead of the engine's.
func (c *claim) given(ctx context.Context, shard streams.Shard, last uint64) (time.Time, error) {
	var newest time.Time
	stored, looked := time.Time{}, uint64(idsLookedAcross)
	if c.bus.Inside() {
		looked = idsLooked
	}
	for _, subject := range streams.AcceptedSubjects(shard) {
		for seq := last - min(last, looked); ; {
			m, err := c.bus.FirstAfter(ctx, streams.EnqueueStream(shard), subject, seq)
			if errors.Is(err, bus.ErrNoMessage) {
				break
			}
			if err != nil {
				return newest, err
			}
			seq = m.Sequence
			parts := strings.Split(m.Header.Get(jetstream.MsgIDHeader), "/") // account, message
			if len(parts) < 2 {
				continue
			}
			if id, err := streams.ParseMessageID(parts[1]); err == nil && id.Time().After(newest) {
				newest, stored = id.Time(), m.Time
			}
		}
	}
	if newest.After(stored) {
		newest = newest.Add(idsAhead)
	}
	return newest, nil
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
