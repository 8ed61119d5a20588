package state

import (
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
)

// A pull reads as many of the messages that its phone holds as it gives, however many there are.
func TestHeldBy_ReadsWhatItLists(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "held.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const shop, pixel, leases, each = streams.AccountID(1), streams.DeviceID(7), 20, 50
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		w := writer{Account: Account{View{tx}, shop}}
		for l := range streams.LeaseID(leases) {
			if err := w.putLease(l+1, nil, &lease{device: pixel, held: true}); err != nil {
				return err
			}
			for n := range each {
				m := streams.MessageID(int(l)*each + n + 1)
				r := record{seq: uint64(m), state: streams.Leased, lease: l + 1, device: pixel}
				if err := w.bucket(messagesBucket).Put(messageKey(shop, m), r.encode()); err != nil {
					return err
				}
				if err := w.reindex(m, &record{}, &r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		for _, most := range []int{1, each, each + 1, leases * each, 2 * leases * each} {
			read := 0
			got, err := View{tx}.Account(shop).HeldBy(pixel, most, func(uint64) bool { read++; return false })
			want := min(most, leases*each)
			if err != nil || len(got) != want || read != want || got[want-1].ID != streams.MessageID(want) {
				t.Errorf("of at most %d got %d, read %d, %v; want %d", most, len(got), read, err, want)
			}
		}
		got, err := View{tx}.Account(shop).HeldBy(pixel, 1, func(seq uint64) bool { return seq < 100 })
		if err != nil || len(got) != 1 || got[0].Seq != 100 {
			t.Errorf("behind what cannot be read: got %v, %v", got, err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
