package dispatcher_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// inTime runs a test in simulated time.
func inTime(t *testing.T, f func(h *harness)) {
	t.Helper()
	bustest.SimulateFrom(t, streams.Epoch.Add(300*24*time.Hour), func(t *testing.T) { f(newHarness(t, 1)) })
}

// pass lets simulated time pass until everything that it brings has happened.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLapsedMessagesGoToAnotherPhone(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 5)
		later := h.enqueue(shop, normal, 1)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "Dead", 5))); diff != "" {
			t.Fatal(diff)
		}
		pass(streams.DefaultLease - time.Second)
		if diff := cmp.Diff(later, h.pull(phone(shop, "Alive", 1))); diff != "" {
			t.Errorf("before the lease's end: %s", diff)
		}
		pass(2 * time.Second)
		// In their order, before anything newer.
		newest := h.enqueue(shop, normal, 1)
		synctest.Wait()
		if diff := cmp.Diff(sequence(ids, newest), h.pull(phone(shop, "Alive", 20))); diff != "" {
			t.Errorf("after the lease's end: %s", diff)
		}
		// A late success of the first phone counts, its late failure does not.
		want := []request.Change{{Known: true, Changed: true, State: streams.Delivered}}
		if diff := cmp.Diff(want, h.report(shop, "Dead", streams.Delivered, ids[0])); diff != "" {
			t.Error(diff)
		}
		want = []request.Change{{Known: true, State: streams.Leased}}
		if diff := cmp.Diff(want, h.report(shop, "Dead", streams.Failed, ids[1])); diff != "" {
			t.Error(diff)
		}
		// The second phone's failure cannot undo a success.
		want = []request.Change{{Known: true, State: streams.Delivered}, {Known: true, Changed: true, State: streams.Failed}}
		if diff := cmp.Diff(want, h.report(shop, "Alive", streams.Failed, ids[0], ids[1])); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAttemptsAreUsedUp(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		for range streams.DefaultAttempts {
			if diff := cmp.Diff(ids, h.pull(phone(shop, "", 1))); diff != "" {
				t.Fatal(diff)
			}
			pass(streams.DefaultLease + time.Second)
		}
		if got := h.pull(phone(shop, "", 1)); len(got) != 0 {
			t.Errorf("handed out again: %v", got)
		}
		shown := h.show(shop, ids[0])
		if shown.Message.State != streams.Failed || shown.Message.Reason != "lease_lapsed" {
			t.Errorf("got %+v", shown.Message)
		}
		if got, want := len(shown.Timeline), 1+2*streams.DefaultAttempts; got != want {
			t.Errorf("the timeline has %d events, want %d: %+v", got, want, shown.Timeline)
		}
		// An operator's requeue gives it all its attempts again.
		decided := call[request.Decided](h, request.DispatcherRequeue(0), request.Decide{Account: shop, Messages: ids})
		if diff := cmp.Diff(ids, decided.Changed); diff != "" {
			t.Error(diff)
		}
		h.pull(phone(shop, "", 1))
		pass(streams.DefaultLease + time.Second)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "", 1))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSlowPhoneKeepsItsPage(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 40)
		slow := phone(shop, "Slow", 40)
		slow.Lease = 2 * time.Minute
		if diff := cmp.Diff(ids, h.pull(slow)); diff != "" {
			t.Fatal(diff)
		}
		for _, id := range ids {
			pass(time.Minute)
			if got := h.pull(phone(shop, "Eager", 40)); len(got) != 0 {
				t.Fatalf("another phone got %v", got)
			}
			if got := h.report(shop, "Slow", streams.Delivered, id); !got[0].Changed {
				t.Fatalf("report on %s: %+v", id, got)
			}
		}
	})
}

// A named phone whose answer was lost goes on pulling. That is no sign that it works on what it never got.
func TestLostAnswerCostsOneLeaseTime(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		q := phone(shop, "Deaf", 1)
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Fatal(diff)
		}
		if came := h.pullUntil(q, 1, time.Hour); came < streams.DefaultLease || came > streams.DefaultLease+time.Minute {
			t.Errorf("the message came again after %v, want just after %v", came, streams.DefaultLease)
		}
	})
}

// One that has reported on a page works on it, and its contacts keep the rest for a while.
func TestContactsReachThreeLeaseTimesAfterAReport(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 2)
		q := phone(shop, "Slow", 2)
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Fatal(diff)
		}
		pass(5 * time.Minute)
		h.report(shop, "Slow", streams.Delivered, ids[0])
		if came := h.pullUntil(q, 1, time.Hour); came < 3*streams.DefaultLease || came > 3*streams.DefaultLease+time.Minute {
			t.Errorf("the other message came again %v after the report, want just after %v", came, 3*streams.DefaultLease)
		}
	})
}

