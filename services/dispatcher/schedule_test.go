package dispatcher_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// schedule accepts messages for later, as ingress does.
func (h *harness) schedule(a streams.AccountID, l streams.Lane, n int, due, until time.Time) []streams.MessageID {
	h.t.Helper()
	var all []streams.MessageID
	for range n {
		m := h.ids.Message()
		all = append(all, m)
		h.publishLater(streams.ScheduledSubject(h.shards.Of(a), a), event.Scheduled{Lane: l, Enqueued: event.Enqueued{
			ID: m, Due: due, Until: until, Phone: "+40700000000", Text: event.Private("text of " + m.String()), Month: "2026-11",
		}})
	}
	h.await()
	return all
}

// valid accepts messages that are valid until then.
func (h *harness) valid(a streams.AccountID, n int, until time.Time) []streams.MessageID {
	h.t.Helper()
	var all []streams.MessageID
	for range n {
		m := h.ids.Message()
		all = append(all, m)
		h.publish(streams.EnqueueSubject(h.shards.Of(a), a, normal), event.Enqueued{
			ID: m, Until: until, Phone: "+40700000000", Text: event.Private("text of " + m.String()), Month: "2026-11",
		})
	}
	return all
}

func (h *harness) cancel(a streams.AccountID, waiting bool, ids ...streams.MessageID) []streams.MessageID {
	h.t.Helper()
	return call[request.Decided](h, request.DispatcherCancel(h.shards.Of(a)), request.Decide{Account: a, Messages: ids, Waiting: waiting}).Changed
}

func (h *harness) requeue(a streams.AccountID, ids ...streams.MessageID) []streams.MessageID {
	h.t.Helper()
	return call[request.Decided](h, request.DispatcherRequeue(h.shards.Of(a)), request.Decide{Account: a, Messages: ids}).Changed
}

// Who has many messages that are due at once does not keep others' waiting: accounts take turns.
func TestReleasesTakeTurns(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(time.Hour).Truncate(time.Millisecond)
		const many = 5000
		h.schedule(shop, normal, many, due, time.Time{})
		h.schedule(shop+1, normal, 5, due, time.Time{})
		pass(due.Sub(h.now()))
		last, err := h.bus.LastForSubject(context.Background(), streams.EnqueueStream(0), streams.EnqueueSubject(0, shop+1, normal))
		if err != nil {
			t.Fatal(err)
		}
		// Two commits of a thousand may be under way at a time.
		if nth := last.Sequence - many - 5; nth > 2000 {
			t.Errorf("the last of another account's five was released as the %dth", nth)
		}
	})
}

func TestScheduledMessagesGoOutWhenTheyAreDue(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(time.Hour).Truncate(time.Millisecond)
		later := h.schedule(shop, normal, 3, due.Add(time.Second), time.Time{})
		ids := h.schedule(shop, normal, 2500, due, time.Time{}) // more than are released at a time
		if got := h.state(shop, ids[0]); got != streams.Scheduled {
			t.Errorf("got a message that is %v before it is due, want scheduled", got)
		}
		pass(due.Sub(h.now()) - time.Millisecond)
		if got := h.pull(phone(shop, "Early", 10)); len(got) != 0 {
			t.Errorf("got %d messages before they were due", len(got))
		}
		pass(time.Millisecond)
		for _, want := range [][]streams.MessageID{ids[:1000], ids[1000:2000], ids[2000:]} {
			if diff := cmp.Diff(want, h.pull(phone(shop, "Pixel", 1000))); diff != "" {
				t.Errorf("when they are due (-want +got):\n%s", diff)
			}
		}
		pass(time.Second)
		if diff := cmp.Diff(later, h.pull(phone(shop, "Pixel", 1000))); diff != "" {
			t.Errorf("a second later (-want +got):\n%s", diff)
		}
	})
}

