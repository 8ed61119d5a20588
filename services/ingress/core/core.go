// Package core is what every wire dialect speaks to: it admits callers, accepts messages, hands them to phones and
// takes their reports. It knows no HTTP framework and keeps no state that a restart would lose.
package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Committer stores messages in one stream, whole or not at all.
type Committer interface {
	Commit(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error)
}

// Identity is under which number this ingress gives ids.
type Identity interface {
	// Instance is the number, or a fault while it may be another's.
	Instance() (int, error)
	// Give fills ids, at least one, with rising ones that nobody else ever gives to messages of the shard. An error is a
	// fault while the number may be another's, or ErrNotStored.
	Give(ctx context.Context, shard streams.Shard, ids []streams.MessageID) error
}

// Options are what a core is made of.
type Options struct {
	Bus      *bus.Bus
	Shards   streams.Shards
	Enqueue  []Committer  // of the ENQUEUE stream of each shard
	Fences   []*bus.Fence // of this ingress in each of them, which its committer knows
	Status   []Committer  // of the STATUS stream of each shard
	Identity Identity
	Room     func() error // why no messages may be accepted now, as bus.ErrNotStored; nil: they always may
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Now      func() time.Time
	Sure     func() time.Time // a time that has surely come; nil: Now
}

// Core does what the dialects ask for.
type Core struct {
	bus      *bus.Bus
	shards   streams.Shards
	enqueue  []Committer
	fences   []*bus.Fence
	status   []Committer
	identity Identity
	room     func() error
	log      *zap.Logger
	now      func() time.Time
	sure     func() time.Time

	accounts *accounts
	rates    *rates
	devices  *devices
	presence *presence
	grants   *grants
	ids      *span
	repeats  *repeats
	holdings holdings
	waits    waits

	passwords *passwords
	places    *places
	sessions  *sessions
	keys      keylock.Locks[string] // requests with the same idempotency key follow each other
	lookups   keylock.Locks[lookup] // so do those of an account that look something up, a few at a time
	lookedUp  atomic.Uint64
	metrics   *metrics
}

// New makes a core that admits nobody before Run has read the accounts.
func New(o Options) *Core {
	present := newPresence(o.Now)
	if o.Sure == nil {
		o.Sure = o.Now
	}
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	return &Core{
		bus:      o.Bus,
		shards:   o.Shards,
		enqueue:  o.Enqueue,
		fences:   o.Fences,
		status:   o.Status,
		identity: o.Identity,
		room:     o.Room,
		log:      o.Log,
		now:      o.Now,
		sure:     o.Sure,
		accounts: newAccounts(o.Log),
		rates:    newRates(),
		devices:  newDevices(o.Bus, o.Log, o.Now, present),
		presence: present,
		grants:   newGrants(),
		ids:      newSpan(),
		repeats:  newRepeats(),
		metrics:  newMetrics(o.Metrics),

		passwords: newPasswords(o.Now),
		places:    newPlaces(),
		sessions:  newSessions(),
	}
}

// followAgain is after how long the accounts are followed again when the engine has ended it.
const followAgain = time.Second

// Run follows the accounts and the sessions that ended, shares with other ingresses, and tidies up, until ctx is done.
func (c *Core) Run(ctx context.Context) error {
	var sharing sync.WaitGroup
	defer sharing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sharing.Go(func() { c.share(ctx) })
	sharing.Go(func() { c.keepPlaces(ctx) })
	sharing.Go(func() { c.sweep(ctx) })
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if c.bus.Conn.IsClosed() {
			return err
		}
		c.log.Warn("accounts are followed anew", zap.Error(err))
		_ = clock.Sleep(ctx, followAgain)
	}
}

func (c *Core) follow(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for name, follow := range map[string]func(context.Context, jetstream.KeyValue) error{
		streams.AccountsBucket: c.accounts.follow, streams.SessionsBucket: c.sessions.follow,
	} {
		group.Go(func() error {
			bucket, err := c.bus.JS.KeyValue(ctx, name)
			if err != nil {
				return fmt.Errorf("open bucket %s: %w", name, err)
			}
			return follow(ctx, bucket)
		})
	}
	return group.Wait()
}

