package quota

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// count folds the accepted messages of the newest month into counts by account.
// Older months are dropped, so whatever the interleaving of the shards, the
// content is the counts of the newest month among the events.
type count struct{ shards streams.Shards }

// The buckets: usedBucket holds account → count, 8 bytes each.
var (
	monthBucket = []byte("month")
	usedBucket  = []byte("used")
	newestKey   = []byte("newest")
)

const monthLayout = "2006-01"

func (count) Schema() int { return 1 }

func (c count) Sources() []projection.Source {
	var all []projection.Source
	for _, shard := range c.shards.All() {
		all = append(all, projection.Source{
			Stream:   streams.EnqueueStream(shard),
			Subjects: []string{streams.EnqueuedSubjects(shard), streams.BarrierSubject(shard)},
		})
	}
	return all
}

func (count) Apply(tx *bolt.Tx, e projection.Event) error {
	c, ok := readCounted(e)
	if !ok {
		return nil
	}
	months, err := tx.CreateBucketIfNotExists(monthBucket)
	if err != nil {
		return fmt.Errorf("make bucket: %w", err)
	}
	switch newest := string(months.Get(newestKey)); {
	case c.Month < newest:
		return nil
	case c.Month > newest:
		if tx.Bucket(usedBucket) != nil {
			if err := tx.DeleteBucket(usedBucket); err != nil {
				return fmt.Errorf("drop counts of %s: %w", newest, err)
			}
		}
		if err := months.Put(newestKey, []byte(c.Month)); err != nil {
			return fmt.Errorf("begin %s: %w", c.Month, err)
		}
	}
	used, err := tx.CreateBucketIfNotExists(usedBucket)
	if err != nil {
		return fmt.Errorf("make bucket: %w", err)
	}
	key := binary.BigEndian.AppendUint64(nil, uint64(c.account))
	before := uint64(0)
	if value := used.Get(key); value != nil {
		before = binary.BigEndian.Uint64(value)
	}
	if err := used.Put(key, binary.BigEndian.AppendUint64(nil, before+1)); err != nil {
		return fmt.Errorf("count a message of %s: %w", c.account, err)
	}
	return nil
}

// counted is what quota reads of an accepted message: not its text.
type counted struct {
	Month string `json:"month"`
	Grant string `json:"grant"`

	account streams.AccountID
}

// Kind is message.enqueued.v1.
func (counted) Kind() event.Kind { return event.KindEnqueued }

// readCounted reads an accepted message. What is none, or cannot be read, was
// accepted by nobody and counts for nothing.
func readCounted(e projection.Event) (counted, bool) {
	if event.Kind(e.Kind) != event.KindEnqueued {
		return counted{}, false
	}
	c, err := event.Decode[counted](e.Data)
	if err != nil {
		return counted{}, false
	}
	if _, err := time.Parse(monthLayout, c.Month); err != nil {
		return counted{}, false
	}
	c.account, _, err = streams.ParseEnqueueSubject(e.Subject)
	return c, err == nil
}

// loadCounts reads what Apply has written.
func loadCounts(tx *bolt.Tx) (month string, counts map[streams.AccountID]int64, err error) {
	counts = make(map[streams.AccountID]int64)
	if b := tx.Bucket(monthBucket); b != nil {
		month = string(b.Get(newestKey))
	}
	if b := tx.Bucket(usedBucket); b != nil {
		err = b.ForEach(func(key, value []byte) error {
			if len(key) != 8 || len(value) != 8 {
				return fmt.Errorf("read counts: entry of %d and %d bytes", len(key), len(value))
			}
			counts[streams.AccountID(binary.BigEndian.Uint64(key))] = int64(binary.BigEndian.Uint64(value))
			return nil
		})
	}
	return month, counts, err
}

// render makes a dump readable.
func render(bucket, key, value []byte) (string, string) {
	if bytes.Equal(bucket, usedBucket) && len(key) == 8 && len(value) == 8 {
		return streams.AccountID(binary.BigEndian.Uint64(key)).String(), fmt.Sprint(binary.BigEndian.Uint64(value))
	}
	return string(key), string(value)
}
