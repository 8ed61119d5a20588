package state

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// What a phone holds after its lease goes to no other one, also when it came to hold it after the page was gathered.
func TestHeldGoesToItsDevice(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "held.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const a, m, lease, keeper, other = streams.AccountID(1), streams.MessageID(1) << 40, streams.LeaseID(5), streams.DeviceID(7), streams.DeviceID(8)
	lane := streams.Lane{Priority: streams.Normal}
	seq := uint64(0)
	apply := func(subject string, e event.Event) {
		t.Helper()
		seq++
		if err := db.Update(func(tx *bolt.Tx) error { return Fold{}.Apply(tx, stored(t, seq, began, subject, e)) }); err != nil {
			t.Fatal(err)
		}
	}
	offered := func(to streams.DeviceID) (gathered, given int) {
		t.Helper()
		err := db.View(func(tx *bolt.Tx) error {
			account := View{tx}.Account(a)
			kept, err := account.HeldBy(to, 10, func(uint64) bool { return false })
			if err != nil {
				return err
			}
			_, may, err := account.Attempt(m, time.Time{}, to, began)
			if gathered = len(kept); may {
				given = 1
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return gathered, given
	}
	want := func(what string, to streams.DeviceID, gathered, given int) {
		t.Helper()
		if g, n := offered(to); g != gathered || n != given {
			t.Errorf("%s, device %d: got %d gathered and %d given, want %d and %d", what, to, g, n, gathered, given)
		}
	}
	apply(streams.EnqueueSubject(0, a, lane), event.Enqueued{ID: m})
	want("waiting", other, 0, 1)
	apply(streams.DecisionSubject(0, a), event.Leased{
		Lease: lease, Device: keeper, At: began, Until: began.Add(time.Minute), Attempts: 3, Policy: streams.Hold, Messages: []event.Attempt{{ID: m}},
	})
	want("leased", keeper, 0, 0)
	want("leased", other, 0, 0)
	apply(streams.DecisionSubject(0, a), event.Lapsed{At: began.Add(time.Minute), Lease: lease, Messages: []event.Lapse{{ID: m, To: streams.Leased}}})
	want("held", keeper, 1, 1)
	want("held", other, 0, 0)
	want("held", 0, 0, 0)
}
