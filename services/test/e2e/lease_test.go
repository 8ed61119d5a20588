package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// simulate runs a test in simulated time, on a day when there are ids.
func simulate(t *testing.T, f func(*testing.T)) {
	t.Helper()
	bustest.SimulateFrom(t, time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), f)
}

// queue posts n messages, which have to be accepted.
func (a api) queue(t *testing.T, sender string, n int) {
	t.Helper()
	all := make([]sms, n)
	for i := range all {
		all[i] = sms{number(i), text(sender, i)}
	}
	if got, err := a.post("", all...); err != nil || got.status != http.StatusOK {
		t.Fatalf("post: got %v, %v", got, err)
	}
}

// mustPull gets a page for a device, which has to hold so many messages.
func (a api) mustPull(t *testing.T, device string, limit, wait, want int) []outgoing {
	t.Helper()
	page, err := a.pull(device, limit, wait)
	if err != nil || len(page) != want {
		t.Fatalf("pull for %s: got %d messages, %v, want %d", device, len(page), err, want)
	}
	return page
}

// mustReport reports a page, of which so many have to be updated.
func (a api) mustReport(t *testing.T, device string, state int, page []outgoing, want int) {
	t.Helper()
	if updated, err := a.report(device, state, page); err != nil || updated != want {
		t.Errorf("report of %s: got %d updated, %v, want %d", device, updated, err, want)
	}
}

// What a phone took with it goes to another after the lease, and not a second before; its own late word still counts.
func TestLease_DeadPhone(t *testing.T) {
	eachShardsAlone(t, func(t *testing.T, shards int) {
		simulate(t, func(t *testing.T) {
			s := launch(t, simulated, shards)
			a := s.api(s.token)
			a.queue(t, "shop", 5)
			taken := a.mustPull(t, "dead", 5, 0, 5)
			time.Sleep(streams.DefaultLease - 5*time.Second)
			a.mustPull(t, "other", 5, 4, 0)
			again := a.mustPull(t, "other", 5, 2, 5)
			if diff := cmp.Diff(taken, again); diff != "" {
				t.Errorf("the page changed on its way to another phone (-first +second):\n%s", diff)
			}
			a.mustReport(t, "dead", success, taken[:2], 2)
			a.mustReport(t, "dead", failure, taken[2:3], 0) // it does not have it any more
			a.mustReport(t, "other", success, again, 3)
			a.mustPull(t, "third", 5, 0, 0)
		})
	})
}

// A phone that takes its time keeps its page as long as it reports one message in every part of a lease, whether it has
// a name or not.
func TestLease_SlowPhone(t *testing.T) {
	for name, device := range map[string]string{"named": "slow", "nameless": ""} {
		t.Run(name, func(t *testing.T) {
			eachShardsAlone(t, func(t *testing.T, shards int) { slowPhone(t, shards, device) })
		})
	}
}

func slowPhone(t *testing.T, shards int, device string) {
	simulate(t, func(t *testing.T) {
		s := launch(t, simulated, shards)
		a := s.api(s.token)
		const messages = 4
		a.queue(t, "shop", messages)
		page := a.mustPull(t, device, messages, 0, messages)
		for i := range page {
			time.Sleep(streams.DefaultLease * 9 / 10)
			a.mustPull(t, "other", messages, 0, 0)
			a.mustReport(t, device, success, page[i:i+1], 1)
		}
		time.Sleep(2 * streams.DefaultLease)
		a.mustPull(t, "other", messages, 0, 0)
	})
}

// One that stops reporting loses what is left of its page, and only that.
func TestLease_PhoneThatStopsInTheMiddle(t *testing.T) {
	eachShardsAlone(t, func(t *testing.T, shards int) {
		simulate(t, func(t *testing.T) {
			s := launch(t, simulated, shards)
			a := s.api(s.token)
			a.queue(t, "shop", 6)
			page := a.mustPull(t, "slow", 6, 0, 6)
			a.mustReport(t, "slow", success, page[:2], 2)
			time.Sleep(streams.DefaultLease / 2)
			a.mustReport(t, "slow", failure, page[2:3], 1)
			time.Sleep(streams.DefaultLease + time.Second)
			again := a.mustPull(t, "other", 6, 0, 3)
			if diff := cmp.Diff(page[3:], again); diff != "" {
				t.Errorf("got other messages (-want +got):\n%s", diff)
			}
		})
	})
}

// A message that every phone takes with it fails after its attempts.
func TestLease_AttemptsUsedUp(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := launch(t, simulated, 1)
		a := s.api(s.token)
		a.queue(t, "shop", 1)
		var page []outgoing
		for range streams.DefaultAttempts {
			page = a.mustPull(t, "dead", 1, 0, 1)
			time.Sleep(4 * streams.DefaultLease) // longer than the phone's next call could keep it
		}
		a.mustPull(t, "dead", 1, 0, 0)
		a.mustReport(t, "dead", success, page, 1) // it was sent all the same
	})
}

// The same in true time, over a restart and over a kill: the lease goes on.
func TestLease_AcrossRestarts(t *testing.T) {
	eachShards(t, func(t *testing.T, shards int) {
		s := launch(t, process, shards)
		token := s.account("shop", nil)
		s.command("account", "set", "shop", "--lease", "1s")
		a := s.api(token)
		a.queue(t, "shop", 5)
		taken := a.mustPull(t, "dead", 5, 0, 5)
		s.Stop()
		s.Start()
		a = s.api(token)
		again := a.mustPull(t, "other", 5, 30, 5)
		s.Kill()
		s.Start()
		a = s.api(token)
		third := a.mustPull(t, "third", 5, 30, 5)
		if diff := cmp.Diff(taken, third); diff != "" {
			t.Errorf("the page changed (-first +third):\n%s", diff)
		}
		a.mustReport(t, "dead", success, taken[:2], 2)
		a.mustReport(t, "other", success, again[:4], 2)
		a.mustReport(t, "third", success, third, 1)
		a.mustPull(t, "fourth", 5, 0, 0)
		s.verify()
	})
}