// Loaded says whether the accounts have been read, and which sessions have ended.
func (c *Core) Loaded() bool { return isClosed(c.accounts.loaded) && isClosed(c.sessions.loaded) }

// Seen returns once this core acts on the accounts bucket as of a revision.
func (c *Core) Seen(ctx context.Context, q request.Seen) (request.Saw, error) {
	return request.Saw{}, c.accounts.wait(ctx, q.Revision)
}

// OpenGrants lists the grants whose messages may still be stored, and refuses from now on the grants of leaders
// before the one that asks. What was sent for other grants and has not arrived never will be stored.
func (c *Core) OpenGrants(ctx context.Context, q request.OpenGrants) (request.Grants, error) {
	open := c.grants.answer(q.Leader, c.now())
	for _, fence := range c.fences {
		if err := fence.Move(ctx); err != nil {
			return request.Grants{}, storeFault(err)
		}
	}
	return request.Grants{Grants: open}, nil
}

// Idle says that no grant is open: this core will store nothing for which one was given.
func (c *Core) Idle() bool { return len(c.grants.answer(0, c.now())) == 0 }

// Caller is who calls.
type Caller struct {
	Account    *streams.Account // shared: nobody changes it
	Subscribed bool             // whether the subscription allows enqueueing
	Login      string           // that it came with; empty: a token
	Device     streams.DeviceID // whose own login that is; zero: the account's
	Room       Room             // for what is answered; nil: there is no bound
}

// Faults of callers.
var (
	errToken        = fault.New(fault.Unauthenticated, "invalid_token", "Invalid API token")
	errSuspended    = fault.New(fault.Forbidden, "account_suspended", "The account is suspended")
	errSubscription = fault.New(fault.Forbidden, "subscription_required", "No active subscription")
)

// Admit tells whose a token is, and counts the request against the token's rate for what it is for. The rate stands
// also beside the fault RateLimited.
func (c *Core) Admit(token string, use Use) (Caller, Rate, error) {
	now := c.now()
	hash, account := c.accounts.find(token, now)
	switch {
	case account == nil && !c.Loaded():
		return Caller{}, Rate{}, c.refuse(errNotLoaded)
	case account == nil:
		return Caller{}, Rate{}, c.refuse(errToken)
	case account.Suspended:
		return Caller{}, Rate{}, c.refuse(errSuspended)
	}
	rate, err := c.rates.take(used{hash, use}, account.Plan.Rate, now)
	if err != nil {
		return Caller{}, rate, c.refuse(err)
	}
	return Caller{Account: account, Subscribed: account.Subscription.Active(now)}, rate, nil
}

// MayEnqueue is the fault for a caller without a subscription.
func (c Caller) MayEnqueue() error {
	if !c.Subscribed {
		return errSubscription
	}
	return nil
}

// errNotLoaded is for callers who come before it is known who they are.
var errNotLoaded = &fault.Error{Kind: fault.Unavailable, Code: "starting", Text: "The server is starting, try again", RetryAfter: retrySoon}

// refuse counts a refusal by its reason and returns it.
func (c *Core) refuse(err error) error {
	if err != nil {
		c.metrics.refused.WithLabelValues(fault.As(err).Code).Inc()
	}
	return err
}

// retrySoon is when to come again after something that mends itself.
const retrySoon = time.Second

// storeFault tells a caller that a commit failed.
func storeFault(err error) error {
	var f *fault.Error
	switch {
	case errors.Is(err, bus.ErrFull):
		f = fault.New(fault.Full, "queue_full", "The queue is full")
		f.RetryAfter = 30 * time.Second
	case errors.Is(err, bus.ErrUnknownOutcome):
		f = fault.New(fault.UnknownOutcome, "outcome_unknown", "It is not known whether this was stored")
		f.RetryAfter = retrySoon
	case errors.Is(err, bus.ErrNotStored):
		f = fault.New(fault.Unavailable, "not_stored", "Nothing was stored, try again")
		f.RetryAfter = retrySoon
	default:
		return err
	}
	return f.With(err)
}
