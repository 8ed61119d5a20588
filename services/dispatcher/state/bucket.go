package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
)

// The buckets of a dispatcher's projection. Their names are those of stored
// files. All but the first two and the last three are indexes: their content
// follows from the records and leases. Those whose keys begin with a time say
// what is due next.
var (
	messagesBucket  = []byte("messages")  // account, message → record
	leasesBucket    = []byte("leases")    // account, lease → lease
	membersBucket   = []byte("members")   // account, lease, message: what a lease still holds
	waitingBucket   = []byte("waiting")   // account, handed out or fresh, lane, ENQUEUE sequence → message
	devicesBucket   = []byte("devices")   // account, device, running or held, lease
	dueBucket       = []byte("due")       // time, account, lease: leases by their end
	scheduledBucket = []byte("scheduled") // time, account, message: by when they are due
	validBucket     = []byte("valid")     // time, account, message that has not ended: by the end of its validity
	groupsBucket    = []byte("groups")    // account, group, message: groups of several
	namesBucket     = []byte("names")     // account, hash of the sender's id, its group
	decisionsBucket = []byte("decisions") // account → sequence and time of its last decision
	storedBucket    = []byte("held")      // account, stream → stored bytes by day
	metaBucket      = []byte("meta")      // the horizon, the number of waiting messages
)

var buckets = [][]byte{
	messagesBucket, leasesBucket, membersBucket, waitingBucket,
	devicesBucket, dueBucket, scheduledBucket, validBucket, groupsBucket, namesBucket, decisionsBucket, storedBucket, metaBucket,
}

var (
	horizonKey = []byte("horizon")
	depthKey   = []byte("depth")
)

// The two halves of an account's waiting messages.
const (
	handedOut = 0 // before, and came back: they go first, and are read by sequence
	neverOut  = 1 // come from the lane's consumer
)

func key8(ids ...uint64) []byte {
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

func messageKey(a streams.AccountID, m streams.MessageID) []byte { return key8(uint64(a), uint64(m)) }

func leaseKey(a streams.AccountID, l streams.LeaseID) []byte { return key8(uint64(a), uint64(l)) }

func memberKey(a streams.AccountID, l streams.LeaseID, m streams.MessageID) []byte {
	return key8(uint64(a), uint64(l), uint64(m))
}

// The two halves of a device's leases.
const (
	running = 0 // they have an end to come
	held    = 1 // they lapsed under policy hold: their messages stay with the device
)

func devicePrefix(a streams.AccountID, d streams.DeviceID, half byte) []byte {
	return append(key8(uint64(a), uint64(d)), half)
}

func deviceKey(a streams.AccountID, d streams.DeviceID, half byte, l streams.LeaseID) []byte {
	return binary.BigEndian.AppendUint64(devicePrefix(a, d, half), uint64(l))
}

func dueKey(at time.Time, a streams.AccountID, l streams.LeaseID) []byte {
	return key8(millis(at), uint64(a), uint64(l))
}

func timeKey(at time.Time, a streams.AccountID, m streams.MessageID) []byte {
	return key8(millis(at), uint64(a), uint64(m))
}

func groupKey(a streams.AccountID, group, m streams.MessageID) []byte {
	return key8(uint64(a), uint64(group), uint64(m))
}

func namePrefix(a streams.AccountID, name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return append(key8(uint64(a)), sum[:16]...)
}

func lanePrefix(a streams.AccountID, half byte, l streams.Lane) []byte {
	b := make([]byte, 0, 8+1+laneBytes+8)
	b = binary.BigEndian.AppendUint64(b, uint64(a))
	return appendLane(append(b, half), l)
}

func waitingKey(a streams.AccountID, r *record) []byte {
	half := byte(handedOut)
	if r.fresh() {
		half = neverOut
	}
	return binary.BigEndian.AppendUint64(lanePrefix(a, half, r.lane), r.seq)
}

// id reads the i-th 8 bytes of a key or value.
func id(b []byte, i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }

// eachKey calls f for each key with that prefix, in order, until f says false.
func eachKey(b *bolt.Bucket, prefix []byte, f func(key, value []byte) bool) {
	c := b.Cursor()
	for key, value := c.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, value = c.Next() {
		if !f(key, value) {
			return
		}
	}
}

// eachAccount calls f with each account that has keys in a bucket keyed by
// account, until f says false. It costs one seek an account.
func eachAccount(b *bolt.Bucket, f func(streams.AccountID) bool) {
	c := b.Cursor()
	for key, _ := c.First(); key != nil; {
		account := id(key, 0)
		if !f(streams.AccountID(account)) || account == 1<<64-1 {
			return
		}
		key, _ = c.Seek(key8(account + 1))
	}
}
