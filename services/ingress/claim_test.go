package ingress

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// deployment is one on which ingress instances claim numbers.
type deployment struct {
	*testing.T
	bus    *bus.Bus
	bucket jetstream.KeyValue

	mu  sync.Mutex
	now time.Time
}

func newDeployment(t *testing.T) *deployment {
	c := &deployment{T: t, bus: bustest.New(t), now: time.Now()}
	d := streams.Deployment{Shards: 2, Replicas: 1, EnqueueMaxBytes: 1 << 20, StatusMaxBytes: 1 << 20}
	if err := streams.Ensure(t.Context(), c.bus.JS, d, true); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.bucket, err = c.bus.JS.KeyValue(t.Context(), streams.ClaimsBucket); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *deployment) clock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *deployment) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// start runs a claim that is renewed often, and returns when it holds a number.
func (c *deployment) start(idle bool) (held *claim, stop func()) {
	c.Helper()
	serve := func(ctx, _ context.Context, number int) error {
		return c.bus.Serve(ctx, bus.ServeOptions{Name: "ingress", Version: "0.0.0", Endpoints: []bus.Endpoint{
			{Subject: request.IngressSeen(number), Handler: bus.Handle(func(context.Context, request.Seen) (request.Saw, error) {
				return request.Saw{}, nil
			})},
		}})
	}
	deps := Deps{Aside: c.bus, Deps: service.Deps{Bus: c.bus, Log: zap.NewNop(), Now: c.clock}, Shards: 2}
	held = newClaim(deps, serve, func() bool { return idle }, nil)
	held.ttl = 2 * time.Second // renewed more often than in use, and with time to be
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- held.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.Errorf("run: %v", err)
		}
	})
	c.Cleanup(stop)
	c.until(func() bool { _, err := held.Instance(); return err == nil })
	return held, stop
}

// until waits for something that the claim's next contact with the bucket brings.
func (c *deployment) until(cond func() bool) {
	c.Helper()
	watcher, err := c.bucket.WatchAll(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = watcher.Stop() }()
	for !cond() {
		select {
		case <-watcher.Updates():
		case <-time.After(10 * time.Millisecond): // what follows a change in the bucket
		}
	}
}

func (c *deployment) number(held *claim) int {
	c.Helper()
	number, err := held.Instance()
	if err != nil {
		c.Fatal(err)
	}
	return number
}

// id is a new one of the second shard.
func (c *deployment) id(held *claim) streams.MessageID {
	c.Helper()
	var ids [1]streams.MessageID
	if err := held.Give(c.Context(), 1, ids[:]); err != nil {
		c.Fatal(err)
	}
	return ids[0]
}

func (c *deployment) exists(number int) bool {
	c.Helper()
	_, err := c.bucket.Get(c.Context(), streams.IngressClaim(number))
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		c.Fatal(err)
	}
	return err == nil
}

// revision is the one of the first number's claim.
func (c *deployment) revision() uint64 {
	c.Helper()
	entry, err := c.bucket.Get(c.Context(), streams.IngressClaim(0))
	if err != nil {
		c.Fatal(err)
	}
	return entry.Revision()
}

// renewed renews the first number's claim as a renewal does whose answer is lost.
func (c *deployment) renewed(held *claim) (revision uint64) {
	c.Helper()
	for {
		revision, err := c.bucket.Update(c.Context(), streams.IngressClaim(0), held.owner, c.revision())
		if err == nil {
			return revision
		}
	}
}

func TestClaim_LowestFree(t *testing.T) {
	c := newDeployment(t)
	first, stopFirst := c.start(true)
	second, _ := c.start(true)
	if got := []int{c.number(first), c.number(second)}; got[0] != 0 || got[1] != 1 {
		t.Fatalf("got numbers %v", got)
	}
	stopFirst()
	if _, err := first.Instance(); !errors.Is(err, errNoNumber) {
		t.Errorf("ids after the stop: got %v", err)
	}
	if c.exists(0) || !c.exists(1) {
		t.Error("only the stopped one gives its number back")
	}
	third, _ := c.start(true)
	if got := c.number(third); got != 0 {
		t.Errorf("got number %d, want the one given back", got)
	}
}

// A stop waits for no renewal: what became of one under way does not keep the number.
func TestClaim_StoppedWhileRenewed(t *testing.T) {
	c := newDeployment(t)
	held, stop := c.start(true)
	c.renewed(held)
	stop()
	if c.exists(0) {
		t.Error("the stopped one does not give its number back")
	}
}

