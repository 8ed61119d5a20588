package ingress

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// store stores what a message with the id would, in the second shard.
func (c *deployment) store(subject string, id streams.MessageID) (seq uint64) {
	c.Helper()
	m := &nats.Msg{Subject: subject, Header: nats.Header{jetstream.MsgIDHeader: {streams.AccountID(1).String() + "/" + id.String()}}}
	ack, err := c.bus.JS.PublishMsg(c.Context(), m)
	if err != nil {
		c.Fatal(err)
	}
	return ack.Sequence
}

// reservations are the events that reserve ids of the first number in a shard.
func (c *deployment) reservations(shard streams.Shard) (all []event.Reserved) {
	c.Helper()
	for seq := uint64(0); ; {
		m, err := c.bus.FirstAfter(c.Context(), streams.EnqueueStream(shard), streams.ReservedSubject(shard, 0), seq)
		if errors.Is(err, bus.ErrNoMessage) {
			return all
		}
		if err != nil {
			c.Fatal(err)
		}
		e, err := event.Decode[event.Reserved](m.Data)
		if err != nil {
			c.Fatal(err)
		}
		all, seq = append(all, e), m.Sequence
	}
}

var anyLane = streams.EnqueueSubject(1, 1, streams.Lane{})

// Whatever clock gave ids, and however much has been stored since: none is given again, by whoever has the number.
func TestReserve_ClockWasAhead(t *testing.T) {
	c := newDeployment(t)
	c.pass(10 * time.Minute)
	held, stop := c.start(true)
	last := c.id(held)
	stop()
	c.pass(-10 * time.Minute)
	c.store(anyLane, last)
	for i := range 1100 {
		c.store(anyLane, streams.FirstIDAt(c.clock())+streams.MessageID(i))
	}
	held, _ = c.start(true)
	if got := c.id(held); got <= last {
		t.Errorf("got an id of %v, want one after that of %v", got.Time(), last.Time())
	}
	// Nor is it far behind: a start costs a minute of ids at most, and the next ones not even a second.
	for range 20 {
		held, _ = c.start(true)
	}
	if got := c.id(held).Time(); got.After(last.Time().Add(reserveAhead + time.Second)) {
		t.Errorf("got an id of %v, want one up to a minute after that of %v", got, last.Time())
	}
}

// A version that reserved none may have given ids by a clock that was ahead. The newest messages say so, due or not.
func TestReserve_NoneReserved(t *testing.T) {
	for name, subject := range map[string]string{"enqueued": anyLane, "scheduled": streams.ScheduledSubject(1, 1)} {
		t.Run(name, func(t *testing.T) {
			c := newDeployment(t)
			last := streams.FirstIDAt(c.clock().Add(10 * time.Minute))
			c.store(subject, last)
			held, _ := c.start(true)
			if got := c.id(held); got <= last {
				t.Errorf("got an id of %v, want one after that of %v", got.Time(), last.Time())
			}
		})
	}
}

// Ids that were given are behind an event that reserves them, however the clock steps and however many are wanted.
func TestReserve_NoneBeyond(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	seen := map[streams.MessageID]bool{}
	for _, step := range []time.Duration{0, time.Second, 35 * time.Second, 48 * time.Hour, -47 * time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		c.step(held, step)
		for range 3 {
			ids := make([]streams.MessageID, 1000)
			if err := held.Give(t.Context(), 1, ids); err != nil {
				t.Fatal(err)
			}
			all := c.reservations(1)
			if len(all) == 0 {
				t.Fatal("got ids although none are reserved")
			}
			if end := all[len(all)-1].Before; ids[len(ids)-1] >= streams.FirstIDAt(end) {
				t.Errorf("after a step of %v: got an id of %v, reserved are those before %v", step, ids[len(ids)-1].Time(), end)
			}
			for _, id := range ids {
				if seen[id] {
					t.Fatalf("%v was given twice", id)
				}
				seen[id] = true
			}
		}
	}
	// Nor is one of them, where the others are reserved.
	own := held.ids
	at := *own.shards[1].at.Load()
	at.to = own.ids.Message() + 500
	own.shards[1].at.Store(&at)
	if own.give(1, c.clock(), make([]streams.MessageID, 1000)) {
		t.Error("got ids that are not reserved behind some that are")
	}
	all := c.reservations(1)
	if !slices.IsSortedFunc(all, func(a, b event.Reserved) int { return a.Before.Compare(b.Before) }) {
		t.Errorf("got %+v, want rising times", all)
	}
	if got := c.reservations(0); len(got) != 0 {
		t.Errorf("the other shard has no message, and %d events that reserve ids", len(got))
	}
}

// step moves the clock, and the claim with it.
func (c *deployment) step(held *claim, d time.Duration) {
	held.mu.Lock()
	defer held.mu.Unlock()
	c.pass(d)
	held.until = held.until.Add(d)
}

// Who gives ids without a pause waits for no reservation: more are reserved when half are left. Without messages none is.
func TestReserve_BeforeTheyAreUsedUp(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	c.id(held)
	own := &held.ids.shards[1]
	for range 10 {
		before := own.at.Load()
		c.step(held, reserveAhead/2-time.Second)
		c.id(held)
		if own.asked.Load() || own.at.Load() != before {
			t.Fatal("more ids are reserved although more than half are left")
		}
		c.step(held, 2*time.Second)
		own.lock <- struct{}{} // nothing is reserved now
		c.id(held)             // does not wait
		if !own.asked.Load() {
			t.Fatal("no ids are reserved although less than half are left")
		}
		<-own.lock
		c.until(func() bool { return own.at.Load() != before && !own.asked.Load() })
	}
	if got := len(c.reservations(1)); got != 11 {
		t.Errorf("got %d events in 5 minutes, want one each half", got)
	}
	c.step(held, time.Hour)
	if got := len(c.reservations(1)); got != 11 {
		t.Errorf("got %d events although nobody wants ids", got-11)
	}
}

