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

// Claims is a bucket whose entries are claims. A claim has one holder, who
// renews it. If it is not renewed for TTL, the bucket drops the entry, and
// another process may take it.
//
// The bucket counts TTL from the moment a write is stored. The holder counts
// from the moment it has sent the write, which is earlier, and only to three
// quarters of TTL. So a holder stops relying on its claim before anybody else
// can take it, whatever became of its last renewals. What a holder has sent may
// still arrive later than that: writes that must not count then are fenced by
// the revision Created.
type Claims struct {
	Bucket jetstream.KeyValue
	TTL    time.Duration    // the bucket's: when an entry lapses after it was written
	Now    func() time.Time // the clock of this process
	Log    *zap.Logger
}

// RenewEvery is how often a claim is renewed, and also how long a renewal waits
// for its answer. A shorter wait would only send again what a busy engine has
// stored already.
func (c Claims) RenewEvery() time.Duration { return c.TTL / 4 }

// RelyFor is how long a holder may rely on a claim, counted from when its last
// stored write was sent. The rest of TTL allows for clocks that run at different
// speeds, and for requests that the holder has just sent: they should arrive
// before another process can hold the claim.
func (c Claims) RelyFor() time.Duration { return c.TTL * 3 / 4 }

const (
	// renewAgain is the pause before a renewal without an answer is sent again.
	renewAgain = 100 * time.Millisecond
	// giveBackWithin is how long a stop may take to give a claim back.
	giveBackWithin = 2 * time.Second
)

var (
	// ErrClaimTaken: another process holds the claim.
	ErrClaimTaken = errors.New("the claim is another's")
	// ErrClaimLost: the claim may be another's by now.
	ErrClaimLost = errors.New("the claim is lost")
)

// Claim is an entry that this process holds. One goroutine uses it at a time.
type Claim struct {
	claims Claims
	key    string
	value  []byte

	created  uint64
	revision uint64    // of the last write that is known
	until    time.Time // from then on it is not relied on
	unheard  time.Time // when the first of the renewals without an answer was sent; zero: all were answered
}

// Created is the revision with which the claim was taken. Renewals do not change
// it, and every later holder has a higher one: it fences what holders write.
func (c *Claim) Created() uint64 { return c.created }

// Until is when the holder must stop relying on the claim, unless it is renewed
// before.
func (c *Claim) Until() time.Time { return c.until }

// Take takes a claim that nobody holds. No other process may use the same value:
// if an earlier try took the claim and its answer was lost, Take recognises the
// entry by it. The error is ErrClaimTaken if another holds the claim. After any
// other error the claim may have been taken: try again.
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
	// Ours, but nobody knows when that was sent: it counts only once it is renewed.
	own.created, own.revision = entry.Revision(), entry.Revision()
	return own, own.renewOnce(ctx)
}

// Hold renews the claim until ctx is done, and returns nil then. It calls
// renewed with Until after each try. The error is ErrClaimLost once another
// process may hold the claim.
func (c *Claim) Hold(ctx context.Context, renewed func(until time.Time)) error {
	for clock.Sleep(ctx, max(min(c.claims.RenewEvery(), c.until.Sub(c.claims.Now())), 0)) == nil {
		if err := c.renew(ctx, renewed); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// renew tries until a renewal is answered, or Until has come.
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

// renewOnce sends one renewal. A conflict need not mean that the claim is lost:
// the entry may be a renewal of ours whose answer was lost.
func (c *Claim) renewOnce(ctx context.Context) error {
	sent := c.claims.Now()
	revision, err := c.update(ctx)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) || bus.IsConflict(err) {
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

// recognise reads the entry. If it has our value and a newer revision than is
// known, then one of the renewals without an answer was stored. Which one is not
// known, so the claim counts from when the first of them was sent.
func (c *Claim) recognise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.claims.RenewEvery())
	defer cancel()
	entry, err := c.claims.Bucket.Get(ctx, c.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return fmt.Errorf("renew claim %s: %w: it has lapsed or was deleted", c.key, ErrClaimLost)
	case err != nil:
		return fmt.Errorf("renew claim %s: %w", c.key, err)
	case entry.Revision() < c.revision: // the node that answered does not have our last write yet
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

// GiveBack deletes the claim if it is still this holder's, so that the next one
// need not wait until it lapses. It takes at most 2 s, and works after ctx has
// ended too. If it fails, the claim lapses.
func (c *Claim) GiveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	return deleteOwn(ctx, c.claims.Bucket, c.key, c.value)
}
