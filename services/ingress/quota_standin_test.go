package ingress_test

import (
	"context"
	"strconv"
	"sync"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// month is the month of every grant.
const month = "2026-11"

// quota stands in for quota: it counts what it granted, in memory.
type quota struct {
	bus *bus.Bus

	mu     sync.Mutex
	used   map[streams.AccountID]int64
	given  int
	leader uint64
	hook   func()
}

// newQuota makes one that leads with claim 1.
func newQuota(b *bus.Bus) *quota {
	return &quota{bus: b, used: map[streams.AccountID]int64{}, leader: 1}
}

// Name is "quota".
func (q *quota) Name() string { return "quota" }

// Run answers requests.
func (q *quota) Run(ctx context.Context) error {
	return q.bus.Serve(ctx, bus.ServeOptions{Name: "quota", Version: "0.0.0", Endpoints: []bus.Endpoint{
		{Subject: request.QuotaReserve, Handler: bus.Handle(q.reserve)},
		{Subject: request.QuotaRelease, Handler: bus.Handle(q.release)},
		{Subject: request.QuotaUsage, Handler: bus.Handle(q.usage)},
	}})
}

// Use sets what an account has used.
func (q *quota) Use(account streams.AccountID, used int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used[account] = used
}

// Used says what an account has used.
func (q *quota) Used(account streams.AccountID) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used[account]
}

// Lead sets the claim of the grants to come.
func (q *quota) Lead(claim uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leader = claim
}

// BeforeAnswer runs hook after each grant was made, before it is sent.
func (q *quota) BeforeAnswer(hook func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hook = hook
}

func (q *quota) reserve(_ context.Context, r request.Reserve) (request.Grant, error) {
	q.mu.Lock()
	used := q.used[r.Account]
	if used+int64(r.Count) > r.Limit {
		q.mu.Unlock()
		return request.Grant{}, &fault.Error{Kind: fault.LimitExceeded, Code: "limit_exceeded", Text: "Limit exceeded", Limit: r.Limit, Used: used}
	}
	q.used[r.Account] += int64(r.Count)
	q.given++
	grant := request.Grant{ID: strconv.Itoa(q.given), Account: r.Account, Month: month, Count: r.Count, Leader: q.leader}
	hook := q.hook
	q.mu.Unlock()
	if hook != nil {
		hook()
	}
	return grant, nil
}

func (q *quota) release(_ context.Context, r request.Release) (request.Released, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used[r.Grant.Account] -= int64(r.Grant.Count)
	return request.Released{}, nil
}

func (q *quota) usage(_ context.Context, r request.UsageOf) (request.Usage, error) {
	return request.Usage{Month: month, Used: q.Used(r.Account)}, nil
}
