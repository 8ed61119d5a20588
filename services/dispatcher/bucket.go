package dispatcher

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
)

// The buckets of a dispatcher's projection. All but the first two and the last
// three are indexes: what stands in them follows from the records and leases.
// The keys that begin with a time are what react and release look at.
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
	heldBucket      = []byte("held")      // account, stream → bytes by day
	metaBucket      = []byte("meta")      // the horizon, the number of waiting messages
)

var buckets = [][]byte{
	messagesBucket, leasesBucket, membersBucket, waitingBucket,
	devicesBucket, dueBucket, scheduledBucket, validBucket, groupsBucket, namesBucket, decisionsBucket, heldBucket, metaBucket,
}

var (
	horizonKey = []byte("horizon")
	depthKey   = []byte("depth")
)

// The two halves of an account's waiting messages.
const (
	handedOut = 0 // before: they go first, from here
	neverOut  = 1 // handed out by the lane's consumer
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
	held    = 1 // they lapsed, and their messages stay with the device
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

// view reads and writes a projection inside one transaction.
type view struct{ tx *bolt.Tx }

func (v view) bucket(name []byte) *bolt.Bucket { return v.tx.Bucket(name) }

// record gives a message's record; ok is false where there is none.
func (v view) record(a streams.AccountID, m streams.MessageID) (r record, ok bool, err error) {
	b := v.bucket(messagesBucket).Get(messageKey(a, m))
	if b == nil {
		return newRecord(), false, nil
	}
	if r, err = decodeRecord(b); err != nil {
		return r, false, fmt.Errorf("read message %s: %w", m, err)
	}
	return r, true, nil
}

// lease gives a lease; ok is false where there is none.
func (v view) lease(a streams.AccountID, l streams.LeaseID) (got lease, ok bool, err error) {
	if l == 0 {
		return lease{}, false, nil
	}
	b := v.bucket(leasesBucket).Get(leaseKey(a, l))
	if b == nil {
		return lease{}, false, nil
	}
	if got, err = decodeLease(b); err != nil {
		return got, false, fmt.Errorf("read lease %s: %w", l, err)
	}
	return got, true, nil
}

// members lists the messages that a lease still holds, oldest first.
func (v view) members(a streams.AccountID, l streams.LeaseID) []streams.MessageID {
	var all []streams.MessageID
	eachKey(v.bucket(membersBucket), leaseKey(a, l), func(key, _ []byte) bool {
		all = append(all, streams.MessageID(id(key, 2)))
		return true
	})
	return all
}

// group lists the messages of a group, by any one of them.
func (v view) group(a streams.AccountID, m streams.MessageID, r record) []streams.MessageID {
	if r.group == 0 {
		return []streams.MessageID{m}
	}
	var all []streams.MessageID
	eachKey(v.bucket(groupsBucket), key8(uint64(a), uint64(r.group)), func(key, _ []byte) bool {
		all = append(all, streams.MessageID(id(key, 2)))
		return true
	})
	return all
}

// named gives the group of a sender's id, zero if there is none.
func (v view) named(a streams.AccountID, name string) (group streams.MessageID) {
	prefix := namePrefix(a, name)
	eachKey(v.bucket(namesBucket), prefix, func(key, _ []byte) bool {
		group = streams.MessageID(id(key[len(prefix):], 0))
		return false
	})
	return group
}

// deviceLeases lists a device's leases, running or held, oldest first.
func (v view) deviceLeases(a streams.AccountID, d streams.DeviceID, half byte) []streams.LeaseID {
	var all []streams.LeaseID
	prefix := devicePrefix(a, d, half)
	eachKey(v.bucket(devicesBucket), prefix, func(key, _ []byte) bool {
		all = append(all, streams.LeaseID(id(key[len(prefix):], 0)))
		return true
	})
	return all
}

// openLeases counts an account's leases, and stops at most.
func (v view) openLeases(a streams.AccountID, most int) int {
	n := 0
	eachKey(v.bucket(leasesBucket), key8(uint64(a)), func(_, _ []byte) bool {
		n++
		return n < most
	})
	return n
}

// decision is the account's last decision: what the next one must expect.
func (v view) decision(a streams.AccountID) uint64 {
	if b := v.bucket(decisionsBucket).Get(key8(uint64(a))); b != nil {
		return id(b, 0)
	}
	return 0
}

// horizon is the time before which nothing is kept, and the event that says so.
func (v view) horizon() (time.Time, uint64) {
	if b := v.bucket(metaBucket).Get(horizonKey); b != nil {
		return fromMillis(id(b, 0)), id(b, 1)
	}
	return time.Time{}, 0
}

// depth is how many messages wait to be handed out.
func (v view) depth() uint64 {
	if b := v.bucket(metaBucket).Get(depthKey); b != nil {
		return id(b, 0)
	}
	return 0
}

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
