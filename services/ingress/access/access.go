// Package access says who may come in: it knows the accounts by their tokens, logins and sessions, and counts their
// requests against their rates. It keeps nothing that a restart would lose.
package access

import (
	"context"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/services/ingress/broadcast"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Options are what an Access is made of.
type Options struct {
	Bus *bus.Bus
	Log *zap.Logger
	Now func() time.Time
}

// Access admits callers.
type Access struct {
	bus      *bus.Bus
	registry kv.Bucket // holds the key that signs sessions
	log      *zap.Logger
	now      func() time.Time

	accounts  *accounts
	rates     *rates
	passwords *passwords
	networks  *networks
	sessions  *sessions
}

// New makes an Access that admits nobody before Run has read the accounts.
func New(o Options) *Access {
	registry := kv.Bucket{Bus: o.Bus, Name: streams.RegistryBucket}
	return &Access{
		bus:       o.Bus,
		registry:  registry,
		log:       o.Log,
		now:       o.Now,
		accounts:  newAccounts(o.Log),
		rates:     newRates(),
		passwords: newPasswords(o.Now),
		networks:  newNetworks(registry, o.Log, o.Now),
		sessions:  newSessions(),
	}
}

// Run follows the accounts and the sessions that ended, and tells other ingresses which requests it lets through, until ctx
// is done. Then it stores from which networks logins came. It fails when the connection is closed.
func (a *Access) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.accounts.follow(ctx, a.bus) })
	group.Go(func() error { return a.sessions.follow(ctx, a.bus, a.log) })
	group.Go(func() error {
		broadcast.Run(ctx, a.bus, a.log, func() request.Used { return request.Used{Tokens: a.rates.news()} }, a.heard)
		return nil
	})
	group.Go(func() error {
		a.networks.run(ctx)
		return nil
	})
	return group.Wait()
}

func (a *Access) heard(told request.Used) {
	for _, one := range told.Tokens {
		a.rates.deduct(one, a.now())
	}
}

// Loaded says whether the accounts have been read, and the sessions that have ended.
func (a *Access) Loaded() bool { return a.accounts.isLoaded() && a.sessions.isLoaded() }

// Seen returns once the accounts bucket has been read as of a revision. It is a fault Unavailable if ctx ends before.
func (a *Access) Seen(ctx context.Context, q request.Seen) (request.Saw, error) {
	return request.Saw{}, a.accounts.wait(ctx, q.Revision)
}

// retrySoon is when to come again after something that passes by itself.
const retrySoon = time.Second

// Faults of callers.
var (
	errToken        = fault.New(fault.Unauthenticated, "invalid_token", "Invalid API token")
	errSuspended    = fault.New(fault.Forbidden, "account_suspended", "The account is suspended")
	errSubscription = fault.New(fault.Forbidden, "subscription_required", "No active subscription")
	// errNotLoaded is for callers that come before the accounts have been read.
	errNotLoaded = &fault.Error{Kind: fault.Unavailable, Code: "starting", Text: "The server is starting, try again", RetryAfter: retrySoon}
)

// Admit finds the caller of a token, and counts the request against the token's rate for this use. The rate is given beside
// the fault RateLimited too.
func (a *Access) Admit(token string, use Use) (Caller, Rate, error) {
	now := a.now()
	hash, account := a.accounts.find(token, now)
	switch {
	case account == nil && !a.Loaded():
		return Caller{}, Rate{}, errNotLoaded
	case account == nil:
		return Caller{}, Rate{}, errToken
	}
	caller := Caller{Account: account, Subscribed: account.Subscription.Active(now)}
	return a.count(caller, used{hash, use}, now)
}

// count counts a request of a known caller.
func (a *Access) count(caller Caller, of used, now time.Time) (Caller, Rate, error) {
	if caller.Account.Suspended {
		return Caller{}, Rate{}, errSuspended
	}
	rate, err := a.rates.take(of, caller.Account.Plan.Rate, now)
	if err != nil {
		return Caller{}, rate, err
	}
	return caller, rate, nil
}