// Ids that are far ahead of the clock last for long. What reserves them is younger than a day all the same.
func TestReserve_BeforeTheyAgeOut(t *testing.T) {
	c := newDeployment(t)
	c.store(anyLane, streams.FirstIDAt(c.clock().Add(100*24*time.Hour)))
	held, _ := c.start(true)
	c.id(held)
	own := &held.ids.shards[1]
	before := own.at.Load()
	c.step(held, reserveAgain-time.Second)
	c.id(held)
	if own.asked.Load() {
		t.Fatal("reserved again in the same day")
	}
	c.step(held, 2*time.Second)
	own.lock <- struct{}{} // nothing is reserved now
	c.id(held)
	if !own.asked.Load() {
		t.Fatal("not reserved again after a day")
	}
	<-own.lock
	c.until(func() bool { return own.at.Load() != before && !own.asked.Load() })
	if got := c.reservations(1); len(got) != 2 || got[1].Before.Before(got[0].Before) {
		t.Errorf("got %+v, want two that rise", got)
	}
}

// Two that both believe that they hold a number give different ids all the same.
func TestReserve_TwoHolders(t *testing.T) {
	c := newDeployment(t)
	all := []*reserved{
		newReserved(c.bus, c.clock, "one", 0, 2),
		newReserved(c.bus, c.clock, "another", 0, 2),
	}
	var mu sync.Mutex
	seen := map[streams.MessageID]bool{}
	var holders sync.WaitGroup
	for _, r := range all {
		r.begin(t.Context())
		holders.Go(func() {
			for i := range 200 {
				if i%10 == 0 {
					c.pass(20 * time.Second)
				}
				ids := make([]streams.MessageID, 10)
				for !r.give(1, c.clock(), ids) {
					if err := r.reserve(t.Context(), 1, ids[9]); err != nil {
						t.Error(err)
						return
					}
				}
				mu.Lock()
				for _, id := range ids {
					if seen[id] {
						t.Errorf("%v was given by both", id)
					}
					seen[id] = true
				}
				mu.Unlock()
			}
		})
	}
	holders.Wait()
	if len(seen) != 2*200*10 {
		t.Errorf("got %d ids", len(seen))
	}
}

// Where nobody knows whether ids were reserved, they are not given before the stream says so, and are not left out.
func TestReserve_UnknownOutcome(t *testing.T) {
	c := newDeployment(t)
	r := newReserved(c.bus, c.clock, "one", 0, 2)
	r.begin(t.Context())
	at := *r.shards[1].at.Load()
	if _, err := r.further(t.Context(), 1, at, r.ids.Message()); err != nil { // as if its answer had been lost
		t.Fatal(err)
	}
	var ids [1]streams.MessageID
	for !r.give(1, c.clock(), ids[:]) {
		if err := r.reserve(t.Context(), 1, ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if all := c.reservations(1); len(all) != 1 || ids[0] >= streams.FirstIDAt(all[0].Before) {
		t.Errorf("got an id of %v and %+v, want one among those of the first attempt", ids[0].Time(), all)
	}
}

// A shard that has no room refuses its own messages, with that reason, and no other shard's.
func TestReserve_Full(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	stream, err := c.bus.JS.Stream(t.Context(), streams.EnqueueStream(1))
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxBytes = 1
	if _, err := c.bus.JS.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	ids := make([]streams.MessageID, 1)
	if err := held.Give(t.Context(), 1, ids); !errors.Is(err, bus.ErrFull) {
		t.Errorf("got %v, want that it is full", err)
	}
	if err := held.Give(t.Context(), 0, ids); err != nil {
		t.Errorf("the other shard: %v", err)
	}
}

// Without the engine nothing is given that is not reserved, and it is said that nothing was stored.
func TestReserve_Away(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		server, b := bustest.Start(t, t.TempDir())
		d := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 20, StatusMaxBytes: 1 << 20}
		if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
			t.Fatal(err)
		}
		r := newReserved(b, time.Now, "one", 0, 1)
		r.begin(t.Context())
		server.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		var ids [1]streams.MessageID
		if r.give(0, time.Now(), ids[:]) {
			t.Fatal("got an id that is not reserved")
		}
		err := r.reserve(ctx, 0, ids[0])
		if !errors.Is(err, bus.ErrNotStored) || errors.Is(err, bus.ErrUnknownOutcome) || time.Since(began) > reserveWithin {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// Ids cost no memory and no question while they last.
func BenchmarkGive(b *testing.B) {
	r := newReserved(bustest.New(b), time.Now, "one", 0, 1)
	r.shards[0].at.Store(&stretch{to: ^streams.MessageID(0), soon: ^streams.MessageID(0), stored: time.Now()})
	c := claim{now: time.Now, ids: r, until: time.Now().Add(time.Hour)}
	ids := make([]streams.MessageID, 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Give(b.Context(), 0, ids); err != nil {
			b.Fatal(err)
		}
	}
}

func TestGive_Cost(t *testing.T) {
	c := newDeployment(t)
	held, _ := c.start(true)
	c.id(held)
	ids := make([]streams.MessageID, 1)
	allocated := testing.AllocsPerRun(1000, func() {
		if err := held.Give(t.Context(), 1, ids); err != nil {
			t.Error(err)
		}
	})
	if got := len(c.reservations(1)); allocated > 0 || got != 1 {
		t.Errorf("an id costs %v allocations, and 1,000 of them %d events", allocated, got-1)
	}
}