// Quota takes a claim that was deleted as proof that nothing is under way.
func TestClaim_NotIdle(t *testing.T) {
	c := newDeployment(t)
	_, stop := c.start(false)
	stop()
	if !c.exists(0) {
		t.Error("the claim was deleted although something may be under way")
	}
}

func TestClaim_Renewed(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	renewed := c.renewed(held) // the next renewal goes on from it
	c.until(func() bool { return c.revision() > renewed })
	if got := c.number(held); got != 0 {
		t.Errorf("got number %d, want 0", got)
	}
}

// The claim has a connection of its own: pages that nobody reads keep the other from hearing anything for seconds.
func TestClaim_Aside(t *testing.T) {
	c := newDeployment(t)
	server, busy := bustest.Start(t, t.TempDir())
	server.Stop()
	one := New(DefaultConfig(), Deps{Aside: c.bus, Deps: service.Deps{Bus: busy, Log: zap.NewNop(), Now: c.clock, Metrics: prometheus.NewRegistry()}, Shards: 2}).claim
	one.ttl = 200 * time.Millisecond
	taken, _, err := one.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	renewals := 0
	if err := taken.Hold(ctx, func(time.Time) { renewals++; cancel() }); err != nil || renewals == 0 {
		t.Errorf("renewed %d times, %v", renewals, err)
	}
}

// No id is given once the claim may have run out, whether anybody noticed or not.
func TestClaim_RunsOut(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	c.id(held)
	c.bus.Conn.Close() // nothing is renewed any more
	c.pass(held.ttl / 2)
	before := held.Give(t.Context(), 1, make([]streams.MessageID, 1))
	c.pass(held.ttl/2 - held.ttl/8) // well before the end
	after := held.Give(t.Context(), 1, make([]streams.MessageID, 1))
	if before != nil || !errors.Is(after, errNoNumber) {
		t.Errorf("got %v before and %v after", before, after)
	}
}

func TestClaim_Lost(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	var last streams.MessageID
	for range 10_000 { // runs ahead of the clock, which stands still
		last = c.id(held)
	}
	if _, err := c.bucket.PutString(t.Context(), streams.IngressClaim(0), "another"); err != nil {
		t.Fatal(err)
	}
	c.until(func() bool { number, err := held.Instance(); return err == nil && number == 1 })
	if next := c.id(held); next <= last || next>>12&streams.MaxInstance != 1 {
		t.Errorf("after %v came %v", last, next)
	}
}

// Ids come after what the streams hold, even if the clock was set back.
func TestClaim_ClockBehind(t *testing.T) {
	c := newDeployment(t)
	account := streams.AccountID(1) // in the second shard
	stored, err := c.bus.JS.Publish(t.Context(), streams.EnqueueSubject(1, account, streams.Lane{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := c.bus.Get(t.Context(), stored.Stream, stored.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	c.pass(-time.Hour)
	held, _ := c.start(true)
	if got := c.id(held).Time(); got.Before(msg.Time.Truncate(time.Millisecond)) {
		t.Errorf("got an id of %v, before the newest event at %v", got, msg.Time)
	}
}

// There are so many numbers and no more.
func TestClaim_AllTaken(t *testing.T) {
	c := newDeployment(t)
	for number := range streams.MaxInstance + 1 {
		if _, err := c.bus.JS.PublishAsync("$KV."+streams.ClaimsBucket+"."+streams.IngressClaim(number), []byte("other")); err != nil {
			t.Fatal(err)
		}
	}
	<-c.bus.JS.PublishAsyncComplete()
	one := newClaim(Deps{Aside: c.bus, Deps: service.Deps{Bus: c.bus, Log: zap.NewNop(), Now: c.clock}, Shards: 2}, nil, nil, nil)
	if _, number, err := one.take(t.Context()); err == nil || !strings.Contains(err.Error(), "all are taken") {
		t.Errorf("got %d, %v, want none", number, err)
	}
	if err := c.bucket.Delete(t.Context(), streams.IngressClaim(streams.MaxInstance)); err != nil {
		t.Fatal(err)
	}
	if _, number, err := one.take(t.Context()); err != nil || number != streams.MaxInstance {
		t.Errorf("got %d, %v, want the one that is free", number, err)
	}
}
