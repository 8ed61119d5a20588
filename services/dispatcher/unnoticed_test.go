package dispatcher_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// renewals counts the decisions that renewed a lease.
func (h *harness) renewals() int {
	h.t.Helper()
	n := 0
	for _, m := range h.status() {
		if event.Kind(m.Header.Get(event.KindHeader)) == event.KindRenewed {
			n++
		}
	}
	return n
}

// Who cancels what waits does not take away what a phone has; who cancels all does.
func TestCancelOfWhatWaits(t *testing.T) {
	inTime(t, func(h *harness) {
		leased, waiting := h.enqueue(shop, normal, 1), []streams.MessageID(nil)
		h.pull(phone(shop, "Phone", 1))
		waiting = h.enqueue(shop, normal, 1)
		all := sequence(leased, waiting)
		if diff := cmp.Diff(waiting, h.cancel(shop, true, all...)); diff != "" {
			t.Errorf("of what waits: %s", diff)
		}
		if got := h.state(shop, leased[0]); got != streams.Leased {
			t.Errorf("what a phone has: got %s, want leased", got)
		}
		if diff := cmp.Diff(leased, h.cancel(shop, false, all...)); diff != "" {
			t.Errorf("of all: %s", diff)
		}
		if got := h.cancel(shop, true, all...); len(got) != 0 {
			t.Errorf("what has ended: got %v", got)
		}
	})
}

// Who was told that a message is accepted can cancel it at once.
func TestCancelOfWhatWasJustAccepted(t *testing.T) {
	h := newHarness(t, 1)
	for range 50 {
		ids := h.enqueue(shop, normal, 1)
		if diff := cmp.Diff(ids, h.cancel(shop, true, ids...)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// A phone that waits hears at once of what is offered again: it need not ask again.
func TestWaitingPhoneHearsOfWhatComesBack(t *testing.T) {
	for name, comesBack := range map[string]func(h *harness, ids []streams.MessageID){
		"requeued": func(h *harness, ids []streams.MessageID) {
			h.report(shop, "Other", streams.Failed, ids...)
			time.AfterFunc(5*time.Second, func() { h.requeue(shop, ids...) })
		},
		"requeued after a cancel": func(h *harness, ids []streams.MessageID) {
			h.cancel(shop, false, ids...)
			time.AfterFunc(5*time.Second, func() { h.requeue(shop, ids...) })
		},
		"lapsed": func(*harness, []streams.MessageID) {},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(h *harness) {
				ids := h.enqueue(shop, normal, 1)
				other := phone(shop, "Other", 1)
				other.Lease = 5 * time.Second
				h.pull(other)
				comesBack(h, ids)
				waiting := phone(shop, "Phone", 1)
				waiting.Wait = 30 * time.Second
				began := time.Now()
				if diff := cmp.Diff(ids, h.pull(waiting)); diff != "" {
					t.Error(diff)
				}
				if took := time.Since(began); took > 5500*time.Millisecond {
					t.Errorf("it came after %v, want at once, after 5 s", took)
				}
			})
		})
	}
}

// A report shows that a phone is there, as a pull does: what it said something of before stays with it.
func TestReportIsAContact(t *testing.T) {
	inTime(t, func(h *harness) {
		first, second := h.enqueue(shop, normal, 2), h.enqueue(shop, normal, 3)
		for _, want := range [][]streams.MessageID{first, second} {
			if diff := cmp.Diff(want, h.pull(phone(shop, "Phone", len(want)))); diff != "" {
				t.Fatal(diff)
			}
		}
		pass(time.Minute)
		h.report(shop, "Phone", streams.Delivered, first[0], second[0])
		pass(streams.DefaultLease - 2*time.Minute)
		h.report(shop, "Phone", streams.Delivered, second[1])
		// The first page's report was more than a lease time ago by now.
		pass(4 * time.Minute)
		if got := h.state(shop, first[1]); got != streams.Leased {
			t.Errorf("got %s, want leased", got)
		}
		// Another phone's contact says nothing of this one.
		pass(streams.DefaultLease - 5*time.Minute)
		h.pull(phone(shop, "Other", 1))
		pass(6 * time.Minute)
		if got := h.state(shop, first[1]); got == streams.Leased {
			t.Error("a page stays with a phone that has gone")
		}
	})
}

// A renewal is an event of its own, so nothing is renewed of which more than half is left.
func TestNothingIsRenewedWithMoreThanHalfLeft(t *testing.T) {
	inTime(t, func(h *harness) {
		ids := h.enqueue(shop, normal, 3)
		h.pull(phone(shop, "Phone", 3))
		contacts := func(how string, reported streams.MessageID, want int) {
			t.Helper()
			h.report(shop, "Phone", streams.Delivered, reported)
			h.pull(phone(shop, "Phone", 1))
			if got := h.renewals(); got != want {
				t.Errorf("%s: got %d renewals, want %d", how, got, want)
			}
		}
		pass(time.Minute)
		contacts("after a tenth", ids[0], 0)
		pass(streams.DefaultLease/2 - time.Minute - time.Second)
		contacts("a second before half", ids[0], 0)
		pass(2 * time.Second)
		contacts("a second after half", ids[1], 1)
		contacts("at once again", ids[1], 1)
		pass(time.Minute)
		contacts("a minute later", ids[1], 1)
	})
}

// Only what changes a message counts as a change, and stands in its history.
func TestRepeatedReportChangesNothing(t *testing.T) {
	for _, state := range []streams.State{streams.Sent, streams.Delivered, streams.Failed} {
		t.Run(state.String(), func(t *testing.T) {
			inTime(t, func(h *harness) {
				ids := h.enqueue(shop, normal, 1)
				h.pull(phone(shop, "Phone", 1))
				for i, from := range []string{"Phone", "Phone", "", "Other"} {
					want := []request.Change{{Known: true, Changed: i == 0, State: state}}
					if diff := cmp.Diff(want, h.report(shop, from, state, ids[0])); diff != "" {
						t.Errorf("report %d: %s", i+1, diff)
					}
				}
				if got := len(h.show(shop, ids[0]).Timeline); got != 3 {
					t.Errorf("got %d events of it, want 3: accepted, leased, %s", got, state)
				}
				if state == streams.Delivered {
					want := []request.Change{{Known: true, State: state}}
					if diff := cmp.Diff(want, h.report(shop, "Phone", streams.Sent, ids[0])); diff != "" {
						t.Errorf("sent after delivered: %s", diff)
					}
				}
			})
		})
	}
}
