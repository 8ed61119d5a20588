package quota

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bustest"
)

func TestMonthChanges(t *testing.T) {
	// In a zone ahead of UTC the month has changed already.
	end := time.Date(2026, 11, 30, 23, 59, 30, 0, time.UTC).In(time.FixedZone("", 3*60*60))
	bustest.SimulateFrom(t, end, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		mustUse := func(month string, used int64) {
			t.Helper()
			i.folded()
			got, err := w.usage(alice)
			if err != nil || got.Month != month || got.Used != used {
				t.Errorf("usage: got %d in %s, %v, want %d in %s", got.Used, got.Month, err, used, month)
			}
		}
		late := w.mustReserve(alice, 2, 10)
		if got, want := late.Month, "2026-11"; got != want {
			t.Errorf("month of the grant: got %s, want %s", got, want)
		}
		w.publish(alice, 5, "2026-11", "")
		mustUse("2026-11", 7)

		// The new month begins empty, whatever comes of the old one.
		time.Sleep(40 * time.Second)
		mustUse("2026-12", 0)
		given := w.mustReserve(alice, 3, 3)
		if got, want := given.Month, "2026-12"; got != want {
			t.Errorf("month of the grant: got %s, want %s", got, want)
		}
		w.publish(alice, 1, "2026-11", late.ID)
		mustUse("2026-12", 3)
		w.publish(alice, 3, given.Month, given.ID)
		mustUse("2026-12", 3)
		w.publish(alice, 1, "2026-11", late.ID)
		mustUse("2026-12", 3)
		i.mustHaveOpen(0)

		// An ingress's clock that runs ahead ends no month.
		w.publish(alice, 1, "2027-01", "")
		mustUse("2026-12", 4)

		// Granted events are ahead of the clock: their month counts.
		w.publish(alice, 1, "2027-01", "another leader's")
		mustUse("2027-01", 1)
		w.publish(alice, 4, "2026-12", "")
		mustUse("2027-01", 1)
		if got, want := w.mustReserve(alice, 1, 10).Month, "2027-01"; got != want {
			t.Errorf("month of the grant: got %s, want %s", got, want)
		}
	})
}
