// Package state is what a dispatcher knows: where every message stands, which
// leases run, and the indexes over both. Fold makes it from the events of ENQUEUE
// and STATUS; View and Account answer questions about it, and propose decisions.
// It has no clock and no network: all of it follows from stored events, and from
// the times that callers give. So a rebuild gives the same bytes, and two
// dispatchers that have folded the same events decide the same.
package state

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/streams"
)

// View is the state of a shard as one transaction of bbolt sees it. It ends with
// the transaction.
type View struct{ tx *bolt.Tx }

// In gives the state in tx. It is false where nothing was ever folded: then there
// is nothing to ask.
func In(tx *bolt.Tx) (View, bool) {
	return View{tx}, tx.Bucket(metaBucket) != nil
}

// Account is what a View knows of one account.
type Account struct {
	View
	account streams.AccountID
}

// Account gives the view of one account. It is empty where nothing was folded of it.
func (v View) Account(a streams.AccountID) Account { return Account{v, a} }

func (v View) bucket(name []byte) *bolt.Bucket { return v.tx.Bucket(name) }

// Horizon is the time before which nothing is kept, and the sequence in STATUS
// of the event that says so. Both are zero before the first one.
func (v View) Horizon() (before time.Time, seq uint64) {
	if b := v.bucket(metaBucket).Get(horizonKey); b != nil {
		return fromMillis(id(b, 0)), id(b, 1)
	}
	return time.Time{}, 0
}

// Depth is how many messages wait to be handed out.
func (v View) Depth() uint64 {
	if b := v.bucket(metaBucket).Get(depthKey); b != nil {
		return id(b, 0)
	}
	return 0
}

// AccountOf finds the account of a message, zero if there is none. It costs one
// seek for each account.
func (v View) AccountOf(m streams.MessageID) (owner streams.AccountID) {
	b := v.bucket(messagesBucket)
	eachAccount(b, func(a streams.AccountID) bool {
		if b.Get(messageKey(a, m)) != nil {
			owner = a
		}
		return owner == 0
	})
	return owner
}

// LastDecision is the sequence in STATUS of the account's last decision, which
// the next one must expect there. It is 0 where there is none, or none since the
// horizon.
func (a Account) LastDecision() uint64 {
	if b := a.bucket(decisionsBucket).Get(key8(uint64(a.account))); b != nil {
		return id(b, 0)
	}
	return 0
}

// record gives a message's record; ok is false where there is none.
func (a Account) record(m streams.MessageID) (r record, ok bool, err error) {
	b := a.bucket(messagesBucket).Get(messageKey(a.account, m))
	if b == nil {
		return newRecord(), false, nil
	}
	if r, err = decodeRecord(b); err != nil {
		return r, false, fmt.Errorf("read message %s: %w", m, err)
	}
	return r, true, nil
}

// lease gives a lease; ok is false where there is none.
func (a Account) lease(l streams.LeaseID) (got lease, ok bool, err error) {
	if l == 0 {
		return lease{}, false, nil
	}
	b := a.bucket(leasesBucket).Get(leaseKey(a.account, l))
	if b == nil {
		return lease{}, false, nil
	}
	if got, err = decodeLease(b); err != nil {
		return got, false, fmt.Errorf("read lease %s: %w", l, err)
	}
	return got, true, nil
}

// members lists the messages that are under a lease, oldest first.
func (a Account) members(l streams.LeaseID) []streams.MessageID {
	var all []streams.MessageID
	eachKey(a.bucket(membersBucket), leaseKey(a.account, l), func(key, _ []byte) bool {
		all = append(all, streams.MessageID(id(key, 2)))
		return true
	})
	return all
}

// isHeld says whether the lease of a leased message lapsed and left it with its
// device.
func (a Account) isHeld(r *record) (bool, error) {
	l, ok, err := a.lease(r.lease)
	return ok && l.held, err
}