// pullUntil pulls every minute until that many messages come, and says after how long.
func (h *harness) pullUntil(q request.Pull, messages int, most time.Duration) time.Duration {
	h.t.Helper()
	began := h.now()
	for h.now().Sub(began) < most {
		pass(time.Minute)
		if len(h.pull(q)) == messages {
			break
		}
	}
	return h.now().Sub(began)
}

func TestPullsWithoutNameRenewNothing(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		h.pull(phone(shop, "", 1))
		for range 9 {
			pass(time.Minute)
			if got := h.pull(phone(shop, "", 1)); len(got) != 0 {
				t.Fatalf("got %v before the lease's end", got)
			}
		}
		pass(time.Minute + time.Second)
		if diff := cmp.Diff(ids, h.pull(phone(shop, "", 1))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHeldMessagesStayWithTheirPhone(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 2)
		q := phone(shop, "Keeper", 2)
		q.Policy = streams.Hold
		h.pull(q)
		pass(streams.DefaultLease + time.Second)
		other := phone(shop, "Other", 2)
		other.Policy = streams.Hold
		if got := h.pull(other); len(got) != 0 {
			t.Errorf("another phone got %v", got)
		}
		if got := h.state(shop, ids[0]); got != streams.Leased {
			t.Errorf("got %s, want leased", got)
		}
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Errorf("its own phone: %s", diff)
		}
		if got := h.pull(q); len(got) != 0 {
			t.Errorf("listed again within the lease: %v", got)
		}
		pass(streams.DefaultLease + time.Second)
		decided := call[request.Decided](h, request.DispatcherRequeue(0), request.Decide{Account: shop, Messages: ids[:1]})
		if diff := cmp.Diff(ids[:1], decided.Changed); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(ids[:1], h.pull(other)); diff != "" {
			t.Errorf("after a requeue: %s", diff)
		}
	})
}

// Phones without a name cannot be told apart: what one of them holds is listed to none.
func TestHeldMessagesOfANamelessPhoneAreNotDoubled(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 3)
		q := phone(shop, "", 3)
		q.Policy = streams.Hold
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Fatal(diff)
		}
		pass(streams.DefaultLease + time.Second)
		for _, name := range []string{"", "Named"} {
			other := phone(shop, name, 3)
			other.Policy = streams.Hold
			if got := h.pull(other); len(got) != 0 {
				t.Errorf("phone %q got %v, which another phone may have sent", name, got)
			}
		}
		if got := h.state(shop, ids[0]); got != streams.Leased {
			t.Errorf("got %s, want leased", got)
		}
		// They end by a report, a cancel, or a requeue.
		if got := h.report(shop, "", streams.Delivered, ids[0]); !got[0].Changed {
			t.Errorf("a report changed nothing: %+v", got)
		}
		if diff := cmp.Diff(ids[1:2], h.cancel(shop, false, ids[1])); diff != "" {
			t.Error(diff)
		}
		h.requeue(shop, ids[2])
		if diff := cmp.Diff(ids[2:], h.pull(q)); diff != "" {
			t.Errorf("after a requeue: %s", diff)
		}
	})
}

// A phone that keeps what it was given is handed it again and again. Its record does not grow by that.
func TestHeldMessagesKeepTheirSize(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		q := phone(shop, "Keeper", 1)
		q.Policy = streams.Hold
		var sizes []int
		for range 20 {
			if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
				t.Fatal(diff)
			}
			sizes = append(sizes, len(h.show(shop, ids[0]).Timeline))
			pass(streams.DefaultLease + time.Second)
		}
		if first, last := sizes[2], sizes[19]; last > first {
			t.Errorf("got %d events after 3 pulls and %d after 20", first, last)
		}
		// Where it began and where it stands are there still.
		timeline := h.show(shop, ids[0]).Timeline
		if first, last := timeline[1], timeline[len(timeline)-1]; !strings.HasPrefix(first.What, "handed to") || first.At.After(last.At.Add(-19*streams.DefaultLease)) ||
			!strings.HasPrefix(last.What, "lease ") || h.now().Sub(last.At) > time.Minute {
			t.Errorf("got %+v", timeline)
		}
	})
}

