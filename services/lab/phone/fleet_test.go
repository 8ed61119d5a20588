package phone_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/services/lab/phone"
)

func TestFleetSharesTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(200)
		o := serve(t, q)
		o.Device, o.Fail = "phone", 0.2
		o.Delay = phone.Delay{Max: time.Second}
		fleet, err := phone.NewFleet(o, 10, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		runUntil(t, fleet.Run, q.settled)

		byStatus := map[int]int64{}
		for _, status := range q.statuses(t) {
			byStatus[status]++
		}
		stats := fleet.Stats()
		if stats.Pulled != 200 || stats.Reported != 200 || stats.InHand() != 0 {
			t.Errorf("got %+v, want all 200 pulled and reported", stats)
		}
		if stats.Sent != byStatus[phone.Success] || stats.Failed != byStatus[phone.Failure] || stats.Failed == 0 {
			t.Errorf("got %+v, want what was reported: %v", stats, byStatus)
		}
		names := map[string]bool{}
		for _, r := range q.seen().reports {
			names[r.Device] = true
		}
		if len(names) != 10 || !names["phone-1"] || !names["phone-10"] {
			t.Errorf("got reports of %v, want phone-1 to phone-10", names)
		}
	})
}

func TestFleetLosesThoseThatDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(200)
		o := serve(t, q)
		o.Delay = phone.Delay{Min: time.Second, Max: time.Second}
		var (
			mu    sync.Mutex
			pulls int
		)
		q.open = 200 - 2*10 // what the two that die have pulled stays open
		o.Hooks.Pulled = func(string, []string) {
			mu.Lock()
			defer mu.Unlock()
			pulls++
		}
		fleet, err := phone.NewFleet(o, 4, 0.5, 1)
		if err != nil {
			t.Fatal(err)
		}
		runUntil(t, fleet.Run, q.settled)
		if stats := fleet.Stats(); stats.Pulled != 200 || stats.Reported != 180 || stats.InHand() != 20 {
			t.Errorf("got %+v, want 200 pulled and 180 reported", stats)
		}
		if pulls != 20 {
			t.Errorf("got %d pages, want 20", pulls)
		}
	})
}

func TestNewFleetRefuses(t *testing.T) {
	good := phone.Options{URL: "http://phones.test", Token: token, Limit: 1}
	if _, err := phone.NewFleet(good, 0, 0, 1); err == nil {
		t.Error("no phones: got no error")
	}
	if _, err := phone.NewFleet(good, 1, 1.5, 1); err == nil {
		t.Error("a share of 1.5: got no error")
	}
	long := good
	long.Device = "fourteen-chars"
	if _, err := phone.NewFleet(long, 1, 0, 1); err != nil {
		t.Errorf("one phone keeps its name: %v", err)
	}
	if _, err := phone.NewFleet(long, 2, 0, 1); err == nil {
		t.Error("a name too long with its number: got no error")
	}
}