// What is due at the same time is released in parts that fit into memory, however long the texts are.
func TestScheduledMessagesAreReleasedInParts(t *testing.T) {
	inTime(t, func(h *harness) {
		const count, length = 300, 60_000
		due := h.now().Add(time.Hour).Truncate(time.Millisecond)
		text := event.Private(strings.Repeat("x", length))
		for range count {
			h.publishLater(streams.ScheduledSubject(0, shop), event.Scheduled{Lane: normal, Enqueued: event.Enqueued{
				ID: h.ids.Message(), Due: due, Phone: "+40700000000", Text: text, Month: "2026-11",
			}})
		}
		h.await()
		pass(due.Sub(h.now()))
		stream, err := h.bus.JS.Stream(context.Background(), streams.EnqueueStream(0))
		if err != nil {
			t.Fatal(err)
		}
		parts := map[string]int{} // bytes, by atomic batch
		for seq := uint64(count + 1); seq <= 2*count; seq++ {
			m, err := stream.GetMsg(context.Background(), seq)
			if err != nil {
				t.Fatalf("message %d, which was released: %v", seq-count, err)
			}
			parts[m.Header.Get("Nats-Batch-Id")] += len(m.Data)
		}
		for id, size := range parts {
			if most := 4<<20 + 64*(length+1000); size > most || id == "" {
				t.Errorf("got a part %q of %d bytes, want at most %d", id, size, most)
			}
		}
	})
}

// A phone that waits gets what becomes due meanwhile, at that time.
func TestScheduledMessagesWakeAPhone(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(5 * time.Second).Truncate(time.Millisecond)
		ids := h.schedule(shop, normal, 1, due, time.Time{})
		q := phone(shop, "Pixel", 10)
		q.Wait = 20 * time.Second
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if late := h.now().Sub(due); late < 0 || late > time.Second {
			t.Errorf("got it %v after it was due, want within a second", late)
		}
	})
}

// What is overdue after the dispatchers were away goes out when one is back.
func TestScheduledMessagesOutliveTheDispatcher(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.schedule(shop, normal, 3, h.now().Add(time.Hour).Truncate(time.Millisecond), time.Time{})
		pass(0)
		h.stop()
		pass(2 * time.Hour)
		h.start()
		pass(time.Second)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Two dispatchers release the same messages, and a third time they stand in the stream long after: a phone gets each once.
func TestScheduledMessagesGoOutOnce(t *testing.T) {
	inTime(t, func(h *harness) {
		stop := h.run(t.TempDir(), 1)
		defer stop()
		due := h.now().Add(time.Minute).Truncate(time.Millisecond)
		ids := h.schedule(shop, normal, 20, due, time.Time{})
		pass(2 * time.Minute)
		for _, m := range ids { // beyond what the engine knows as a repeat
			h.publish(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: m, Due: due, Released: true, Text: event.Private("text of " + m.String()), Month: "2026-11"})
		}
		got := append(h.pull(phone(shop, "Pixel", 15)), h.pull(phone(shop, "Nexus", 30))...)
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		h.report(shop, "Pixel", streams.Delivered, ids...)
		pass(time.Hour)
		if got := h.pull(phone(shop, "Pixel", 30)); len(got) != 0 {
			t.Errorf("got %d messages again", len(got))
		}
	})
}

func TestScheduledMessagesCanBeCancelled(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(time.Hour).Truncate(time.Millisecond)
		ids := h.schedule(shop, normal, 3, due, time.Time{})
		if diff := cmp.Diff(ids[:2], h.cancel(shop, true, ids[:2]...)); diff != "" {
			t.Errorf("cancelled (-want +got):\n%s", diff)
		}
		// One that is offered again before it is due waits for that.
		h.requeue(shop, ids[1])
		if got := h.state(shop, ids[1]); got != streams.Scheduled {
			t.Errorf("got %v, want scheduled again", got)
		}
		pass(2 * time.Hour)
		if diff := cmp.Diff(ids[1:], h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("when due (-want +got):\n%s", diff)
		}
		if got := h.state(shop, ids[0]); got != streams.Cancelled {
			t.Errorf("got %v, want cancelled", got)
		}
	})
}

// What is offered again before it is due goes out when it is due, and what is offered again after that goes out at once.
func TestScheduledMessagesOfferedAgainGoOutInTime(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(5 * time.Minute).Truncate(time.Millisecond)
		ids := h.schedule(shop, normal, 2, due, due.Add(time.Hour))
		h.cancel(shop, true, ids...)
		pass(due.Sub(h.now()) - time.Minute) // nothing is due that the dispatcher knows of
		h.requeue(shop, ids[0])
		q := phone(shop, "Pixel", 10)
		q.Wait = 2 * time.Minute
		if diff := cmp.Diff(ids[:1], h.pull(q)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if late := h.now().Sub(due); late < 0 || late > time.Second {
			t.Errorf("got it %v after it was due, want within a second", late)
		}
		pass(time.Minute)
		h.requeue(shop, ids[1])
		began := h.now()
		if diff := cmp.Diff(ids[1:], h.pull(q)); diff != "" {
			t.Errorf("offered again after it was due (-want +got):\n%s", diff)
		}
		if late := h.now().Sub(began); late > time.Second {
			t.Errorf("got it %v after it was offered again", late)
		}
	})
}