func TestFailPolicy(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		q := phone(shop, "Once", 1)
		q.Policy = streams.Fail
		h.pull(q)
		pass(streams.DefaultLease + time.Second)
		if got := h.state(shop, ids[0]); got != streams.Failed {
			t.Errorf("got %s, want failed", got)
		}
	})
}

func TestLapsesWaitForADispatcherThatWasAway(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 3)
		h.pull(phone(shop, "Dead", 3))
		h.stop()
		pass(time.Hour)
		h.start()
		q := phone(shop, "Alive", 3)
		q.Wait = 10 * time.Second
		if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCancelledMessagesAreNotHandedOut(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 3)
		unknown := h.ids.Message()
		decided := call[request.Decided](h, request.DispatcherCancel(0), request.Decide{Account: shop, Messages: []streams.MessageID{ids[1], unknown}})
		if diff := cmp.Diff(ids[1:2], decided.Changed); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(sequence(ids[:1], ids[2:]), h.pull(phone(shop, "", 9))); diff != "" {
			t.Error(diff)
		}
		again := call[request.Decided](h, request.DispatcherCancel(0), request.Decide{Account: shop, Messages: ids[1:2]})
		if len(again.Changed) != 0 {
			t.Errorf("cancelled twice: %v", again.Changed)
		}
	})
}

func TestReportsOfStrangersChangeNothing(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 1)
		stranger := streams.AccountIDOf("stranger")
		want := []request.Change{{Known: false, State: streams.Delivered}}
		if diff := cmp.Diff(want, h.report(stranger, "", streams.Delivered, ids[0])); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(ids, h.pull(phone(shop, "", 1))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOldMessagesAreForgotten(t *testing.T) {
	h := newHarness(t, 1)
	old := h.enqueue(shop, normal, 3)
	h.pull(phone(shop, "", 1))
	h.report(shop, "", streams.Delivered, old[0])
	h.stop()
	h.shift.Store(int64(31 * 24 * time.Hour))
	h.start()
	// The horizon moves as the first thing of all, but others do not wait for it.
	for moved := false; !moved; {
		m, err := h.bus.LastForSubject(t.Context(), streams.StatusStream(0), streams.HorizonSubject(0))
		if errors.Is(err, bus.ErrNoMessage) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode[event.Horizon](m.Data)
		if err != nil {
			t.Fatal(err)
		}
		moved = h.now().Sub(e.Before) < 30*24*time.Hour+time.Hour
	}
	fresh := h.enqueue(shop, normal, 1)
	if diff := cmp.Diff(fresh, h.pull(phone(shop, "", 9))); diff != "" {
		t.Error(diff)
	}
	for _, id := range old {
		if got := h.show(shop, id); got.Message != nil {
			t.Errorf("still known: %+v", got.Message)
		}
	}
	// What another dispatcher knows from the streams alone is the same.
	h.stop()
	dir := t.TempDir()
	stop := h.run(dir, 1)
	h.pull(phone(shop, "", 9))
	stop()
	defer h.start()
	if diff := cmp.Diff(h.dump(h.dir, 0), h.dump(dir, 0)); diff != "" {
		t.Errorf("rebuilt: %s", diff)
	}
}

func TestRebuildIsSilent(t *testing.T) {
	h := newHarness(t, 1)
	ids := h.enqueue(shop, normal, 1)
	h.pull(phone(shop, "", 1))
	h.stop()
	// A lease that ran out long ago, and far behind it the report that had
	// ended it in time.
	over := h.now().Add(-time.Hour)
	other := h.ids.Message()
	h.publish(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: other})
	h.publish(streams.DecisionSubject(0, shop), event.Leased{
		Lease: 1, At: over, Until: over.Add(time.Minute), Policy: streams.Retry, Attempts: 3, Messages: []event.Attempt{{ID: other}},
	})
	for range 4000 {
		h.publishLater(streams.ReportSubject(0, shop), event.Reported{Messages: []event.Report{{ID: ids[0], State: streams.Delivered}}})
	}
	h.await()
	last := h.publish(streams.ReportSubject(0, shop), event.Reported{Messages: []event.Report{{ID: other, State: streams.Delivered}}})
	h.dir = t.TempDir()
	h.start()
	h.pull(phone(shop, "", 1)) // it has caught up
	for _, m := range h.status() {
		kind := event.Kind(m.Header.Get(event.KindHeader))
		if m.Sequence > last && kind != event.KindHorizon { // which the first start may have owed
			t.Errorf("a rebuild published %s", kind)
		}
	}
}
