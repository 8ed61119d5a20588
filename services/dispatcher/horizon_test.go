package dispatcher_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// shifted runs a test with a dispatcher whose clock is ahead of the engine's by that: what the engine says of when
// something was stored is then wrong by as much.
func shifted(t *testing.T, shift time.Duration, f func(h *harness)) {
	t.Helper()
	bustest.SimulateFrom(t, streams.Epoch.Add(800*day), func(t *testing.T) { f(newHarnessAhead(t, 1, shift)) })
}

// awayUntil stops the dispatcher until then, by its own clock, and lets it do what is due. The engine, whose clock stands
// meanwhile, gives no message a time of by then.
func (h *harness) awayUntil(then time.Time) {
	h.stop()
	h.shift.Add(int64(then.Sub(h.now())))
	h.start()
	pass(2 * time.Minute)
}

// state of a stream.
func (h *harness) stateOf(name string) jetstream.StreamState {
	h.t.Helper()
	stream, err := h.bus.JS.Stream(context.Background(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return stream.CachedInfo().State
}

// has says whether ENQUEUE holds a sequence.
func (h *harness) has(seq uint64) bool {
	h.t.Helper()
	_, err := h.bus.Get(context.Background(), streams.EnqueueStream(0), seq)
	if err != nil && !errors.Is(err, bus.ErrNoMessage) {
		h.t.Fatal(err)
	}
	return err == nil
}

// rebuilt holds the projection to one that is made of what the streams still have.
func (h *harness) rebuilt(when string) {
	h.t.Helper()
	h.stop()
	dir := h.t.(*testing.T).TempDir()
	stop := h.run(dir, 1)
	h.pull(phone(streams.AccountIDOf("nobody"), "", 1)) // it has caught up
	stop()
	if diff := cmp.Diff(h.dump(h.dir, 0), h.dump(dir, 0)); diff != "" {
		h.t.Errorf("%s, rebuilt: %s", when, diff)
	}
	h.start()
}

// What is in the streams is kept for 35 days by the time that surely passed, and then goes within an hour, whatever the
// engine's clock says.
func TestForget(t *testing.T) {
	for _, shift := range []time.Duration{0, -400 * day} {
		t.Run(fmt.Sprint(shift), func(t *testing.T) {
			shifted(t, shift, func(h *harness) {
				pass(time.Minute) // by when the first horizon stands
				began := h.now()
				first := h.enqueue(shop, normal, 3)
				h.pull(phone(shop, "Phone", 2))
				h.report(shop, "Phone", streams.Delivered, first[0])
				decided := h.stateOf(streams.StatusStream(0)).LastSeq
				h.awayUntil(began.Add(61 * time.Minute)) // and knows then what there was
				h.enqueue(shop, normal, 3)
				h.awayUntil(began.Add(3 * time.Hour))
				want := func(when string, a, b bool) {
					t.Helper()
					if gotA, gotB := h.has(3), h.has(4); gotA != a || gotB != b {
						t.Errorf("%s: the first messages are there: %t, want %t; those of an hour later: %t, want %t", when, gotA, a, gotB, b)
					}
				}
				h.awayUntil(began.Add(31 * day))
				want("after 31 days", true, true)
				h.awayUntil(began.Add(35*day + 50*time.Minute))
				want("after 35 days", true, true)
				h.rebuilt("after 35 days")
				h.awayUntil(began.Add(35*day + 70*time.Minute))
				want("after 35 days and an hour", false, true)
				h.rebuilt("after 35 days and an hour")
				if got := h.stateOf(streams.StatusStream(0)).FirstSeq; got <= decided {
					t.Errorf("STATUS begins at %d, want that it has nothing up to %d", got, decided)
				}
				h.awayUntil(began.Add(35*day + 3*time.Hour + 10*time.Minute))
				want("three hours later", false, false)
				h.rebuilt("three hours later")
				fresh := h.enqueue(shop, normal, 1)
				if diff := cmp.Diff(fresh, h.pull(phone(shop, "Phone", 9))); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Horizon events of earlier versions do not say when they were made, nor what ENQUEUE held.
func TestForget_EarlierVersions(t *testing.T) {
	shifted(t, 0, func(h *harness) {
		h.stop()
		began := h.now()
		for hour := range 6 {
			h.enqueue(shop, normal, 2)
			// A scheduled message that is enqueued by now, and counts from now on.
			h.publish(streams.EnqueueSubject(0, shop, normal), event.Enqueued{
				ID: streams.FirstIDAt(h.now().Add(-20 * day)), Due: h.now().UTC(), Released: true, Month: "2026-11",
			})
			h.shift.Add(int64(time.Hour))
			h.publish(streams.HorizonSubject(0), event.Horizon{Before: h.now().UTC().Truncate(time.Millisecond).Add(-30 * day)})
			if got := h.stateOf(streams.EnqueueStream(0)).LastSeq; got != uint64(3*hour+3) {
				t.Fatalf("ENQUEUE ends at %d", got)
			}
		}
		h.start()
		h.awayUntil(began.Add(35*day - 3*time.Minute))
		if got := h.stateOf(streams.EnqueueStream(0)).FirstSeq; got != 1 {
			t.Errorf("before 35 days ENQUEUE begins at %d", got)
		}
		h.awayUntil(began.Add(35*day + 3*time.Hour + 30*time.Minute))
		if got := h.stateOf(streams.EnqueueStream(0)).FirstSeq; got != 10 {
			t.Errorf("3 hours later ENQUEUE begins at %d, want at 10", got)
		}
		h.rebuilt("3 hours later")
	})
}

// Where STATUS has no room for a horizon event, the purge makes some.
func TestForget_Full(t *testing.T) {
	shifted(t, 0, func(h *harness) {
		ids := h.enqueue(shop, normal, 100)
		for range 40 { // more than the horizon takes that is to be moved on
			h.report(shop, "Phone", streams.Delivered, ids...)
		}
		h.awayUntil(h.now().Add(2 * time.Hour))
		stream, err := h.bus.JS.Stream(context.Background(), streams.StatusStream(0))
		if err != nil {
			t.Fatal(err)
		}
		changed := stream.CachedInfo().Config
		changed.MaxBytes = int64(stream.CachedInfo().State.Bytes)
		if _, err := h.bus.JS.UpdateStream(context.Background(), changed); err != nil {
			t.Fatal(err)
		}
		before := func() time.Time {
			t.Helper()
			m, err := h.bus.LastForSubject(context.Background(), streams.StatusStream(0), streams.HorizonSubject(0))
			if err != nil {
				t.Fatal(err)
			}
			e, err := event.Decode[event.Horizon](m.Data)
			if err != nil {
				t.Fatal(err)
			}
			return e.Before
		}
		stood := before()
		h.awayUntil(h.now().Add(20 * day))
		if got := before(); !got.Equal(stood) {
			t.Fatalf("the horizon is at %v, although there is no room to say so", got)
		}
		h.awayUntil(h.now().Add(16 * day))
		if got := h.now().Sub(before()); got > 30*day+time.Hour {
			t.Errorf("the horizon is %v back", got)
		}
		h.rebuilt("after it was full")
	})
}

// After very long more is over than is read at once.
func TestForget_ManyMarks(t *testing.T) {
	shifted(t, 0, func(h *harness) {
		h.stop()
		began := h.now().UTC().Truncate(time.Millisecond)
		for range 50_000 {
			h.publishLater(streams.BarrierSubject(0), event.Barrier{})
		}
		h.await()
		h.enqueue(shop, normal, 1)
		accepted := h.stateOf(streams.EnqueueStream(0)).LastSeq
		var last uint64
		for n := range 1100 {
			made := began.Add(time.Duration(n) * time.Minute)
			last = h.publish(streams.HorizonSubject(0), event.Horizon{Before: made.Add(-30 * day), At: made, Enqueue: accepted})
		}
		h.shift.Add(int64(1100 * time.Minute))
		h.start()
		h.awayUntil(began.Add(36 * day))
		pass(2 * time.Minute)
		if got := h.stateOf(streams.StatusStream(0)).FirstSeq; got < last {
			t.Errorf("STATUS begins at %d, want at %d or later", got, last)
		}
		if got := h.stateOf(streams.EnqueueStream(0)); got.FirstSeq != accepted+1 || got.Msgs != 0 {
			t.Errorf("ENQUEUE begins at %d, want at %d", got.FirstSeq, accepted+1)
		}
	})
}