// A requeue gives more time, never less: what is due in ten days is valid then.
func TestRequeueNeverShortensValidity(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(10 * 24 * time.Hour).Truncate(time.Millisecond)
		ids := h.schedule(shop, normal, 1, due, due.Add(time.Hour))
		endless := h.enqueue(shop, normal, 1)
		h.cancel(shop, true, ids[0], endless[0])
		h.requeue(shop, ids[0], endless[0])
		if got := h.show(shop, endless[0]).Message.Valid; !got.IsZero() {
			t.Errorf("a message without an end is valid until %v", got)
		}
		if got := h.show(shop, ids[0]).Message.Valid; !got.Equal(due.Add(time.Hour)) {
			t.Errorf("a message that is due at %v is valid until %v", due, got)
		}
	})
}

// A message expires whether it is scheduled, waits, or is with a phone; not if it has gone out, or a report says so later.
func TestMessagesExpire(t *testing.T) {
	inTime(t, func(h *harness) {
		until := h.now().Add(5 * time.Minute).Truncate(time.Millisecond)
		sent := h.valid(shop, 1, until)
		h.pull(phone(shop, "Pixel", 1))
		h.report(shop, "Pixel", streams.Sent, sent...)
		leased := h.valid(shop, 1, until)
		h.pull(phone(shop, "Pixel", 1))
		waiting := h.valid(shop, 1200, until) // more than are decided at a time
		scheduled := h.schedule(shop, normal, 1, until.Add(-time.Minute), until)
		stays := h.valid(shop, 1, until.Add(time.Hour))
		pass(until.Sub(h.now()) - time.Second)
		if got := h.state(shop, waiting[0]); got != streams.Pending {
			t.Errorf("a second before: got %v, want pending", got)
		}
		pass(2 * time.Second)
		for what, ids := range map[string][]streams.MessageID{"leased": leased, "waiting": waiting, "scheduled": scheduled} {
			for _, m := range []streams.MessageID{ids[0], ids[len(ids)-1]} {
				if got := h.state(shop, m); got != streams.Expired {
					t.Errorf("one that is %s: got %v, want expired", what, got)
				}
			}
		}
		if got := h.state(shop, sent[0]); got != streams.Sent {
			t.Errorf("one that was sent: got %v", got)
		}
		if diff := cmp.Diff(stays, h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("a pull afterwards (-want +got):\n%s", diff)
		}
		want := []request.Change{{Known: true, Changed: true, State: streams.Delivered}}
		if diff := cmp.Diff(want, h.report(shop, "Pixel", streams.Delivered, leased...)); diff != "" {
			t.Errorf("a success after the end (-want +got):\n%s", diff)
		}
	})
}

// What has expired is never handed out, also by a dispatcher that has not decided so yet.
func TestExpiredMessagesAreNotHandedOut(t *testing.T) {
	inTime(t, func(h *harness) {
		until := h.now().Add(time.Minute).Truncate(time.Millisecond)
		ids := h.valid(shop, 3, until)
		fresh := h.valid(shop, 1, until.Add(time.Hour))
		synctest.Wait()
		h.shift.Store(int64(time.Minute)) // the clock is there at once, and nothing is decided yet
		if diff := cmp.Diff(fresh, h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		synctest.Wait()
		h.shift.Store(0)
		pass(time.Minute)
		// An operator who offers them again gives them time.
		h.requeue(shop, ids...)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "Pixel", 10))); diff != "" {
			t.Errorf("offered again (-want +got):\n%s", diff)
		}
		if left := h.show(shop, ids[0]).Message.Valid.Sub(h.now()); left > streams.DefaultValidity || left < streams.DefaultValidity-time.Second {
			t.Errorf("got %v of validity, want 72 h from now", left)
		}
	})
}

// A flood of one account's scheduled messages does not hold up another account's.
func TestScheduledFloodIsReleasedInOrder(t *testing.T) {
	inTime(t, func(h *harness) {
		due := h.now().Add(time.Minute).Truncate(time.Millisecond)
		h.schedule(shop, streams.Lane{Priority: streams.Low}, 5000, due.Add(time.Second), time.Time{})
		first := h.schedule(other, normal, 1, due, time.Time{})
		pass(due.Sub(h.now()))
		if diff := cmp.Diff(first, h.pull(phone(other, "Pixel", 10))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
