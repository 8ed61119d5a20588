package quota

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// sender does what an ingress does with quota: it registers, reserves, stores
// by group commit, and tells new leaders its open grants.
type sender struct {
	w          *world
	number     int
	bus        *bus.Bus
	claims     jetstream.KeyValue
	committers map[streams.Shard]*bus.Committer
	cancel     context.CancelFunc
	parts      sync.WaitGroup

	mu     sync.Mutex
	leader uint64
	open   map[string]request.Grant
}

func (w *world) startSender(number int) *sender {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &sender{w: w, number: number, bus: w.connect("sender"), cancel: cancel,
		committers: map[streams.Shard]*bus.Committer{}, open: map[string]request.Grant{}}
	w.t.Cleanup(s.kill)
	var err error
	if s.claims, err = s.bus.JS.KeyValue(ctx, streams.ClaimsBucket); err != nil {
		w.t.Fatal(err)
	}
	if _, err := s.claims.Create(ctx, streams.IngressClaim(number), nil); err != nil {
		w.t.Fatal(err)
	}
	for _, shard := range w.shards.All() {
		c := bus.NewCommitter(s.bus, streams.EnqueueStream(shard), bus.CommitterOptions{})
		s.committers[shard] = c
		s.parts.Go(func() { _ = c.Run(ctx) })
	}
	s.parts.Go(func() {
		for clock.Sleep(ctx, streams.ClaimTTL/4) == nil {
			_, _ = s.claims.Put(ctx, streams.IngressClaim(number), nil)
		}
	})
	s.parts.Go(func() {
		_ = s.bus.Serve(ctx, bus.ServeOptions{Name: "sender", Version: "1.0.0", Endpoints: []bus.Endpoint{
			{Subject: request.IngressGrants(number), Handler: bus.Handle(s.grants)},
		}})
	})
	return s
}

// stop ends a sender in order: it takes itself off the register.
func (s *sender) stop() {
	s.w.t.Helper()
	if err := s.claims.Delete(context.Background(), streams.IngressClaim(s.number)); err != nil {
		s.w.t.Error(err)
	}
	s.kill()
}

// kill ends a sender without a word to anybody.
func (s *sender) kill() {
	s.cancel()
	s.bus.Conn.Close()
	s.parts.Wait()
}

func (s *sender) grants(_ context.Context, q request.OpenGrants) (request.Grants, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = max(s.leader, q.Leader)
	answer := request.Grants{Grants: []request.Grant{}}
	for _, one := range s.open {
		answer.Grants = append(answer.Grants, one)
	}
	return answer, nil
}

var errStale = errors.New("grant of an older leader")

// reserve opens a grant.
func (s *sender) reserve(account streams.AccountID, count int, limit int64) (request.Grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	given, err := bus.Call[request.Grant](ctx, s.bus, request.QuotaReserve,
		request.Reserve{Account: account, Count: count, Limit: limit, Instance: s.number})
	if err != nil {
		return given, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if given.Leader < s.leader {
		return given, errStale
	}
	s.open[given.ID] = given
	return given, nil
}

// store stores the messages of an open grant, whole or not at all.
func (s *sender) store(given request.Grant) error {
	err := s.commit(given)
	if err == nil {
		s.forget(given)
	}
	return err
}

// commit is store, but the sender does not get the answer.
func (s *sender) commit(given request.Grant) error {
	var msgs []*nats.Msg
	for range given.Count {
		msgs = append(msgs, s.w.message(given.Account, given.Month, given.ID))
	}
	_, err := s.committers[s.w.shards.Of(given.Account)].Commit(context.Background(), msgs)
	return err
}

// forget closes a grant that is used up, or given back.
func (s *sender) forget(given request.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, given.ID)
}

// giveBack releases a grant of which nothing was stored.
func (s *sender) giveBack(given request.Grant) error {
	s.forget(given)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := bus.Call[request.Released](ctx, s.bus, request.QuotaRelease, request.Release{Grant: given})
	return err
}

// enqueue accepts count messages, or says why not.
func (s *sender) enqueue(account streams.AccountID, count int, limit int64) error {
	given, err := s.reserve(account, count, limit)
	if err != nil {
		return err
	}
	return s.store(given)
}

// enqueueAll makes so many concurrent requests of count messages and gives how
// many were accepted; the others must have been refused for the limit.
func (s *sender) enqueueAll(requests int, account streams.AccountID, count int, limit int64) int {
	var all sync.WaitGroup
	results := make(chan error, requests)
	for range requests {
		all.Go(func() { results <- s.enqueue(account, count, limit) })
	}
	all.Wait()
	close(results)
	accepted := 0
	for err := range results {
		switch {
		case err == nil:
			accepted++
		case !fault.Is(err, fault.LimitExceeded):
			s.w.t.Errorf("enqueue: %v", err)
		}
	}
	return accepted
}
