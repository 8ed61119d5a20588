package state

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// farAhead tells an end that a wrong clock gave: it is more than clocks may differ, and more than the time that a
	// decision is under way.
	//
	// Limit: a lease ends at most its length and 10 min from now. Beyond it: a clock that was ahead gave it that end,
	// and it gets its whole length from now instead.
	// Used up by: a dispatcher whose clock was ahead. Hurts: nobody: the phone keeps its messages for one more lease.
	// Test: TestLeasesLastThroughSteps.
	farAhead = 10 * time.Minute
	// Limit: requests of a device renew a lease until 3 lease times after its last report on one of the messages.
	// Beyond it: the lease lapses.
	// Used up by: a phone that reports on a part of its messages and never on the rest. Hurts: only the account of
	// that phone: the rest of the messages comes back late. Test: TestContactsReachThreeLeaseTimesAfterAReport.
	contactReach = 3
)

// lease is what STATUS says of the page of one pull. It is kept until no message is
// under it any more.
type lease struct {
	device   streams.DeviceID // zero: the phone gave no name
	name     string
	start    time.Time
	until    time.Time
	length   time.Duration // how long it was given for, and is renewed for
	reported time.Time     // the last report on one of its messages; zero: none
	policy   streams.LapsePolicy
	attempts int
	held     bool // it lapsed, and what is left under it stays with the device
}

// reportedUntil is until when the last report makes the lease last; zero if
// there was none.
func (l *lease) reportedUntil() time.Time {
	if l.reported.IsZero() {
		return time.Time{}
	}
	return l.reported.Add(l.length)
}

func (l *lease) encode() []byte {
	b := make([]byte, 0, 64+len(l.name))
	b = append(b, recordFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(l.device))
	for _, t := range []time.Time{l.start, l.until, l.reported} {
		b = binary.BigEndian.AppendUint64(b, millis(t))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(l.length.Milliseconds()))
	held := byte(0)
	if l.held {
		held = 1
	}
	b = append(b, held)
	b = binary.AppendUvarint(b, uint64(l.attempts))
	b = binary.AppendUvarint(b, uint64(len(l.policy)))
	b = append(b, l.policy...)
	return append(b, l.name...)
}

func decodeLease(b []byte) (lease, error) {
	d := decoder{b: b}
	if d.byte() != recordFormat {
		return lease{}, errors.New("decode lease: another format")
	}
	l := lease{device: streams.DeviceID(d.uint64()), start: d.time(), until: d.time(), reported: d.time()}
	length := d.uint64()
	d.failed = d.failed || length > math.MaxInt64/uint64(time.Millisecond)
	l.length = time.Duration(length) * time.Millisecond
	l.held = d.byte() == 1
	l.attempts = int(d.uvarint())
	l.policy = streams.LapsePolicy(d.bytes(d.uvarint()))
	l.name = string(d.b)
	if d.failed {
		return lease{}, errors.New("decode lease: damaged")
	}
	return l, nil
}

// LeaseRef names a lease.
type LeaseRef struct {
	Account streams.AccountID
	ID      streams.LeaseID
}

// leaseOf reads a key of dueBucket.
func leaseOf(key []byte) LeaseRef {
	return LeaseRef{streams.AccountID(id(key, 1)), streams.LeaseID(id(key, 2))}
}

// DueLease finds a lease whose stored end has come, or is further off than a clock
// that agrees with now can have given it. It passes over the leases in decided. If
// there is none, due is zero, and ends is when the next stored end comes: next if
// none is before that. waits says whether a lease in decided is still due.
func (v View) DueLease(now, next time.Time, decided map[LeaseRef]bool) (due LeaseRef, waits bool, ends time.Time, err error) {
	c := v.bucket(dueBucket).Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		at := fromMillis(id(key, 0))
		if at.After(now) {
			next = clock.Earlier(next, at)
			break
		}
		if due = leaseOf(key); !decided[due] {
			return due, false, next, nil
		}
		waits = true
	}
	if key, _ := c.Last(); key != nil {
		due = leaseOf(key)
		l, _, err := v.Account(due.Account).lease(due.ID)
		switch {
		case err != nil:
			return LeaseRef{}, waits, next, err
		case l.ahead(now) && !decided[due]:
			return due, false, next, nil
		}
		waits = waits || l.ahead(now)
	}
	return LeaseRef{}, waits, next, nil
}

