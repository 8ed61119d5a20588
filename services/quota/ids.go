package quota

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
)

// messages remembers the messages of a shard and a month that have been counted, so
// that each counts once however often it is stored. It also remembers the events
// that did not count for that reason. Both are dropped with the counts of the month.
//
// An instance gives consecutive ids, so they are stored as runs, with 6 bytes each,
// by account, instance and second.
type messages struct{ ids, repeats []byte } // buckets: of runs of ids, and of sequences of events

const (
	idsBucket     = "ids"
	repeatsBucket = "repeats"
)

func messagesOf(shard streams.Shard, month string) messages {
	return messages{ids: monthBucket(idsBucket, shard, month), repeats: monthBucket(repeatsBucket, shard, month)}
}

func monthBucket(of string, shard streams.Shard, month string) []byte {
	return []byte(of + "/" + shard.String() + "/" + month)
}

const (
	runBytes = 6 // 4 of the first tick, 2 of the length
	// Limit: a run has at most 65,535 ids. Beyond it: another run begins.
	// Used up by: much traffic. Hurts: nobody. Test: TestAddToRuns_Join.
	maxRun    = 1<<16 - 1
	blockBits = 22 // of an id's time and sequence within a block: a second's

	sequenceBits, instanceBits = 12, 10 // of an id
)

// note notes that a message is counted, and reports whether it was counted before.
func (m messages) note(tx *bolt.Tx, account streams.AccountID, id streams.MessageID) (again bool, err error) {
	ids, err := bucket(tx, m.ids)
	if err != nil {
		return false, err
	}
	ms, instance := uint64(id)>>(sequenceBits+instanceBits), uint64(id)>>sequenceBits&(1<<instanceBits-1)
	ticks := ms<<sequenceBits | uint64(id)&(1<<sequenceBits-1)
	key := binary.BigEndian.AppendUint64(nil, uint64(account))
	key = binary.BigEndian.AppendUint16(key, uint16(instance))
	key = binary.BigEndian.AppendUint32(key, uint32(ticks>>blockBits))
	runs, again := addToRuns(ids.Get(key), uint32(ticks&(1<<blockBits-1)))
	if again {
		return true, nil
	}
	if err := ids.Put(key, runs); err != nil {
		return false, fmt.Errorf("note message %s: %w", id, err)
	}
	return false, nil
}

// addToRuns gives the runs with tick added, in new memory. If tick is in them
// already, it gives nil and true.
func addToRuns(runs []byte, tick uint32) (with []byte, again bool) {
	start := func(i int) uint32 { return binary.BigEndian.Uint32(runs[i*runBytes:]) }
	length := func(i int) uint32 { return uint32(binary.BigEndian.Uint16(runs[i*runBytes+4:])) }
	n := len(runs) / runBytes
	at := sort.Search(n, func(i int) bool { return start(i) > tick }) // the first run behind it
	from, to, first, count := at, at, tick, uint32(1)
	if at > 0 {
		switch end := start(at-1) + length(at-1); {
		case tick < end:
			return nil, true
		case tick == end && length(at-1) < maxRun:
			from, first, count = at-1, start(at-1), length(at-1)+1
		}
	}
	if at < n && start(at) == tick+1 && count+length(at) <= maxRun {
		to, count = at+1, count+length(at)
	}
	with = make([]byte, 0, len(runs)+runBytes)
	with = append(with, runs[:from*runBytes]...)
	with = binary.BigEndian.AppendUint32(with, first)
	with = binary.BigEndian.AppendUint16(with, uint16(count))
	return append(with, runs[to*runBytes:]...), false
}

// noteRepeat notes that an event did not count, because its message has counted
// before.
func (m messages) noteRepeat(tx *bolt.Tx, e projection.Event) error {
	repeats, err := bucket(tx, m.repeats)
	if err != nil {
		return err
	}
	if err := repeats.Put(binary.BigEndian.AppendUint64(nil, e.Seq), []byte{}); err != nil {
		return fmt.Errorf("note event %d of %s as a repeat: %w", e.Seq, e.Stream, err)
	}
	return nil
}

// forgetOthers forgets a shard's messages of other months.
func forgetOthers(tx *bolt.Tx, shard streams.Shard, month string) error {
	var over [][]byte
	err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		for _, of := range []string{idsBucket, repeatsBucket} {
			if bytes.HasPrefix(name, monthBucket(of, shard, "")) && !bytes.Equal(name, monthBucket(of, shard, month)) {
				over = append(over, bytes.Clone(name))
			}
		}
		return nil
	})
	for _, name := range over {
		err = errors.Join(err, tx.DeleteBucket(name))
	}
	if err != nil {
		return fmt.Errorf("drop messages of months before %s: %w", month, err)
	}
	return nil
}

// repeated reports whether an event that is folded did not count, because its
// message had been counted before.
func (c count) repeated(tx *bolt.Tx, e projection.Event, one counted) bool {
	noted := tx.Bucket(messagesOf(c.shards.Of(one.account), one.month).repeats)
	return noted != nil && noted.Get(binary.BigEndian.AppendUint64(nil, e.Seq)) != nil
}
