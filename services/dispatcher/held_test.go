package dispatcher

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// What an account holds falls as the horizon moves on, by whole days: such as
// the streams still have.
func TestHeldBytesAgeOut(t *testing.T) {
	db := openFile(t, filepath.Join(t.TempDir(), "held.db"))
	defer db.Close()
	a := streams.AccountIDOf("a")
	start := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	var size uint64
	held := func() (n uint64) {
		t.Helper()
		if err := db.View(func(tx *bolt.Tx) (err error) { n, err = (view{tx}).held(a, heldStatus); return err }); err != nil {
			t.Fatal(err)
		}
		return n / size
	}
	apply := func(at time.Time, subject string, e event.Event) {
		t.Helper()
		one := stored(t, 1, at, subject, e)
		size = max(size, heldBytes(one))
		if err := db.Update(func(tx *bolt.Tx) error { return (fold{}).Apply(tx, one) }); err != nil {
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
		if got := held(); got != test.want {
			t.Errorf("horizon %v after the start: %d events are held, want %d", test.before, got, test.want)
		}
	}
	apply(start, streams.ReportSubject(0, a), report)
	if got := held(); got != 0 {
		t.Errorf("%d events of behind the horizon are held", got)
	}
	apply(start.Add(40*24*time.Hour), streams.ReportSubject(0, a), report)
	if got := held(); got != 1 {
		t.Errorf("%d events are held, want 1", got)
	}
}

// Where very many accounts hold much, those that hold most are told of.
func TestSharesAreBounded(t *testing.T) {
	found := map[streams.AccountID]request.Share{}
	for i := range 2 * maxShares {
		a := streams.AccountID(i + 1)
		found[a] = request.Share{Account: a, Enqueue: 70, Status: 71 + i%2}
	}
	all := most(found)
	if len(all) != maxShares {
		t.Fatalf("got %d", len(all))
	}
	for i, one := range all {
		if one.Status != 72 || one.Account != streams.AccountID(2*i+2) {
			t.Fatalf("number %d is %+v", i, one)
		}
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
		if err := db.Update(func(tx *bolt.Tx) error { return (fold{}).Apply(tx, stored(t, seq, start.Add(ahead), subject, e)) }); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, fence, bytes bool) {
		t.Helper()
		err := db.View(func(tx *bolt.Tx) error {
			v := view{tx}
			n, err := v.held(a, heldStatus)
			if got := v.decision(a) != 0; got != fence || n > 0 != bytes {
				t.Errorf("%s: the fence is known: %t, want %t; %d bytes are held", what, got, fence, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	horizon := func(passed time.Duration) {
		t.Helper()
		apply(streams.HorizonSubject(0), event.Horizon{Before: start.Add(passed - kept), At: start.Add(passed)})
	}
	apply(streams.DecisionSubject(0, a), event.Cancelled{At: start, Messages: []event.Turn{{ID: streams.FirstIDAt(start)}}})
	horizon(time.Hour)
	want("an hour later", true, true)
	horizon(kept - 12*time.Hour)
	want("half a day before 30 days", true, true)
	horizon(kept + 34*time.Hour)
	want("when the day has passed", false, false)
}
