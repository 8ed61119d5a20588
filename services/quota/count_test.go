package quota

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
				Data:    fmt.Appendf(nil, `{"id":"0123456789abcdef","month":%q}`, rapid.SampledFrom(months).Draw(t, "month")),
			}
			switch rapid.IntRange(0, 9).Draw(t, "other") {
			case 0:
				e.Kind, e.Subject, e.Data = string(event.KindBarrier), streams.BarrierSubject(shard), []byte(`{"claim":1}`)
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
		l.fold(other)
		var mirror []string
		for account, used := range l.counts {
			mirror = append(mirror, fmt.Sprintf("%v %d", account, used))
		}
		slices.Sort(mirror)
		if l.month != "" {
			mirror = append([]string{"newest " + l.month}, mirror...)
		}
		if diff := cmp.Diff(want, strings.Join(mirror, "\n")); diff != "" {
			t.Fatalf("mirror against the file:\n%s", diff)
		}
	})
}

// foldInto applies events to an empty file and gives its content.
func foldInto(t *rapid.T, db *bolt.DB, events []projection.Event) string {
	var lines []string
	err := db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{monthBucket, usedBucket} {
			if tx.Bucket(name) != nil {
				if err := tx.DeleteBucket(name); err != nil {
					return err
				}
			}
		}
		for _, e := range events {
			if err := (count{}).Apply(tx, e); err != nil {
				return err
			}
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				k, v := render(name, key, value)
				lines = append(lines, k+" "+v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
