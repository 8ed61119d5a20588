package state

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// history is what two streams may hold: any events, also such as no dispatcher
// would decide.
type history struct {
	enqueue, status []projection.Event
}

var began = streams.Epoch.Add(100 * 24 * time.Hour)

func drawHistory(t *rapid.T) history {
	accounts := []streams.AccountID{streams.AccountIDOf("a"), streams.AccountIDOf("b")}
	var h history
	var ids []streams.MessageID
	now := began
	accept := func(subject string, e event.Event) {
		h.enqueue = append(h.enqueue, stored(t, uint64(len(h.enqueue)+1), now, subject, e))
	}
	var releases []func()
	for i := range rapid.IntRange(1, 12).Draw(t, "messages") {
		now = now.Add(time.Duration(rapid.IntRange(0, 48).Draw(t, "hours")) * time.Hour)
		m := streams.FirstIDAt(now) + streams.MessageID(i)
		ids = append(ids, m)
		account := rapid.SampledFrom(accounts).Draw(t, "account")
		lane := streams.Lane{Priority: streams.Priority(rapid.IntRange(0, 2).Draw(t, "priority"))}
		e := event.Enqueued{ID: m, Name: rapid.SampledFrom([]string{"", "n", "o"}).Draw(t, "name")}
		if rapid.Bool().Draw(t, "in a group") {
			e.Group = rapid.SampledFrom(ids).Draw(t, "group")
		}
		if rapid.Bool().Draw(t, "validity") {
			e.Until = now.Add(72 * time.Hour)
		}
		if !rapid.Bool().Draw(t, "scheduled") {
			accept(streams.EnqueueSubject(0, account, lane), e)
			continue
		}
		e.Due = now.Add(time.Hour)
		accept(streams.ScheduledSubject(0, account), event.Scheduled{Lane: lane, Enqueued: e})
		e.Released = true
		for range rapid.IntRange(0, 2).Draw(t, "releases") {
			releases = append(releases, func() { accept(streams.EnqueueSubject(0, account, lane), e) })
		}
	}
	for _, release := range releases {
		release()
	}
	devices := []streams.DeviceID{0, 1, 2}
	leases := []streams.LeaseID{10, 11, 12}
	states := []streams.State{streams.Sent, streams.Delivered, streams.Failed}
	round := rapid.IntRange(0, 2)
	for i := range rapid.IntRange(0, 40).Draw(t, "events") {
		now = now.Add(time.Duration(rapid.IntRange(0, 24).Draw(t, "hours")) * time.Hour)
		a := rapid.SampledFrom(accounts).Draw(t, "account")
		device := rapid.SampledFrom(devices).Draw(t, "device")
		lease := rapid.SampledFrom(leases).Draw(t, "lease")
		some := rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, len(ids), rapid.ID).Draw(t, "ids")
		attempts := make([]event.Attempt, len(some))
		for i, m := range some {
			attempts[i] = event.Attempt{ID: m, Round: round.Draw(t, "round")}
		}
		subject := streams.DecisionSubject(0, a)
		var e event.Event
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0, 1:
			e = event.Leased{
				Lease: lease, Device: device, At: now, Until: now.Add(time.Hour), Attempts: 2,
				Policy: rapid.SampledFrom([]streams.LapsePolicy{streams.Retry, streams.Hold, streams.Fail}).Draw(t, "policy"), Messages: attempts,
			}
		case 2:
			e = event.Renewed{At: now, Leases: []event.Renewal{{Lease: lease, Until: now.Add(time.Hour)}}}
		case 3:
			lapsed := event.Lapsed{At: now, Lease: lease}
			for _, attempt := range attempts {
				to := rapid.SampledFrom([]streams.State{streams.Pending, streams.Leased, streams.Failed}).Draw(t, "to")
				lapsed.Messages = append(lapsed.Messages, event.Lapse{ID: attempt.ID, Round: attempt.Round, To: to})
			}
			e = lapsed
		case 4:
			e = event.Cancelled{At: now, Messages: attempts}
		case 5:
			e = event.Requeued{At: now, Until: now.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "longer")) * 24 * time.Hour), Messages: attempts}
		case 6:
			reported := event.Reported{Device: device}
			for _, m := range some {
				reported.Messages = append(reported.Messages, event.Report{ID: m, State: rapid.SampledFrom(states).Draw(t, "state")})
			}
			subject, e = streams.ReportSubject(0, a), reported
		case 7:
			e = event.Expired{At: now, Messages: attempts}
		case 8:
			subject, e = streams.HorizonSubject(0), event.Horizon{Before: now.Add(-time.Duration(rapid.IntRange(0, 400).Draw(t, "kept")) * time.Hour)}
		}
		h.status = append(h.status, stored(t, uint64(i+1), now, subject, e))
	}
	return h
}

