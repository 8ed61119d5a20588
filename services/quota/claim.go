package quota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	renewEvery = streams.ClaimTTL / 4
	// safety is how long before its claim can lapse a leader stops: for clocks
	// that run at different speeds, and for the answers under way.
	safety = streams.ClaimTTL / 5
	// A claim that lapses leaves no word in the bucket, so a standby tries
	// again and again. A refused try stores nothing.
	retryEvery = time.Second
)

// claim is the leader's entry in the claims bucket.
type claim struct {
	// leader is the revision of its creation: constant while it is renewed,
	// higher for every leader that follows.
	leader   uint64
	revision uint64    // of the last renewal that was answered
	until    time.Time // it is not relied on from then on
	token    []byte    // its value, by which an unanswered renewal is known
}

// errLeadLost ends a leadership, and not the service.
var errLeadLost = errors.New("leadership is lost")

// holdsUntil is when a claim that was asked for at sent must not be relied on
// any more: the bucket's time for it began later than that.
func holdsUntil(sent time.Time) time.Time { return sent.Add(streams.ClaimTTL - safety) }

// acquire waits until the claim is free and takes it. It fails only with ctx.
func (q *Quota) acquire(ctx context.Context) (*claim, error) {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	token := []byte(nats.NewInbox())
	for warned := false; ; {
		c, err := q.take(ctx, token)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, jetstream.ErrKeyExists) && !warned:
			warned = true
			q.log.Warn("claim not taken, trying on", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.roster.freed:
		case <-retry.C:
		}
	}
}

// take creates the claim, or renews the one that a try before has created whose
// answer was lost.
func (q *Quota) take(ctx context.Context, token []byte) (*claim, error) {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	sent := q.now()
	revision, err := q.claims.Create(ctx, streams.QuotaClaim, token)
	leader := revision
	if errors.Is(err, jetstream.ErrKeyExists) {
		entry, readErr := q.claims.Get(ctx, streams.QuotaClaim)
		if readErr != nil || !bytes.Equal(entry.Value(), token) {
			return nil, err
		}
		leader, sent = entry.Revision(), q.now()
		revision, err = q.claims.Update(ctx, streams.QuotaClaim, token, leader)
	}
	if err != nil {
		return nil, err
	}
	return &claim{leader: leader, revision: revision, until: holdsUntil(sent), token: token}, nil
}

// renew keeps the claim until ctx is done; errLeadLost says that another
// leader may come.
func (q *Quota) renew(ctx context.Context, c *claim) error {
	pause := renewEvery
	for {
		timer := time.NewTimer(min(pause, max(c.until.Sub(q.now()), 0)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		sent := q.now()
		left := c.until.Sub(sent)
		if left <= 0 {
			return fmt.Errorf("%w: claim not renewed in time", errLeadLost)
		}
		switch err := q.renewOnce(ctx, c, min(left, renewEvery)); {
		case err == nil:
			c.until, pause = holdsUntil(sent), renewEvery
			q.ledger.extend(c.until)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errLeadLost):
			return err
		default:
			q.log.Warn("claim not renewed, trying again", zap.Error(err))
			pause = retryEvery
		}
	}
}

func (q *Quota) renewOnce(ctx context.Context, c *claim, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	revision, err := q.claims.Update(ctx, streams.QuotaClaim, c.token, c.revision)
	if err == nil {
		c.revision = revision
		return nil
	}
	if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return err
	}
	// A renewal whose answer was lost may stand there.
	entry, readErr := q.claims.Get(ctx, streams.QuotaClaim)
	switch {
	case readErr == nil && bytes.Equal(entry.Value(), c.token) && entry.Revision() > c.revision:
		c.revision = entry.Revision()
		return err
	case readErr == nil && entry.Revision() > c.revision, errors.Is(readErr, jetstream.ErrKeyNotFound):
		return fmt.Errorf("%w: the claim is somebody else's or gone", errLeadLost)
	default:
		return errors.Join(err, readErr)
	}
}

// giveUp removes the claim, so that the next leader need not wait for it to
// lapse. It lapses if that fails.
func (q *Quota) giveUp(ctx context.Context, c *claim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := bus.DeleteOwn(ctx, q.claims, streams.QuotaClaim, c.token); err != nil {
		q.log.Warn("claim not given up, it will lapse", zap.Error(err))
	}
}
