package quota

import (
	"encoding/binary"
	"fmt"
	"sort"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
)

// The messages of the newest month that have been counted, so that each counts
// once however often it is stored, and the events that were not counted for it.
// Both go with their month. An instance gives ids in a row, so they are kept as
// runs: under account, instance and second, 6 bytes for each run.
var (
	idsBucket     = []byte("ids")
	repeatsBucket = []byte("repeats") // stream and sequence
)

const (
	runBytes  = 6 // 4 of the first tick, 2 of the length
	maxRun    = 1<<16 - 1
	blockBits = 22 // of an id's time and sequence within a block: a second's

	sequenceBits, instanceBits = 12, 10 // of an id
)

// noteID notes that a message is counted, and says whether it was before.
func noteID(tx *bolt.Tx, account streams.AccountID, id streams.MessageID) (again bool, err error) {
	ids, err := bucket(tx, idsBucket)
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

// addToRuns gives the runs with tick among them, as other bytes, and says
// whether it was there.
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

// noteRepeat notes that an event does not count, since its message has.
func noteRepeat(tx *bolt.Tx, e projection.Event) error {
	repeats, err := bucket(tx, repeatsBucket)
	if err != nil {
		return err
	}
	if err := repeats.Put(repeatKey(e), []byte{}); err != nil {
		return fmt.Errorf("note event %d of %s as a repeat: %w", e.Seq, e.Stream, err)
	}
	return nil
}

func repeatKey(e projection.Event) []byte {
	return binary.BigEndian.AppendUint64([]byte(e.Stream+"/"), e.Seq)
}

// forgetMessages drops what is known of the messages of a month that is over.
func forgetMessages(tx *bolt.Tx) error {
	for _, name := range [][]byte{usedBucket, idsBucket, repeatsBucket} {
		if tx.Bucket(name) == nil {
			continue
		}
		if err := tx.DeleteBucket(name); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

// repeats says which of the events that were folded did not count.
func repeats(tx *bolt.Tx) func(projection.Event) bool {
	noted := tx.Bucket(repeatsBucket)
	return func(e projection.Event) bool { return noted != nil && noted.Get(repeatKey(e)) != nil }
}