func stored(t rapid.TB, seq uint64, at time.Time, subject string, e event.Event) projection.Event {
	data, err := event.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return projection.Event{Subject: subject, Kind: string(e.Kind()), Seq: seq, Time: at, Header: nats.Header{}, Data: data}
}

// interleave merges the streams, each in its order.
func (h history) interleave(t *rapid.T) []projection.Event {
	var all []projection.Event
	e, s := h.enqueue, h.status
	for len(e)+len(s) > 0 {
		if len(s) == 0 || len(e) > 0 && rapid.Bool().Draw(t, "enqueue first") {
			all, e = append(all, e[0]), e[1:]
		} else {
			all, s = append(all, s[0]), s[1:]
		}
	}
	return all
}

func openFile(t rapid.TB, path string) *bolt.DB {
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// folded gives the dump of a file with these events folded.
func folded(t *rapid.T, dir string, events []projection.Event) string {
	db := openFile(t, filepath.Join(dir, "fold.db"))
	defer db.Close()
	err := db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if tx.Bucket(name) != nil {
				if err := tx.DeleteBucket(name); err != nil {
					return err
				}
			}
		}
		for _, e := range events {
			if err := (Fold{}).Apply(tx, e); err != nil {
				return err
			}
		}
		return checkIndexes(View{tx})
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			eachKey(tx.Bucket(name), nil, func(key, value []byte) bool {
				fmt.Fprintf(&out, "%s %x %x\n", name, key, value)
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// checkIndexes holds every index to the records and leases.
func checkIndexes(v View) error {
	var waiting, members, leases int
	err := v.bucket(messagesBucket).ForEach(func(key, value []byte) error {
		a, m := streams.AccountID(id(key, 0)), streams.MessageID(id(key, 1))
		r, err := decodeRecord(value)
		if err != nil {
			return err
		}
		if r.waiting() {
			waiting++
			if got := v.bucket(waitingBucket).Get(waitingKey(a, &r)); got == nil || streams.MessageID(id(got, 0)) != m {
				return fmt.Errorf("waiting message %s is not in its lane", m)
			}
		}
		if r.state == streams.Leased {
			members++
			if v.bucket(membersBucket).Get(memberKey(a, r.lease, m)) == nil {
				return fmt.Errorf("leased message %s is not under its lease", m)
			}
			if _, ok, err := v.Account(a).lease(r.lease); err != nil || !ok {
				return fmt.Errorf("leased message %s has no lease: %w", m, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = v.bucket(leasesBucket).ForEach(func(key, value []byte) error {
		leases++
		a, leaseID := streams.AccountID(id(key, 0)), streams.LeaseID(id(key, 1))
		l, err := decodeLease(value)
		if err != nil {
			return err
		}
		if len(v.Account(a).members(leaseID)) == 0 {
			return fmt.Errorf("lease %s holds nothing", leaseID)
		}
		if due := v.bucket(dueBucket).Get(dueKey(l.until, a, leaseID)) != nil; due == l.held {
			return fmt.Errorf("lease %s: held is %v, due is %v", leaseID, l.held, due)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, want := range []struct {
		bucket []byte
		keys   int
	}{{waitingBucket, waiting}, {membersBucket, members}, {devicesBucket, leases}} {
		got := 0
		eachKey(v.bucket(want.bucket), nil, func(_, _ []byte) bool { got++; return true })
		if got != want.keys {
			return fmt.Errorf("bucket %s has %d keys, want %d", want.bucket, got, want.keys)
		}
	}
	if got := v.Depth(); got != uint64(waiting) {
		return fmt.Errorf("depth is %d, want %d", got, waiting)
	}
	return nil
}

func TestEveryInterleavingFoldsToTheSame(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		want := folded(t, dir, append(append([]projection.Event(nil), h.enqueue...), h.status...))
		for range 2 {
			if diff := cmp.Diff(want, folded(t, dir, h.interleave(t))); diff != "" {
				t.Fatalf("another interleaving gives another file:\n%s", diff)
			}
		}
	})
}

func TestSuccessIsNeverTakenBack(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		db := openFile(t, filepath.Join(dir, "success.db"))
		defer db.Close()
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		succeeded := map[string]streams.State{}
		for _, e := range h.interleave(t) {
			if err := (Fold{}).Apply(tx, e); err != nil {
				t.Fatal(err)
			}
			_ = tx.Bucket(messagesBucket).ForEach(func(key, value []byte) error {
				r, err := decodeRecord(value)
				if err != nil {
					t.Fatal(err)
				}
				if before := succeeded[string(key)]; r.state < before {
					t.Fatalf("message %x went from %s back to %s", key, before, r.state)
				}
				if r.state.Success() {
					succeeded[string(key)] = r.state
				}
				return nil
			})
		}
	})
}

func drawTime(t *rapid.T, name string) time.Time {
	return fromMillis(uint64(rapid.IntRange(0, 1<<42).Draw(t, name)))
}

func TestStoredRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := record{
			seq: rapid.Uint64().Draw(t, "seq"), state: rapid.SampledFrom(streams.States()).Draw(t, "state"),
			lane:  streams.Lane{Target: streams.DeviceID(rapid.Uint64().Draw(t, "target")), Priority: streams.Low, Class: streams.Other},
			round: rapid.IntRange(0, 1<<20).Draw(t, "round"), tries: rapid.IntRange(0, 1<<20).Draw(t, "tries"),
			lease: 7, device: 8, reason: rapid.String().Draw(t, "reason"),
			until: drawTime(t, "until"), due: drawTime(t, "due"), extended: drawTime(t, "longer"),
			group: streams.MessageID(rapid.Uint64().Draw(t, "group")), name: rapid.String().Draw(t, "name"),
			steps: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
				return step{seq: rapid.Uint64().Draw(t, "step"), at: drawTime(t, "at"), state: rapid.SampledFrom(streams.States()).Draw(t, "step state")}
			}), 0, 5).Draw(t, "steps"),
		}
		got, err := decodeRecord(r.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, cmp.AllowUnexported(record{}, step{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		l := lease{
			device: 3, name: rapid.String().Draw(t, "name"), start: began, until: began.Add(time.Hour), length: time.Hour,
			policy: streams.Hold, attempts: 4, held: rapid.Bool().Draw(t, "held"),
		}
		gotLease, err := decodeLease(l.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, gotLease, cmp.AllowUnexported(lease{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzDecodeStored: damaged bytes are an error, never a panic, and what can be read is written as what reads the same.
func FuzzDecodeStored(f *testing.F) {
	r, l := newRecord(), lease{name: "Pixel", length: time.Minute}
	f.Add(r.encode())
	f.Add(l.encode())
	r.seq, r.steps, r.reason, r.state = 7, []step{{1, began, streams.Leased}, {1 << 40, began, streams.Failed}}, "lease_lapsed", streams.Failed
	l.start, l.until, l.reported, l.policy, l.held = began, began.Add(time.Hour), began.Add(time.Minute), streams.Hold, true
	f.Add(r.encode())
	f.Add(l.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil {
			again, err := decodeRecord(r.encode())
			if diff := cmp.Diff(r, again, cmp.AllowUnexported(record{}, step{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("a record reads otherwise when written again: %v\n%s", err, diff)
			}
			if _, err := r.state.MarshalText(); err != nil {
				t.Errorf("a record is read with %v", err)
			}
		}
		if l, err := decodeLease(data); err == nil {
			again, err := decodeLease(l.encode())
			if diff := cmp.Diff(l, again, cmp.AllowUnexported(lease{})); err != nil || diff != "" {
				t.Errorf("a lease reads otherwise when written again: %v\n%s", err, diff)
			}
		}
		for _, bucket := range buckets {
			Render(bucket, data, data)
		}
	})
}

// FuzzApply: an event that no dispatcher of ours has written, of a newer one or a damaged one, is folded into what can be
// read again, or refused without a word of its text.
func FuzzApply(f *testing.F) {
	a, m := streams.AccountIDOf("a"), streams.FirstIDAt(began)
	decision, report := streams.DecisionSubject(0, a), streams.ReportSubject(0, a)
	for _, seed := range []struct {
		subject string
		e       event.Event
	}{
		{streams.EnqueueSubject(0, a, streams.Lane{}), event.Enqueued{ID: m + 1, Text: "secret-text-1"}},
		{decision, event.Leased{Lease: 10, Device: 3, Name: "p", At: began, Until: began.Add(time.Hour), Policy: streams.Hold, Attempts: 3, Messages: []event.Attempt{{ID: m}}}},
		{decision, event.Renewed{At: began, Leases: []event.Renewal{{Lease: 10, Until: began.Add(2 * time.Hour)}}}},
		{decision, event.Lapsed{At: began.Add(3 * time.Hour), Lease: 10, Messages: []event.Lapse{{ID: m, To: streams.Pending}}}},
		{decision, event.Cancelled{At: began, Messages: []event.Attempt{{ID: m}}}},
		{decision, event.Requeued{At: began, Messages: []event.Attempt{{ID: m, Round: 1}}}},
		{report, event.Reported{Messages: []event.Report{{ID: m, State: streams.Delivered, Error: "e"}}}},
		{streams.HorizonSubject(0), event.Horizon{Before: began.Add(time.Hour)}},
	} {
		data, err := event.Encode(seed.e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(seed.e.Kind()), seed.subject, data)
		f.Add("messages.reported.v2", seed.subject, data)
		f.Add(string(seed.e.Kind()), "sms.status.0.x.report", data)
	}
	db := openFile(f, filepath.Join(f.TempDir(), "fold.db"))
	f.Cleanup(func() { _ = db.Close() })
	f.Fuzz(func(t *testing.T, kind, subject string, data []byte) {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		for _, e := range []projection.Event{
			stored(t, 1, began, streams.EnqueueSubject(0, a, streams.Lane{}), event.Enqueued{ID: m}),
			stored(t, 1, began, decision, event.Leased{Lease: 10, Device: 3, At: began, Until: began.Add(time.Hour), Policy: streams.Retry, Attempts: 3, Messages: []event.Attempt{{ID: m}}}),
			{Seq: 2, Time: began.Add(time.Minute), Kind: kind, Subject: subject, Data: data},
		} {
			if err := (Fold{}).Apply(tx, e); err != nil {
				if e.Seq != 2 || strings.Contains(err.Error(), "secret-text-") {
					t.Fatalf("%s: %v", e.Kind, err)
				}
				return // of what the transaction holds nothing stays
			}
		}
		readAll(t, View{tx})
	})
}

// readAll reads every record and lease of a projection.
func readAll(t *testing.T, v View) {
	t.Helper()
	eachKey(v.bucket(messagesBucket), nil, func(_, value []byte) bool {
		if _, err := decodeRecord(value); err != nil {
			t.Error(err)
		}
		return true
	})
	eachKey(v.bucket(leasesBucket), nil, func(_, value []byte) bool {
		if _, err := decodeLease(value); err != nil {
			t.Error(err)
		}
		return true
	})
	v.Horizon()
	v.Depth()
}

// A dispatcher may decide a lapse without knowing of a report that was stored
// just before.
func TestReportVoidsALapseThatDidNotKnowOfIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fold.db")
	rapid.Check(t, func(t *rapid.T) {
		const length = 10 * time.Minute
		a, ids := streams.AccountIDOf("a"), []streams.MessageID{streams.FirstIDAt(began), streams.FirstIDAt(began) + 1}
		reported := began.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "minutes")) * time.Minute)
		lapsed := began.Add(time.Duration(rapid.IntRange(10, 25).Draw(t, "minutes")) * time.Minute)
		status := []event.Event{
			event.Leased{
				Lease: 10, At: began, Until: began.Add(length), Policy: streams.Retry, Attempts: 3,
				Messages: []event.Attempt{{ID: ids[0]}, {ID: ids[1]}},
			},
			event.Reported{Messages: []event.Report{{ID: ids[0], State: streams.Delivered}}},
			event.Lapsed{At: lapsed, Lease: 10, Messages: []event.Lapse{{ID: ids[1], To: streams.Pending}}},
		}
		subjects := []string{streams.DecisionSubject(0, a), streams.ReportSubject(0, a), streams.DecisionSubject(0, a)}
		var h history
		for i, m := range ids {
			h.enqueue = append(h.enqueue, stored(t, uint64(i+1), began, streams.EnqueueSubject(0, a, streams.Lane{}), event.Enqueued{ID: m}))
		}
		for i, e := range status {
			h.status = append(h.status, stored(t, uint64(i+1), []time.Time{began, reported, lapsed}[i], subjects[i], e))
		}
		db := openFile(t, path)
		defer db.Close()
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		for _, e := range h.interleave(t) {
			if err := (Fold{}).Apply(tx, e); err != nil {
				t.Fatal(err)
			}
		}
		r, _, err := View{tx}.Account(a).record(ids[1])
		if err != nil {
			t.Fatal(err)
		}
		want := streams.Pending
		if reported.Add(length).After(lapsed) {
			want = streams.Leased
		}
		if r.state != want {
			t.Fatalf("reported at %s, lapsed at %s: %s, want %s", reported, lapsed, r.state, want)
		}
	})
}
