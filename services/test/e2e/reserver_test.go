package e2e

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// reserver asks quota for room and gives it back, as an ingress does whose messages are never stored: it has a number,
// lists its open grants to a new leader, and takes none of an older leader from then on.
type reserver struct {
	bus    *bus.Bus
	claims jetstream.KeyValue
	record *record
	stop   context.CancelFunc
	parts  sync.WaitGroup

	mu      sync.Mutex
	leader  uint64
	open    map[string]request.Grant
	unclear []unclear
	stale   int // grants of an older leader, which were not used
}

// unclear is room that was asked for or given back, and nobody knows whether it counts.
type unclear struct {
	account string
	count   int64
	since   time.Time
}

const (
	reserverNumber = 900 // no ingress comes so far
	reserverLimit  = 10
	reserveWithin  = 2 * time.Second // as an ingress
)

func newReserver(t *testing.T, dir string) *reserver {
	t.Helper()
	conn, err := natsd.Dial(dir, "reserver")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &reserver{bus: b, record: newRecord(), stop: stop, open: map[string]request.Grant{}}
	if r.claims, err = b.JS.KeyValue(ctx, streams.ClaimsBucket); err == nil {
		_, err = r.claims.Create(ctx, streams.IngressClaim(reserverNumber), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.parts.Go(func() {
		for rest(ctx, streams.ClaimTTL/4) {
			_, _ = r.claims.Put(ctx, streams.IngressClaim(reserverNumber), nil)
		}
	})
	serving := make(chan struct{})
	r.parts.Go(func() {
		err := b.Serve(ctx, bus.ServeOptions{Name: "reserver", Version: "1.0.0", Ready: func() { close(serving) }, Endpoints: []bus.Endpoint{
			{Subject: request.IngressGrants(reserverNumber), Handler: bus.Handle(r.list)},
		}})
		if err != nil {
			t.Errorf("the reserver ended: %v", err)
		}
	})
	<-serving
	return r
}

// close takes it off the register.
func (r *reserver) close(t *testing.T) {
	t.Helper()
	if err := r.claims.Delete(context.Background(), streams.IngressClaim(reserverNumber)); err != nil {
		t.Error(err)
	}
	r.stop()
	r.parts.Wait()
	r.bus.Conn.Close()
}

func (r *reserver) list(_ context.Context, q request.OpenGrants) (request.Grants, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = max(r.leader, q.Leader)
	answer := request.Grants{Grants: []request.Grant{}}
	for _, grant := range r.open {
		answer.Grants = append(answer.Grants, grant)
	}
	return answer, nil
}

// begin says whether a grant may be used.
func (r *reserver) begin(grant request.Grant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if grant.Leader < r.leader {
		r.stale++
		return false
	}
	r.open[grant.ID] = grant
	return true
}

// lost notes that it is not known whether a count is used since then.
func (r *reserver) lost(account string, count int, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unclear = append(r.unclear, unclear{account, int64(count), since})
}

// run reserves and releases for an account until ctx is done, and then gives everything back.
func (r *reserver) run(ctx context.Context, client int, account string, draw *rand.Rand) {
	var held []request.Grant
	for rest(ctx, 5*time.Millisecond) {
		if len(held) > 0 && draw.IntN(2) == 0 {
			i := draw.IntN(len(held))
			r.release(client, account, held[i])
			held = append(held[:i], held[i+1:]...)
			continue
		}
		if grant, ok := r.reserve(client, account, 1+draw.IntN(3)); ok {
			held = append(held, grant)
		}
	}
	for _, grant := range held {
		r.release(client, account, grant)
	}
}

func (r *reserver) reserve(client int, account string, count int) (request.Grant, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), reserveWithin)
	defer cancel()
	called := time.Now()
	grant, err := bus.Call[request.Grant](ctx, r.bus, request.QuotaReserve, reserveFor(account, count))
	switch {
	case err == nil && r.begin(grant):
		r.record.add(client, reserved{account, int64(count)}, called)
		return grant, true
	case fault.Is(err, fault.LimitExceeded):
		r.record.add(client, refusedRoom{account: account, count: int64(count)}, called)
	case fault.Is(err, fault.Unavailable) && fault.As(err).Code != "no_answer":
	default:
		r.lost(account, count, called)
	}
	return request.Grant{}, false
}

func reserveFor(account string, count int) request.Reserve {
	return request.Reserve{Account: streams.AccountIDOf(account), Count: count, Limit: reserverLimit, Instance: reserverNumber}
}

// release gives a grant back. It is known to count only with the leader that gave it.
func (r *reserver) release(client int, account string, grant request.Grant) {
	r.mu.Lock()
	delete(r.open, grant.ID)
	older := grant.Leader < r.leader
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), reserveWithin)
	defer cancel()
	called := time.Now()
	_, err := bus.Call[request.Released](ctx, r.bus, request.QuotaRelease, request.Release{Grant: grant})
	r.record.add(client, released{account, int64(grant.Count)}, called)
	if err != nil || older {
		r.lost(account, grant.Count, called)
	}
}

// check holds what was granted and refused to the limit.
func (r *reserver) check(t *testing.T) {
	t.Helper()
	for i, op := range r.record.ops {
		refused, is := op.Input.(refusedRoom)
		for _, u := range r.unclear {
			if is && u.account == refused.account && int64(r.record.since(u.since)) <= op.Return {
				refused.slack += u.count
			}
		}
		if is {
			r.record.ops[i].Input = refused
		}
	}
	t.Logf("%d reservations and releases unclear, %d grants of an older leader refused", len(r.unclear), r.stale)
	r.record.check(t, "reservations", room(reserverLimit))
}
