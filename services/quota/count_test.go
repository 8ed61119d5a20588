package quota

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Whatever the interleaving of the shards: the same content, which is what the
// mirror in memory holds too.
func TestCountCommutesAcrossShards(t *testing.T) {
	const shards = 3
	db, err := bolt.Open(filepath.Join(t.TempDir(), "use.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const second = 1 << 32
	ids := []uint64{1, 2, 3, 4, 5, 6, 7, second + 1, second + 2, 1<<12 + 1, 9 << 22, 9<<22 + 1}
	months := []string{"2026-09", "2026-10", "2026-11", "", "november", "2026-13"}
	rapid.Check(t, func(t *rapid.T) {
		queues := make([][]projection.Event, shards)
		for range rapid.IntRange(0, 40).Draw(t, "events") {
			account := streams.AccountID(rapid.Uint64Range(1, 6).Draw(t, "account"))
			shard := streams.Shards(shards).Of(account)
			e := projection.Event{
				Stream:  streams.EnqueueStream(shard),
				Subject: streams.EnqueueSubject(shard, account, streams.Lane{}),
				Kind:    string(event.KindEnqueued),
				Seq:     uint64(len(queues[shard]) + 1),
				Time:    time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
				Data: fmt.Appendf(nil, `{"id":%q,"month":%q}`, streams.MessageID(rapid.SampledFrom(ids).Draw(t, "id")).String(),
					rapid.SampledFrom(months).Draw(t, "month")),
			}
			switch rapid.IntRange(0, 9).Draw(t, "other") {
			case 0:
				e.Kind, e.Subject = string(event.KindBarrier), streams.BarrierSubject(shard)
				e.Data = fmt.Appendf(nil, `{"claim":1,"month":%q}`, rapid.SampledFrom(months).Draw(t, "only month"))
			case 1:
				e.Kind = "message.enqueued.v2"
			case 2:
				e.Data = []byte("{")
			}
			queues[shard] = append(queues[shard], e)
		}
		one := slices.Concat(queues...)
		var other []projection.Event
		for left := queues; len(other) < len(one); {
			i := rapid.IntRange(0, shards-1).Draw(t, "next shard")
			if len(left[i]) > 0 {
				other, left[i] = append(other, left[i][0]), left[i][1:]
			}
		}
		want := foldInto(t, db, one)
		got := foldInto(t, db, other)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("dump by interleaving:\n%s", diff)
		}
		l := newLedger(nil, shards, 0)
		if err := db.View(func(tx *bolt.Tx) error {
			l.fold(other, func(e projection.Event, one counted) bool { return (count{shards}).repeated(tx, e, one) })
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var mirror []string
		for one, used := range l.counts {
			mirror = append(mirror, fmt.Sprintf("%s %v %d", one.month, one.account, used))
		}
		slices.Sort(mirror)
		if diff := cmp.Diff(used(want), strings.Join(mirror, "\n")); diff != "" {
			t.Fatalf("mirror against the file:\n%s", diff)
		}
	})
}

// foldInto applies events to an empty file and gives its content.
func foldInto(t *rapid.T, db *bolt.DB, events []projection.Event) string {
	var lines []string
	err := db.Update(func(tx *bolt.Tx) error {
		var all [][]byte
		err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error { all = append(all, bytes.Clone(name)); return nil })
		for _, name := range all {
			err = errors.Join(err, tx.DeleteBucket(name))
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := (count{3}).Apply(tx, e); err != nil {
				return err
			}
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				k, v := render(name, key, value)
				lines = append(lines, string(name)+" "+k+" "+v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// used gives the counts of a dump.
func used(dump string) string {
	var lines []string
	for line := range strings.Lines(dump) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "used "); ok {
			lines = append(lines, rest)
		}
	}
	return strings.Join(lines, "\n")
}

// FuzzApply: whatever a stream holds is counted, or counts for nothing, and what is counted can be read again.
func FuzzApply(f *testing.F) {
	db, err := bolt.Open(filepath.Join(f.TempDir(), "use.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	subject := streams.EnqueueSubject(0, 5, streams.Lane{})
	for _, data := range []string{`{"id":"0123456789abcdef","month":"2026-11","grant":"1-1"}`, `{"month":"2026-13"}`, `{"month":5}`, `{"month":"2026-11","month":"+026-11"}`, "\xff", "null"} {
		f.Add(string(event.KindEnqueued), subject, []byte(data))
	}
	f.Add(string(event.KindEnqueued), "sms.enqueue.0.x", []byte(`{"month":"2026-11"}`))
	f.Add(string(event.KindBarrier), streams.BarrierSubject(0), []byte(`{"claim":-1}`))
	f.Fuzz(func(t *testing.T, kind, subject string, data []byte) {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		e := projection.Event{Kind: kind, Subject: subject, Data: data}
		_, counts := readCounted(e)
		for range 2 {
			if err := (count{shards: 1}).Apply(tx, e); err != nil {
				t.Fatalf("the fold stops: %v", err)
			}
		}
		accounts, err := loadCounts(tx)
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for _, n := range accounts {
			total += n
		}
		if counts != (total == 1) || !counts && total != 0 { // the second one comes again
			t.Fatalf("%q: got %d", data, total)
		}
	})
}
