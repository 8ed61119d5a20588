package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// Claims is a bucket whose entries are claims: each has one holder, who renews
// it. An entry that is not renewed lapses, and another may take it.
type Claims struct {
	Bucket jetstream.KeyValue
	TTL    time.Duration    // the bucket's: when an entry lapses after it was written
	Now    func() time.Time // the holder's clock
	Log    *zap.Logger
}

// RenewEvery is how often a claim is renewed. A renewal waits for its answer as
// long: an engine that is busy answers late, and what it did is not to be done
// again.
func (c Claims) RenewEvery() time.Duration { return c.TTL / 4 }

// RelyFor is how long a holder may rely on a claim after it was sent. It is
// less than TTL, for clocks that run at different speeds and for what the holder
// has sent by then: that is to arrive before another can hold the claim.
func (c Claims) RelyFor() time.Duration { return c.TTL * 3 / 4 }

const (
	// renewAgain is the pause before a renewal that was not answered is sent again.
	renewAgain = 100 * time.Millisecond
	// giveBackWithin is how long a stop may take to give a claim back.
	giveBackWithin = 2 * time.Second
)

var (
	// ErrClaimTaken says that another holds the claim.
	ErrClaimTaken = errors.New("the claim is another's")
	// ErrClaimLost says that a claim may be another's by now.
	ErrClaimLost = errors.New("the claim is lost")
)

// Claim is an entry that this process holds. One goroutine uses it at a time.
type Claim struct {
	claims Claims
	key    string
	value  []byte

	created  uint64
	revision uint64    // of the last write that is known
	until    time.Time // it is not relied on from then on
	unheard  time.Time // when the first renewal was sent of which nothing was heard; zero: there is none
}

// Created is the revision with which the claim was taken: constant while it is
// renewed, higher for every holder that follows.
func (c *Claim) Created() uint64 { return c.created }

// Until is the time from which on the claim must not be relied on, if it is not
// renewed before.
func (c *Claim) Until() time.Time { return c.until }

// Take takes a claim that nobody holds. The value is its holder's alone: if an
// earlier try took the claim and its answer was lost, it is recognised by it.
// The error is ErrClaimTaken if another holds the claim; after any other it may
// have been taken, and is to be tried again.
func (c Claims) Take(ctx context.Context, key string, value []byte) (*Claim, error) {
	own := &Claim{claims: c, key: key, value: value, until: c.Now().Add(c.RelyFor())}
	revision, err := c.Bucket.Create(ctx, key, value)
	if err == nil {
		own.created, own.revision = revision, revision
		return own, nil
	}
	if !errors.Is(err, jetstream.ErrKeyExists) && !bus.IsConflict(err) {
		return nil, fmt.Errorf("take claim %s: %w", key, err)
	}
	entry, readErr := c.Bucket.Get(ctx, key)
	switch {
	case readErr != nil:
		return nil, fmt.Errorf("take claim %s: %w", key, errors.Join(err, readErr))
	case !bytes.Equal(entry.Value(), value):
		return nil, fmt.Errorf("take claim %s: %w", key, ErrClaimTaken)
	}
	own.created, own.revision = entry.Revision(), entry.Revision()
	return own, own.renewOnce(ctx)
}

// Hold renews the claim until ctx is done, and returns nil then. It calls
// renewed with each new Until. An ErrClaimLost says that another may hold it.
func (c *Claim) Hold(ctx context.Context, renewed func(until time.Time)) error {
	for clock.Sleep(ctx, max(min(c.claims.RenewEvery(), c.until.Sub(c.claims.Now())), 0)) == nil {
		if err := c.renew(ctx, renewed); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// renew tries until a renewal is answered, or the claim must not be relied on
// any more.
func (c *Claim) renew(ctx context.Context, renewed func(until time.Time)) error {
	for warned := false; ; {
		err := c.renewOnce(ctx)
		renewed(c.until)
		switch {
		case err == nil || errors.Is(err, ErrClaimLost) || ctx.Err() != nil:
			return err
		case !c.claims.Now().Before(c.until):
			return fmt.Errorf("%w: not renewed in time: %w", ErrClaimLost, err)
		case !warned:
			warned = true
			c.claims.Log.Warn("claim not renewed, trying again", zap.String("claim", c.key), zap.Error(err))
		}
		if err := clock.Sleep(ctx, renewAgain); err != nil {
			return err
		}
	}
}

func (c *Claim) renewOnce(ctx context.Context) error {
	sent := c.claims.Now()
	revision, err := c.update(ctx)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) || bus.IsConflict(err) {
		// By ours, if the answer to an earlier renewal was lost.
		if err = c.recognise(ctx); err != nil {
			return err
		}
		sent = c.claims.Now()
		revision, err = c.update(ctx)
	}
	if err != nil {
		if c.unheard.IsZero() {
			c.unheard = sent
		}
		return fmt.Errorf("renew claim %s: %w", c.key, err)
	}
	c.revision, c.until, c.unheard = revision, sent.Add(c.claims.RelyFor()), time.Time{}
	return nil
}

func (c *Claim) update(ctx context.Context) (revision uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.claims.RenewEvery())
	defer cancel()
	return c.claims.Bucket.Update(ctx, c.key, c.value, c.revision)
}

// recognise reads what stands in the bucket. If it is ours and newer than what
// is known, then a renewal of which nothing was heard was stored, no sooner than
// the first of them was sent.
func (c *Claim) recognise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.claims.RenewEvery())
	defer cancel()
	entry, err := c.claims.Bucket.Get(ctx, c.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return fmt.Errorf("renew claim %s: %w: it has lapsed or was deleted", c.key, ErrClaimLost)
	case err != nil:
		return fmt.Errorf("renew claim %s: %w", c.key, err)
	case entry.Revision() < c.revision: // the node that was asked has not heard of the last write
		return fmt.Errorf("renew claim %s: another write is under way", c.key)
	case !bytes.Equal(entry.Value(), c.value):
		return fmt.Errorf("renew claim %s: %w: another has it", c.key, ErrClaimLost)
	}
	if until := c.unheard.Add(c.claims.RelyFor()); entry.Revision() > c.revision && !c.unheard.IsZero() && until.After(c.until) {
		c.until = until
	}
	c.revision, c.unheard = entry.Revision(), time.Time{}
	return nil
}

// GiveBack deletes the claim if it is still the holder's, so that the next one
// need not wait until it lapses. It takes at most 2 s, and goes on when ctx has
// ended. A claim that is not deleted lapses.
func (c *Claim) GiveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	return deleteOwn(ctx, c.claims.Bucket, c.key, c.value)
}
