package state

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// statusBytes is how many bytes an account stores in STATUS.
func statusBytes(tx *bolt.Tx, a streams.AccountID) (n uint64, err error) {
	err = View{tx}.EachStored(func(of streams.AccountID, status bool, bytes uint64) {
		if of == a && status {
			n = bytes
		}
	})
	return n, err
}

// The stored bytes of an account fall as the horizon moves on, by whole days:
// those that the streams still have.
func TestStoredBytesAgeOut(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "stored.db"))
	defer db.Close()
	a := streams.AccountIDOf("a")
	start := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	var size uint64
	counted := func() (n uint64) {
		t.Helper()
		if err := db.View(func(tx *bolt.Tx) (err error) { n, err = statusBytes(tx, a); return err }); err != nil {
			t.Fatal(err)
		}
		return n / size
	}
	apply := func(at time.Time, subject string, e event.Event) {
		t.Helper()
		one := stored(t, 1, at, subject, e)
		size = max(size, storedBytes(one))
		if err := db.Update(func(tx *bolt.Tx) error { return (Fold{}).Apply(tx, one) }); err != nil {
			t.Fatal(err)
		}
	}
	report := event.Reported{Messages: []event.Report{{ID: streams.FirstIDAt(start), State: streams.Delivered, Error: "long enough to be the longest event of this test, whatever the horizon takes"}}}
	for _, after := range []int{0, 2, 1, 2, 3} { // days, and a clock that stepped back
		apply(start.Add(time.Duration(after)*24*time.Hour), streams.ReportSubject(0, a), report)
	}
	for _, test := range []struct {
		before time.Duration // from the start
		want   uint64
	}{{-24 * time.Hour, 5}, {-11 * time.Hour, 5}, {-10 * time.Hour, 5}, {-9 * time.Hour, 4}, {14 * time.Hour, 4}, {15 * time.Hour, 3}, {38 * time.Hour, 3}, {39 * time.Hour, 1}, {63 * time.Hour, 0}} {
		apply(start.Add(40*24*time.Hour), streams.HorizonSubject(0), event.Horizon{Before: start.Add(test.before)})
		if got := counted(); got != test.want {
			t.Errorf("horizon %v after the start: %d events are counted, want %d", test.before, got, test.want)
		}
	}
	apply(start, streams.ReportSubject(0, a), report)
	if got := counted(); got != 0 {
		t.Errorf("%d events of behind the horizon are counted", got)
	}
	apply(start.Add(40*24*time.Hour), streams.ReportSubject(0, a), report)
	if got := counted(); got != 1 {
		t.Errorf("%d events are counted, want 1", got)
	}
}

// Fences and bytes whose stored times are ahead, for the engine's clock was, end as if it had been right.
func TestForget_FutureTimes(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "future.db"))
	defer db.Close()
	a := streams.AccountIDOf("a")
	start := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	const ahead = 400 * 24 * time.Hour
	seq := uint64(0)
	apply := func(subject string, e event.Event) {
		t.Helper()
		seq++
		if err := db.Update(func(tx *bolt.Tx) error { return (Fold{}).Apply(tx, stored(t, seq, start.Add(ahead), subject, e)) }); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, fence, bytes bool) {
		t.Helper()
		err := db.View(func(tx *bolt.Tx) error {
			n, err := statusBytes(tx, a)
			if got := (View{tx}).Account(a).LastDecision() != 0; got != fence || n > 0 != bytes {
				t.Errorf("%s: the fence is known: %t, want %t; %d bytes are stored", what, got, fence, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	horizon := func(passed time.Duration) {
		t.Helper()
		apply(streams.HorizonSubject(0), event.Horizon{Before: start.Add(passed - Kept), At: start.Add(passed)})
	}
	apply(streams.DecisionSubject(0, a), event.Cancelled{At: start, Messages: []event.Attempt{{ID: streams.FirstIDAt(start)}}})
	horizon(time.Hour)
	want("an hour later", true, true)
	horizon(Kept - 12*time.Hour)
	want("half a day before 30 days", true, true)
	horizon(Kept + 34*time.Hour)
	want("when the day has passed", false, false)
}