// ahead says whether a lease's end is further off than any clock gives one that
// agrees with now.
func (l *lease) ahead(now time.Time) bool { return l.until.Sub(now) > l.length+farAhead }

// end is when a lease ends, or ended: no sooner than its length after it was
// given, renewed or reported on last, by time that passed.
//
// since is when the clock of now began, or stepped last. It cannot tell how much
// time passed before that. So a lease from before has its whole length from then.
// A lease that ends too late has its end from a clock that was ahead, and has its
// whole length from now.
func (l lease) end(since, now time.Time) time.Time {
	l.until = clock.Later(clock.Later(l.until, l.reportedUntil()), since.Add(l.length))
	if l.ahead(now) {
		return now.Add(l.length)
	}
	return l.until
}

// EndLease is the decision about a lease whose stored end has come: Lapsed, or
// Renewed if its true end is later. It is nil before the stored end, and for a
// lease that is not there or has lapsed. since is when the clock of now began or
// stepped last.
func (a Account) EndLease(leaseID streams.LeaseID, since, now time.Time) (event.Event, error) {
	l, ok, err := a.lease(leaseID)
	if err != nil || !ok || l.held || now.Before(l.until) && !l.ahead(now) {
		return nil, err
	}
	if until := l.end(since, now); until.After(now) {
		return event.Renewed{At: now, Leases: []event.Renewal{{Lease: leaseID, Until: until}}}, nil
	}
	e := event.Lapsed{At: now, Lease: leaseID}
	for _, m := range a.members(leaseID) {
		r, _, err := a.record(m)
		if err != nil {
			return nil, err
		}
		e.Messages = append(e.Messages, event.Lapse{ID: m, Round: r.round, To: fate(l, r)})
	}
	return e, nil
}

// fate is what becomes of a message whose lease lapses.
func fate(l lease, r record) streams.State {
	switch {
	case l.policy == streams.Hold:
		return streams.Leased
	case l.policy == streams.Fail || r.tries >= l.attempts:
		return streams.Failed
	default:
		return streams.Pending
	}
}

// RenewLeases is the decision that renews the leases of a device that has just sent
// a request: those on which it has reported, and of which less than half is left.
// It is nil if there are none.
func (a Account) RenewLeases(d streams.DeviceID, now time.Time) (event.Event, error) {
	e := event.Renewed{At: now}
	for _, leaseID := range a.deviceLeases(d, running) {
		l, ok, err := a.lease(leaseID)
		if err != nil {
			return nil, err
		}
		if until, renew := l.renewal(now); ok && renew && len(e.Leases) < event.MaxItems {
			e.Leases = append(e.Leases, event.Renewal{Lease: leaseID, Until: until})
		}
	}
	if len(e.Leases) == 0 {
		return nil, nil
	}
	return e, nil
}

// renewal is the end that a request of the device at now gives the lease; false if
// it leaves the end as it is. A lease on which nothing was reported is not renewed:
// the phone may never have got the page.
func (l *lease) renewal(now time.Time) (time.Time, bool) {
	if l.reported.IsZero() || l.until.Sub(now) >= l.length/2 {
		return l.until, false
	}
	until := clock.Earlier(now.Add(l.length), l.reported.Add(contactReach*l.length))
	return until, until.After(l.until) && until.After(now)
}

// deviceLeases lists a device's leases, running or held, oldest first.
func (a Account) deviceLeases(d streams.DeviceID, half byte) []streams.LeaseID {
	var all []streams.LeaseID
	prefix := devicePrefix(a.account, d, half)
	eachKey(a.bucket(devicesBucket), prefix, func(key, _ []byte) bool {
		all = append(all, streams.LeaseID(id(key[len(prefix):], 0)))
		return true
	})
	return all
}

// OpenLeases counts the account's leases, up to most.
func (a Account) OpenLeases(most int) int {
	n := 0
	eachKey(a.bucket(leasesBucket), key8(uint64(a.account)), func(_, _ []byte) bool {
		n++
		return n < most
	})
	return n
}

// HasLease says whether there is a lease of that id.
func (a Account) HasLease(l streams.LeaseID) bool {
	return a.bucket(leasesBucket).Get(leaseKey(a.account, l)) != nil
}

// LeaseUntil is until when a lease lasts; false if there is none of that id.
func (a Account) LeaseUntil(l streams.LeaseID) (time.Time, bool, error) {
	got, ok, err := a.lease(l)
	return got.until, ok, err
}
