package quota

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func (w *world) release(given request.Grant) {
	w.t.Helper()
	if _, err := bus.Call[request.Released](w.t.Context(), w.bus, request.QuotaRelease, request.Release{Grant: given}); err != nil {
		w.t.Fatal(err)
	}
}

// folded waits until an instance has folded all that is stored.
func (i *instance) folded() {
	i.w.t.Helper()
	for _, shard := range i.w.shards.All() {
		if err := i.quota.foldAll(i.w.t.Context(), shard); err != nil {
			i.w.t.Fatal(err)
		}
	}
}

func (i *instance) mustHaveOpen(want int) {
	i.w.t.Helper()
	if got := i.quota.ledger.openGrants(); got != want {
		i.w.t.Errorf("open grants: got %d, want %d", got, want)
	}
}

func TestGrantIsWholeOrRefused(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start("a")
		w.await("a leader", w.granting)
		w.mustReserve(alice, 60, 100)
		_, err := w.reserve(alice, 41, 100)
		if f := fault.As(err); f == nil || f.Kind != fault.LimitExceeded || f.Code != request.LimitReserved || f.Limit != 100 || f.Used != 60 {
			t.Errorf("reserve over the limit: got %+v, want limit_reserved, 60 of 100", f)
		}
		w.mustUse(alice, 60)
		w.mustReserve(alice, 40, 100)
		w.mustReserve(streams.AccountIDOf("bob"), 100, 100)
		// The plan was changed for less than is used.
		if _, err := w.reserve(alice, 1, 50); !fault.Is(err, fault.LimitExceeded) {
			t.Errorf("reserve under a lowered limit: got %v, want limit_exceeded", err)
		}
	})
}

func TestMalformedReservations(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start("a")
		w.await("a leader", w.granting)
		for name, r := range map[string]request.Reserve{
			"no account":    {Count: 1, Limit: 10},
			"none":          {Account: alice, Count: 0, Limit: 10},
			"negative":      {Account: alice, Count: -1, Limit: 10},
			"too many":      {Account: alice, Count: 1001, Limit: 10000},
			"no limit":      {Account: alice, Count: 1},
			"no such asker": {Account: alice, Count: 1, Limit: 10, Instance: streams.MaxInstance + 1},
		} {
			_, err := bus.Call[request.Grant](t.Context(), w.bus, request.QuotaReserve, r)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: got %v, want invalid", name, err)
			}
		}
		w.mustReserve(alice, 1000, 1000)
	})
}

func TestGrantEndsWithItsEvents(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		given := w.mustReserve(alice, 3, 10)
		w.publish(alice, 2, given.Month, given.ID)
		i.folded()
		w.mustUse(alice, 3)
		i.mustHaveOpen(1)
		// Somebody else's message is none of this grant.
		w.publish(streams.AccountIDOf("bob"), 1, given.Month, given.ID)
		i.folded()
		i.mustHaveOpen(1)
		w.publish(alice, 1, given.Month, given.ID)
		i.folded()
		w.mustUse(alice, 3)
		i.mustHaveOpen(0)
		// Without a grant, as where the limit is new, it counts all the same.
		w.publish(alice, 1, given.Month, "")
		i.folded()
		w.mustUse(alice, 4)
	})
}

func TestGrantEndsWithItsRelease(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		kept, given := w.mustReserve(alice, 1, 10), w.mustReserve(alice, 5, 10)
		w.publish(alice, 2, given.Month, given.ID)
		i.folded()
		w.release(given)
		w.mustUse(alice, 3)
		w.release(given)
		w.mustUse(alice, 3)
		foreign := kept
		foreign.Account = streams.AccountIDOf("bob")
		w.release(foreign)
		w.mustUse(alice, 3)
		w.release(kept)
		w.mustUse(alice, 2)
	})
}

func TestGrantEndsByItself(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		w.publish(alice, 1, time.Now().UTC().Format(monthLayout), "")
		w.mustReserve(alice, 5, 10)
		time.Sleep(request.GrantTTL - time.Second)
		w.mustUse(alice, 6)
		w.mustReserve(alice, 2, 10)
		time.Sleep(2500 * time.Millisecond)
		w.mustUse(alice, 3)
		i.mustHaveOpen(1)
		time.Sleep(request.GrantTTL)
		w.mustUse(alice, 1)
		i.mustHaveOpen(0)
	})
}

func TestOpenGrantsAreBounded(t *testing.T) {
	l := newLedger(time.Now, 1, 2)
	l.begin(7, time.Now().Add(time.Hour))
	l.openShard(0)
	ask := request.Reserve{Account: alice, Count: 1, Limit: 10}
	first, err := l.reserve(ask)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.reserve(ask); err != nil {
		t.Fatal(err)
	}
	if _, err := l.reserve(ask); !isCode(err, "quota_busy") {
		t.Errorf("third of two: got %v, want quota_busy", err)
	}
	l.release(first)
	if _, err := l.reserve(ask); err != nil {
		t.Errorf("after a release: got %v, want a grant", err)
	}
}
