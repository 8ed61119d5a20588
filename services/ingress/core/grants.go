package core

import (
	"context"
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// reserveWithin is how long quota may take to answer. Used up by a quota
	// that is slow: accounts with a limit get 503.
	reserveWithin = 2 * time.Second
	// publishWithin is how long after asking quota a publish may begin. With
	// the retries of a commit it stays well below a grant's time. Used up by
	// a request that stood still, which alone is refused.
	publishWithin = 10 * time.Second
)

// grants are those of quota's grants whose messages may still be on their way
// into the stream.
type grants struct {
	mu     sync.Mutex
	leader uint64 // the newest one that was told of our open grants
	open   map[string]openGrant
}

type openGrant struct {
	request.Grant
	ends time.Time
}

func newGrants() *grants { return &grants{open: map[string]openGrant{}} }

// begin notes a grant as open. It refuses one of a leader that a newer one has
// replaced: the newer one does not know of it.
func (g *grants) begin(grant request.Grant, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if grant.Leader < g.leader {
		return false
	}
	for id, open := range g.open {
		if !now.Before(open.ends) {
			delete(g.open, id)
		}
	}
	g.open[grant.ID] = openGrant{grant, now.Add(request.GrantTTL)}
	return true
}

// end forgets a grant whose messages are stored or surely never will be.
func (g *grants) end(grant request.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, grant.ID)
}

// answer lists the open grants for a new leader.
func (g *grants) answer(leader uint64, now time.Time) []request.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leader = max(g.leader, leader)
	list := make([]request.Grant, 0, len(g.open))
	for _, open := range g.open {
		if now.Before(open.ends) {
			list = append(list, open.Grant)
		}
	}
	return list
}

var errNoQuota = &fault.Error{
	Kind: fault.Unavailable, Code: "quota_unavailable", Text: "The month's limit cannot be checked now, try again", RetryAfter: retrySoon,
}

// reserve asks quota for room for count messages. An account without a limit
// needs none: its grant names only the month.
func (c *Core) reserve(ctx context.Context, account *streams.Account, count int) (request.Grant, error) {
	now := c.now()
	if account.Plan.Limit <= 0 {
		return request.Grant{Month: c.sure().UTC().Format("2006-01")}, nil
	}
	instance, err := c.identity.Instance()
	if err != nil {
		return request.Grant{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, reserveWithin)
	defer cancel()
	grant, err := bus.Call[request.Grant](ctx, c.bus, request.QuotaReserve,
		request.Reserve{Account: account.ID, Count: count, Limit: account.Plan.Limit, Instance: instance})
	switch {
	case fault.Is(err, fault.Unavailable):
		f := errNoQuota.With(err)
		f.RetryAfter = max(f.RetryAfter, fault.As(err).RetryAfter)
		return request.Grant{}, f
	case err != nil:
		return request.Grant{}, err
	}
	if !c.grants.begin(grant, now) {
		return request.Grant{}, errNoQuota
	}
	return grant, nil
}

// release gives a grant back of which surely nothing was stored, whether or not
// its caller still waits. If quota does not hear of it, the grant ends by itself.
func (c *Core) release(ctx context.Context, grant request.Grant) {
	if grant.ID == "" {
		return
	}
	c.grants.end(grant)
	ctx, cancel := context.WithTimeout(httpx.Through(ctx), reserveWithin)
	defer cancel()
	_, _ = bus.Call[request.Released](ctx, c.bus, request.QuotaRelease, request.Release{Grant: grant})
}
