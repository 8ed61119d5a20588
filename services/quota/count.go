package quota

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/tidwall/gjson"
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

// maxSkew is how far an event's month may lie ahead of the time at which it was
// stored: clocks agree within seconds.
const maxSkew = time.Minute

func (count) Schema() int { return 4 }

func (c count) Sources() []projection.Source {
	var all []projection.Source
	for _, shard := range c.shards.All() {
		all = append(all, projection.Source{
			Stream:   streams.EnqueueStream(shard),
			Subjects: append(streams.AcceptedSubjects(shard), streams.BarrierSubject(shard)),
		})
	}
	return all
}

func (count) Apply(tx *bolt.Tx, e projection.Event) error {
	c, ok := readCounted(e)
	if !ok {
		return nil
	}
	months, err := bucket(tx, monthBucket)
	if err != nil {
		return err
	}
	switch newest := string(months.Get(newestKey)); {
	case c.month < newest:
		return nil
	case c.month > newest:
		if err := forgetMessages(tx); err != nil {
			return err
		}
		if err := months.Put(newestKey, []byte(c.month)); err != nil {
			return fmt.Errorf("begin %s: %w", c.month, err)
		}
	}
	if again, err := noteID(tx, c.account, c.id); err != nil {
		return err
	} else if again {
		return noteRepeat(tx, e)
	}
	used, err := bucket(tx, usedBucket)
	if err != nil {
		return err
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

// bucket makes a bucket that is not there.
func bucket(tx *bolt.Tx, name []byte) (*bolt.Bucket, error) {
	if b := tx.Bucket(name); b != nil {
		return b, nil
	}
	b, err := tx.CreateBucket(name)
	if err != nil {
		return nil, fmt.Errorf("make bucket %s: %w", name, err)
	}
	return b, nil
}

// counted is what quota reads of an accepted message.
type counted struct {
	account      streams.AccountID
	id           streams.MessageID
	month, grant string
}

// readCounted reads an accepted message. What is none, or cannot be read, was
// accepted by nobody and counts for nothing; what was scheduled counted then.
func readCounted(e projection.Event) (counted, bool) {
	var c counted
	var err error
	switch event.Kind(e.Kind) {
	case event.KindEnqueued:
		c.account, _, err = streams.ParseEnqueueSubject(e.Subject)
	case event.KindScheduled:
		c.account, err = streams.ParseScheduledSubject(e.Subject)
	default:
		return c, false
	}
	if err != nil {
		return c, false
	}
	// A decoder would copy the text too, which takes longer than to count.
	released := false
	gjson.ParseBytes(e.Data).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			c.id, err = streams.ParseMessageID(value.Str)
		case "month":
			c.month = value.Str
		case "grant":
			c.grant = value.Str
		case "released":
			released = value.Bool()
		}
		return true
	})
	if released || err != nil || c.id == 0 {
		return counted{}, false
	}
	if _, err := time.Parse(monthLayout, c.month); err != nil {
		return counted{}, false
	}
	// The month of a grant is quota's own. Another is an ingress's, whose clock
	// must not end the month for everybody.
	if c.grant == "" {
		c.month = min(c.month, e.Time.UTC().Add(maxSkew).Format(monthLayout))
	}
	return c, true
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
