package quota

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tidwall/gjson"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// count folds the accepted messages into counts by month and account. The counts of
// a month are dropped at a barrier that names another month. A message with another
// month does not do that: the clock that gave the month may have been wrong. All
// messages of an account are in one shard, as are the barriers that drop its counts.
// So the result is the same in whatever order events of different shards come.
type count struct{ shards streams.Shards }

// usedBucket maps month and account (7 and 8 bytes) to a count (8 bytes).
var usedBucket = []byte("used")

const monthLayout = "2006-01"

// Schema is raised when Apply changes.
func (count) Schema() int { return 4 }

// Sources are accepted messages and barriers of all shards.
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

// Apply counts a message the first time that it comes, or drops the counts that a
// barrier ends.
func (c count) Apply(tx *bolt.Tx, e projection.Event) error {
	if shard, month, ok := readOver(e); ok {
		return c.end(tx, shard, month)
	}
	one, ok := readCounted(e)
	if !ok {
		return nil
	}
	known := messagesOf(c.shards.Of(one.account), one.month)
	if again, err := known.note(tx, one.account, one.id); err != nil {
		return err
	} else if again {
		return known.noteRepeat(tx, e)
	}
	used, err := bucket(tx, usedBucket)
	if err != nil {
		return err
	}
	key := one.of().key()
	before := uint64(0)
	if value := used.Get(key); value != nil {
		before = binary.BigEndian.Uint64(value)
	}
	if err := used.Put(key, binary.BigEndian.AppendUint64(nil, before+1)); err != nil {
		return fmt.Errorf("count a message of %s: %w", one.account, err)
	}
	return nil
}

// end drops a shard's counts of other months.
func (c count) end(tx *bolt.Tx, shard streams.Shard, month string) error {
	if err := forgetOthers(tx, shard, month); err != nil {
		return err
	}
	used := tx.Bucket(usedBucket)
	if used == nil {
		return nil
	}
	var over [][]byte
	err := used.ForEach(func(key, _ []byte) error {
		if one, ok := readKey(key); ok && one.month != month && c.shards.Of(one.account) == shard {
			over = append(over, bytes.Clone(key))
		}
		return nil
	})
	for _, key := range over {
		err = errors.Join(err, used.Delete(key))
	}
	if err != nil {
		return fmt.Errorf("drop counts of months before %s: %w", month, err)
	}
	return nil
}

func (m monthOfAccount) key() []byte {
	return binary.BigEndian.AppendUint64([]byte(m.month), uint64(m.account))
}

func readKey(key []byte) (monthOfAccount, bool) {
	at := len(monthLayout)
	if len(key) != at+8 {
		return monthOfAccount{}, false
	}
	return monthOfAccount{streams.AccountID(binary.BigEndian.Uint64(key[at:])), string(key[:at])}, true
}

// readOver reads a barrier that names a month: in its shard, all other months are
// over.
func readOver(e projection.Event) (streams.Shard, string, bool) {
	if event.Kind(e.Kind) != event.KindBarrier {
		return 0, "", false
	}
	month := gjson.GetBytes(e.Data, "month").Str
	shard, err := streams.ParseBarrierSubject(e.Subject)
	return shard, month, err == nil && isMonth(month)
}

// isMonth reports whether a text is a month in the form that events have.
func isMonth(text string) bool {
	_, err := time.Parse(monthLayout, text)
	return err == nil && len(text) == len(monthLayout)
}

// bucket gives a bucket, and makes it if it is not there.
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

// counted is the part of an accepted message that quota reads.
type counted struct {
	account      streams.AccountID
	id           streams.MessageID
	month, grant string
}

// readCounted reads an accepted message. It is false for other events, for what
// cannot be read, since no ingress has accepted that, and for a scheduled message
// that is enqueued now, since that has counted when it was accepted.
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
	return c, isMonth(c.month)
}

func (c counted) of() monthOfAccount { return monthOfAccount{c.account, c.month} }

// loadCounts reads what Apply has written.
func loadCounts(tx *bolt.Tx) (map[monthOfAccount]int64, error) {
	counts := make(map[monthOfAccount]int64)
	used := tx.Bucket(usedBucket)
	if used == nil {
		return counts, nil
	}
	return counts, used.ForEach(func(key, value []byte) error {
		one, ok := readKey(key)
		if !ok || len(value) != 8 {
			return fmt.Errorf("read counts: entry of %d and %d bytes", len(key), len(value))
		}
		counts[one] = int64(binary.BigEndian.Uint64(value))
		return nil
	})
}

// render makes a dump readable.
func render(bucket, key, value []byte) (string, string) {
	switch one, ok := readKey(key); {
	case ok && bytes.Equal(bucket, usedBucket) && len(value) == 8:
		return one.month + " " + one.account.String(), fmt.Sprint(binary.BigEndian.Uint64(value))
	case bytes.HasPrefix(bucket, []byte(repeatsBucket+"/")) && len(key) == 8:
		return fmt.Sprint(binary.BigEndian.Uint64(key)), ""
	}
	return hex.EncodeToString(key), hex.EncodeToString(value)
}
