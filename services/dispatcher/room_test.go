package dispatcher_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A page for which there is no room is not leased: the dispatcher says what it needs, and gives what fits where that is
// asked for.
func TestPagesFitTheRoom(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 10)
		h.folded(shop)
		var bodies []int
		size := 0
		for _, m := range ids {
			body, err := event.Encode(event.Enqueued{ID: m, Phone: "+40700000000", Text: event.Private("text of " + m.String()), Month: "2026-11"})
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, len(body))
			size += len(body)
		}
		ask := func(bytes int, fit bool) request.Pulled {
			q := phone(shop, "Pixel", 10)
			q.Bytes, q.Fit = bytes, fit
			return call[request.Pulled](h, request.DispatcherPull(0), q)
		}
		for _, refused := range []struct {
			bytes int
			fit   bool
			needs int
		}{{size - 1, false, size}, {1, false, size}, {bodies[0] - 1, true, bodies[0]}} {
			if got := ask(refused.bytes, refused.fit); got.Needs != refused.needs || len(got.Messages) != 0 || got.Lease != 0 {
				t.Errorf("%+v: got %d messages, needs %d", refused, len(got.Messages), got.Needs)
			}
			if got := h.state(shop, ids[0]); got != streams.Pending {
				t.Errorf("%+v: the message is %v", refused, got)
			}
		}
		if got := ask(bodies[0]+bodies[1]+bodies[2]-1, true); len(got.Messages) != 2 || got.Needs != 0 || got.Messages[0].ID != ids[0] {
			t.Errorf("what fits: got %d messages, needs %d", len(got.Messages), got.Needs)
		}
		// What was put back comes with the next page.
		if got := ask(size-bodies[0]-bodies[1], false); len(got.Messages) != 8 || got.Messages[0].ID != ids[2] {
			t.Errorf("the rest: got %d messages, needs %d", len(got.Messages), got.Needs)
		}
	})
}

// A phone that waits is told what the work needs, and if it does not come back another one looks.
func TestWaitersAreToldWhatWorkNeeds(t *testing.T) {
	inTime(t, func(h *harness) {
		small := phone(shop, "Small", 10)
		small.Bytes = 10
		first := h.wait(small)
		second := h.wait(phone(shop, "Pixel", 10))
		ids := h.enqueue(shop, normal, 1)
		first.atOnce(h.t, "who has no room", []streams.MessageID{})
		second.asleep(h.t, "who waits behind it")
		pass(1100 * soon)
		got := <-second
		if diff := cmp.Diff(ids, got.ids); diff != "" || got.err != nil {
			t.Errorf("who looks again: %v (-want +got):\n%s", got.err, diff)
		}
	})
}

// What was put back in whatever order comes in the stream's.
func TestPagesAreInOrder(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 10)
		h.folded(shop)
		q := phone(shop, "Pixel", 10)
		q.Bytes = 1 // has no room, and puts all back
		if got := call[request.Pulled](h, request.DispatcherPull(0), q); got.Needs == 0 {
			t.Fatalf("got %+v, want that it needs more", got)
		}
		pass(time.Second) // until it is heard of
		got, err := h.bus.Fetch(h.t.Context(), streams.EnqueueStream(0), streams.ConsumerName(shop, normal), 10, time.Second)
		if err != nil || len(got) != 10 {
			t.Fatalf("got %d messages, %v", len(got), err)
		}
		for _, m := range slices.Backward(got) {
			m.Nak()
		}
		pass(time.Second)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
