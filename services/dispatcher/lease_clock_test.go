package dispatcher_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	longLease = time.Hour // longer than a clock is doubted
	day       = 24 * time.Hour
)

// onAClock runs a test with a dispatcher whose machine's clock can be stepped.
func onAClock(t *testing.T, f func(h *harness)) {
	t.Helper()
	inTime(t, func(h *harness) {
		h.stop()
		h.machine = &clocktest.Stepped{}
		h.start()
		f(h)
	})
}

// step steps the machine's clock, and has an operator confirm it.
func (h *harness) step(by time.Duration) {
	h.machine.Step(by)
	h.clock.Now()
	h.clock.Confirm()
}

// lasts takes one message, lets f happen, and says after how long of real time another phone gets it.
func (h *harness) lasts(f func(streams.MessageID)) time.Duration {
	h.t.Helper()
	ids := h.enqueue(shop, normal, 1)
	q := phone(shop, "Dead", 1)
	q.Lease = longLease
	if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
		h.t.Fatal(diff)
	}
	began := time.Now()
	f(ids[0])
	for time.Since(began) < 5*longLease {
		pass(time.Minute)
		if got := h.pull(phone(shop, "Alive", 1)); len(got) == 1 {
			h.report(shop, "Alive", streams.Delivered, got...)
			return time.Since(began)
		}
	}
	h.t.Fatal("it never came again")
	return 0
}

// within fails unless a lease lasted for its length, and at most for late more.
func within(t *testing.T, what string, got, late time.Duration) {
	t.Helper()
	if got < longLease || got > longLease+late+2*time.Minute {
		t.Errorf("%s: the lease lasted %v, want %v, and at most %v more", what, got, longLease, late)
	}
}

// decisions counts what the dispatcher decided about leases by itself.
func (h *harness) decisions() (n int) {
	h.t.Helper()
	for _, m := range h.status() {
		switch event.Kind(m.Header.Get(event.KindHeader)) {
		case event.KindRenewed, event.KindLapsed:
			n++
		}
	}
	return n
}

// However a clock steps, a phone has what it was promised, and nobody waits much longer.
func TestLeasesLastThroughSteps(t *testing.T) {
	for _, by := range []time.Duration{time.Minute, 59 * time.Minute, 2 * time.Hour, 20 * day, -time.Minute, -2 * time.Hour, -200 * day} {
		onAClock(t, func(h *harness) {
			const after = 20 * time.Minute
			got := h.lasts(func(streams.MessageID) {
				pass(after)
				h.step(by)
			})
			within(t, by.String(), got, after)
			// And where the clock had been wrong until then.
			got = h.lasts(func(streams.MessageID) {
				pass(after)
				h.machine.Right()
				h.clock.Now()
				h.clock.Confirm()
			})
			within(t, "back from "+by.String(), got, after)
			if n := h.decisions(); n > 6 {
				t.Errorf("step by %v: %d decisions about two leases", by, n)
			}
		})
	}
}

// How long a dispatcher was away it knows from a clock alone, which may be wrong.
func TestLeasesLastThroughStarts(t *testing.T) {
	for _, by := range []time.Duration{0, time.Minute, 2 * time.Hour, 20 * day, -2 * time.Hour, -200 * day} {
		onAClock(t, func(h *harness) {
			got := h.lasts(func(streams.MessageID) {
				pass(20 * time.Minute)
				h.stop()
				h.machine.Step(by)
				pass(time.Minute)
				h.start()
			})
			within(t, by.String(), got, 21*time.Minute)
		})
	}
}

// A report that an ingress stored whose clock was far ahead, or behind.
func TestLeasesEndAfterReportsOfAnotherTime(t *testing.T) {
	for _, by := range []time.Duration{0, 30 * time.Second, 2 * time.Hour, 20 * day, -2 * time.Hour} {
		onAClock(t, func(h *harness) {
			ids := h.enqueue(shop, normal, 2)
			q := phone(shop, "Slow", 2)
			q.Lease = longLease
			h.pull(q)
			began, after := time.Now(), 10*time.Minute
			pass(after)
			h.publish(streams.ReportSubject(0, shop), event.Reported{
				At: h.now().Add(by), Device: q.Device, Messages: []event.Report{{ID: ids[0], State: streams.Delivered}},
			})
			for len(h.pull(phone(shop, "Alive", 1))) == 0 && time.Since(began) < 5*longLease {
				pass(time.Minute)
			}
			within(t, by.String(), time.Since(began), longLease)
			if by >= 0 {
				within(t, by.String()+", since the report", time.Since(began)-after, longLease)
			}
			if n := h.decisions(); n > 4 {
				t.Errorf("report %v ahead: %d decisions about a lease", by, n)
			}
		})
	}
}

// A lapse that something voids is decided again, but not as fast as the machine can.
func TestLeasesAreNotEndedInALoop(t *testing.T) {
	onAClock(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		q := phone(shop, "Dead", 1)
		q.Lease = longLease
		h.pull(q)
		before := h.decisions()
		// Other reports wake the reaction, and a dispatcher whose clock is wrong by a day gives the lease an end that is over.
		pass(time.Minute)
		lease := h.show(shop, ids[0]).Message.Lease
		for range 20 {
			h.publish(streams.DecisionSubject(0, shop), event.Renewed{At: h.now().Add(-day), Leases: []event.Renewal{{Lease: lease, Until: h.now().Add(-day)}}})
			other := h.enqueue(shop, normal, 1)
			h.pull(phone(shop, "Alive", 1))
			h.report(shop, "Alive", streams.Delivered, other...)
			pass(20 * time.Millisecond)
		}
		pass(5 * time.Second)
		if n := h.decisions() - before - 20; n > 6 {
			t.Errorf("%d decisions in 5 s, want at most one a second", n)
		}
	})
}

// A dispatcher whose clock agrees with no engine's ends nothing, and hands out nothing.
func TestLeasesWaitForAClockThatAgrees(t *testing.T) {
	onAClock(t, func(h *harness) {
		q := phone(shop, "Dead", 1)
		h.enqueue(shop, normal, 2)
		h.pull(q)
		for _, skew := range []time.Duration{clock.Apart + time.Second, -clock.Apart - time.Second} {
			before := h.decisions()
			h.clock.SetSkew(skew, skew)
			pass(2 * streams.DefaultLease)
			if n := h.decisions() - before; n != 0 {
				t.Errorf("%v apart: %d decisions about leases", skew, n)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_, err := bus.Call[request.Pulled](ctx, h.bus, request.DispatcherPull(h.shards.Of(shop)), phone(shop, "Alive", 1))
			cancel()
			if refused := new(fault.Error); !errors.As(err, &refused) || refused.Code != "clock_differs" {
				t.Errorf("%v apart: a pull got %v, want clock_differs", skew, err)
			}
		}
		h.clock.SetSkew(clock.Apart, 2*clock.Apart) // one of two engines is wrong
		pass(2 * time.Minute)
		if got := h.pull(phone(shop, "Alive", 2)); len(got) != 2 {
			t.Errorf("got %v, want what lapsed and what was waiting", got)
		}
	})
}
