package messages

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
	// Limit: quota has 2 s to answer. Beyond it: 503 `quota_unavailable`.
	// Used up by: a quota that is slow or away. Hurts: senders of accounts with a limit. Test: TestEnqueue_NoQuota.
	reserveWithin = 2 * time.Second
	// When the time of a grant is over, quota has the fence of its ingress moved, and gives its room to others. A publish
	// must have ended before: this time, together with the retries of a commit, is well below a grant's.
	//
	// Limit: a publish begins at most 10 s after quota was asked. Beyond it: nothing is stored.
	// Used up by: a request that was held up. Hurts: only that request. Test: TestEnqueue_Late.
	publishWithin = 10 * time.Second
)

// grants are the grants of quota whose messages may still be on their way into the stream.
//
// A grant is room in an account's month that quota's leader keeps free for one request. It ends in one of three ways: it
// is closed, since its messages are stored and quota finds them in the stream; it is given back, since surely nothing was
// stored; or it expires, if neither is known. A new leader of quota asks every
// ingress for its open grants, and counts them before it gives any.
type grants struct {
	mu     sync.Mutex
	leader uint64 // the newest leader that has asked for our open grants
	open   map[string]openGrant
}

type openGrant struct {
	request.Grant
	ends time.Time
}

func newGrants() *grants { return &grants{open: map[string]openGrant{}} }

// begin notes a grant as open. It is false if a newer leader has asked for our grants since: the grant is an older
// leader's, and the newer one does not know of it.
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

// close forgets a grant whose messages are stored or surely never will be.
func (g *grants) close(grant request.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, grant.ID)
}

// list gives the open grants for a new leader.
func (g *grants) list(leader uint64, now time.Time) []request.Grant {
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

// reserve asks quota for room for count messages. An account without a limit needs no room: its grant names only the
// month in which the messages count.
func (m *Messages) reserve(ctx context.Context, account *streams.Account, count int) (request.Grant, error) {
	now := m.now()
	if account.Plan.Limit <= 0 {
		return request.Grant{Month: m.sure().UTC().Format("2006-01")}, nil
	}
	instance, err := m.identity.Instance()
	if err != nil {
		return request.Grant{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, reserveWithin)
	defer cancel()
	grant, err := bus.Call[request.Grant](ctx, m.bus, request.QuotaReserve,
		request.Reserve{Account: account.ID, Count: count, Limit: account.Plan.Limit, Instance: instance})
	switch {
	case fault.Is(err, fault.Unavailable):
		f := errNoQuota.With(err)
		f.RetryAfter = max(f.RetryAfter, fault.As(err).RetryAfter)
		return request.Grant{}, f
	case err != nil:
		return request.Grant{}, err
	}
	if !m.grants.begin(grant, now) {
		return request.Grant{}, errNoQuota
	}
	return grant, nil
}

// giveBack closes a grant of which surely nothing was stored, and tells quota, whether or not the caller still waits. If
// quota does not hear of it, the grant expires.
func (m *Messages) giveBack(ctx context.Context, grant request.Grant) {
	if grant.ID == "" {
		return
	}
	m.grants.close(grant)
	ctx, cancel := context.WithTimeout(httpx.Through(ctx), reserveWithin)
	defer cancel()
	_, _ = bus.Call[request.Released](ctx, m.bus, request.QuotaRelease, request.Release{Grant: grant})
}

// OpenGrants lists the grants whose messages may still be stored, for a new leader of quota. From now on no grant of an
// earlier leader is taken. Messages that were sent for grants that are not listed may still be on their way to the
// engine: the fences are moved, so that such messages are never stored. It is a fault if a fence cannot be moved.
func (m *Messages) OpenGrants(ctx context.Context, q request.OpenGrants) (request.Grants, error) {
	open := m.grants.list(q.Leader, m.now())
	for _, fence := range m.fences {
		if err := fence.Move(ctx); err != nil {
			return request.Grants{}, storeFault(err)
		}
	}
	return request.Grants{Grants: open}, nil
}

// Idle says that no grant is open: nothing will be stored for which one was given.
func (m *Messages) Idle() bool { return len(m.grants.list(0, m.now())) == 0 }
