package quota

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
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

		// Whoever's clock ran ahead, and whatever it gave: the month is the clock's, and it counts on.
		w.publish(alice, 1, "2027-01", "")
		w.publish(alice, 1, "2028-01", "another leader's")
		mustUse("2026-12", 3)
		w.publish(alice, 4, "2026-12", "")
		mustUse("2026-12", 7)
		if got, want := w.mustReserve(alice, 1, 10).Month, "2026-12"; got != want {
			t.Errorf("month of the grant: got %s, want %s", got, want)
		}
		i.stop()

		// Some days into a month the counts of all others end, also where that is folded again.
		for _, again := range []string{"a", "another file"} {
			time.Sleep(time.Until(end.Add(monthKept + time.Hour)))
			i = w.start(again)
			w.await("a leader", w.granting)
			time.Sleep(monthLooked + time.Second)
			mustUse("2026-12", 7)
			if others := i.quota.ledger.others("2026-12"); len(others) > 0 {
				t.Errorf("file %q: counts of other months are kept in shards %v", again, others)
			}
			i.stop()
		}
	})
}

// The month goes by what has surely come, and ends nothing while the clock is doubted.
func TestMonthOfADoubtedClock(t *testing.T) {
	bustest.SimulateFrom(t, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), func(t *testing.T) {
		var machine clocktest.Stepped
		d := service.Deps{Clock: clock.New(clock.Options{Now: machine.Now})}
		d.Now = d.Clock.Now
		l := newLedger(d.Now, 1, 10)
		l.sure = d.Sure
		kept := newMonth(d)
		expect := func(when, current, only string) {
			t.Helper()
			if l.current() != current || kept() != only {
				t.Errorf("%s: got %s, and only %q is kept, want %s and %q", when, l.current(), kept(), current, only)
			}
		}
		expect("before", "2026-11", "2026-11")
		machine.Step(400 * 24 * time.Hour)
		expect("400 days ahead", "2026-11", "")
		time.Sleep(time.Hour)
		expect("an hour later", "2026-11", "")
		machine.Right()
		expect("put right", "2026-11", "2026-11")
		machine.Step(-60 * 24 * time.Hour)
		expect("60 days behind", "2026-11", "")
		time.Sleep(clock.Settles)
		expect("confirmed, but behind what was known", "2026-09", "")
		time.Sleep(time.Until(time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)))
		machine.Right()
		expect("a month has begun", "2026-12", "")
	})
}
