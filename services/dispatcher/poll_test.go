package dispatcher_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// waiter is a phone that waits for work.
type waiter chan came

// came is what a phone was given.
type came struct {
	ids []streams.MessageID
	err error
}

// soon is what it takes at most to fetch from a consumer.
const soon = 250 * time.Millisecond

// wait lets a phone wait for work, and returns when it does.
func (h *harness) wait(q request.Pull) waiter {
	h.folded(q.Account) // there is a dispatcher
	q.Wait = 8 * time.Second
	w := make(waiter, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		page, err := bus.Call[request.Pulled](ctx, h.bus, request.DispatcherPull(0), q)
		ids := []streams.MessageID{}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		w <- came{ids, err}
	}()
	synctest.Wait()
	return w
}

// atOnce expects that the phone is given these before anybody would have looked again.
func (w waiter) atOnce(t testing.TB, who string, want []streams.MessageID) {
	t.Helper()
	pass(soon)
	select {
	case got := <-w:
		if diff := cmp.Diff(want, got.ids); diff != "" || got.err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", who, got.err, diff)
		}
	default:
		t.Errorf("%s sleeps on", who)
	}
}

// asleep expects that the phone was given nothing, and waits still.
func (w waiter) asleep(t testing.TB, who string) {
	t.Helper()
	pass(soon)
	select {
	case got := <-w:
		t.Errorf("%s was answered with %v, %v", who, got.ids, got.err)
	default:
	}
}

// Work wakes a phone that can take it, whoever waits longest.
func TestWorkWakesWhoCanTakeIt(t *testing.T) {
	pixel := streams.DeviceIDOf(shop, "Pixel")
	able := phone(shop, "", 10)
	able.Other = true
	for name, test := range map[string]struct {
		lane  streams.Lane
		takes request.Pull
	}{
		"for one phone":              {streams.Lane{Target: pixel, Priority: streams.Normal}, phone(shop, "Pixel", 10)},
		"for one phone, urgent":      {streams.Lane{Target: pixel, Priority: streams.High}, phone(shop, "Pixel", 10)},
		"for phones that carry data": {streams.Lane{Priority: streams.Low, Class: streams.Other}, able},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(h *harness) {
				first, nameless, takes := h.wait(phone(shop, "First", 10)), h.wait(phone(shop, "", 10)), h.wait(test.takes)
				ids := h.enqueue(shop, test.lane, 1)
				takes.atOnce(h.t, "who can take it", ids)
				first.asleep(h.t, "a named phone")
				nameless.asleep(h.t, "a phone without a name")
				// They have not used up what wakes them.
				ids = h.enqueue(shop, normal, 1)
				first.atOnce(h.t, "the first of all", ids)
			})
		})
	}
}

// So does what comes back: by a lapse, by a requeue, or because it is held for that phone.
func TestReturnedWorkWakesWhoCanTakeIt(t *testing.T) {
	own := streams.Lane{Target: streams.DeviceIDOf(shop, "Pixel"), Priority: streams.Normal}
	for name, comeBack := range map[string]func(*harness, request.Pull, []streams.MessageID){
		"lapsed": func(_ *harness, _ request.Pull, _ []streams.MessageID) { pass(2 * time.Second) },
		"requeued": func(h *harness, _ request.Pull, ids []streams.MessageID) {
			h.cancel(shop, false, ids...)
			h.requeue(shop, ids...)
		},
	} {
		for _, policy := range []streams.LapsePolicy{streams.Retry, streams.Hold} {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				inTime(t, func(h *harness) {
					ids := h.enqueue(shop, own, 1)
					q := phone(shop, "Pixel", 10)
					q.Policy, q.Lease = policy, 2*time.Second
					if diff := cmp.Diff(ids, h.pull(q)); diff != "" {
						h.t.Fatal(diff)
					}
					first, again := h.wait(phone(shop, "First", 10)), h.wait(q)
					comeBack(h, q, ids)
					again.atOnce(h.t, "whose it is", ids)
					first.asleep(h.t, "another phone")
				})
			})
		}
	}
}

// One event may bring work for several phones, and a page that is full leaves work behind for others.
func TestWorkForSeveralWakesSeveral(t *testing.T) {
	inTime(t, func(h *harness) {
		pixel, nexus := streams.DeviceIDOf(shop, "Pixel"), streams.DeviceIDOf(shop, "Nexus")
		all := sequence(
			h.enqueue(shop, streams.Lane{Target: pixel, Priority: streams.Normal}, 1),
			h.enqueue(shop, streams.Lane{Target: nexus, Priority: streams.Normal}, 1),
			h.enqueue(shop, normal, 3),
		)
		h.folded(shop)
		h.cancel(shop, true, all...)
		nameless, second, named, other := h.wait(phone(shop, "", 1)), h.wait(phone(shop, "", 1)), h.wait(phone(shop, "Pixel", 2)), h.wait(phone(shop, "Nexus", 1))
		h.requeue(shop, all...)
		pass(soon)
		var got []streams.MessageID
		for who, w := range map[string]waiter{"the first without a name": nameless, "the second": second, "the Pixel": named, "the Nexus": other} {
			select {
			case page := <-w:
				got = append(got, page.ids...)
			default:
				h.t.Errorf("%s sleeps on", who)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(all, got); diff != "" {
			h.t.Errorf("all of them (-want +got):\n%s", diff)
		}
	})
}

// A crowd of one account's phones that wait stops nobody's pull, nor what its own phones are given.
func TestWaitingCrowdStopsNobody(t *testing.T) {
	inTime(t, func(h *harness) {
		const crowd = 4200
		h.pull(phone(shop, "", 1))
		ctx, leave := context.WithCancel(context.Background())
		defer leave()
		ended := make(chan error, crowd)
		for range crowd {
			go func() {
				q := phone(shop, "", 1)
				q.Wait = 8 * time.Second
				ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				_, err := bus.Call[request.Pulled](ctx, h.bus, request.DispatcherPull(0), q)
				ended <- err
			}()
		}
		synctest.Wait()
		for _, account := range []streams.AccountID{other, shop} {
			want := h.enqueue(account, streams.Lane{Target: streams.DeviceIDOf(account, "Pixel"), Priority: streams.Normal}, 1)
			page, err := bus.Call[request.Pulled](ctx, h.bus, request.DispatcherPull(0), phone(account, "Pixel", 1))
			if err != nil || len(page.Messages) != 1 || page.Messages[0].ID != want[0] {
				h.t.Errorf("a pull beside the crowd: got %v, %v, want %v", page.Messages, err, want)
			}
		}
		// A phone of another account can wait.
		one := h.wait(phone(other, "", 1))
		one.asleep(h.t, "another account's phone")
		one.atOnce(h.t, "another account's phone", h.enqueue(other, normal, 1))
		pass(10 * time.Second)
		for range crowd {
			if err := <-ended; err != nil {
				h.t.Fatalf("one of the crowd: %v (%s)", err, fault.As(err).Code)
			}
		}
	})
}
