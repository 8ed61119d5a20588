package state

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Place is a message, and the sequence of its event in ENQUEUE.
type Place struct {
	ID  streams.MessageID
	Seq uint64
}

// LaneWork is what waits in a lane.
type LaneWork struct {
	Lane     streams.Lane
	Returned []Place // handed out before and came back, oldest first
	First    Place   // of what was never handed out; its Seq is 0 if there is none
}

// Lanes are the lanes whose messages a phone can send, the most urgent first.
func Lanes(q request.Pull) (all []streams.Lane) {
	targets := []streams.DeviceID{0}
	if q.Device != 0 {
		targets = []streams.DeviceID{q.Device, 0}
	}
	classes := []streams.Class{streams.Text}
	if q.Other {
		classes = append(classes, streams.Other)
	}
	for _, priority := range []streams.Priority{streams.High, streams.Normal, streams.Low} {
		for _, target := range targets {
			for _, class := range classes {
				all = append(all, streams.Lane{Target: target, Priority: priority, Class: class})
			}
		}
	}
	return all
}

// Work lists the lanes with messages that a phone can send, the most urgent first,
// each with up to most messages that came back. It passes over the sequences that
// skip names.
func (a Account) Work(q request.Pull, most int, skip func(seq uint64) bool) []LaneWork {
	var all []LaneWork
	for _, lane := range Lanes(q) {
		work := LaneWork{Lane: lane, Returned: a.Returned(lane, most, skip)}
		if fresh := a.waitingIn(neverOut, lane, 1, skip); len(fresh) > 0 {
			work.First = fresh[0]
		}
		if len(work.Returned) > 0 || work.First.Seq != 0 {
			all = append(all, work)
		}
	}
	return all
}

// Returned lists up to most messages that wait in a lane and were handed out
// before, oldest first.
func (a Account) Returned(l streams.Lane, most int, skip func(seq uint64) bool) []Place {
	return a.waitingIn(handedOut, l, most, skip)
}

func (a Account) waitingIn(half byte, l streams.Lane, most int, skip func(uint64) bool) (all []Place) {
	prefix := lanePrefix(a.account, half, l)
	eachKey(a.bucket(waitingBucket), prefix, func(key, value []byte) bool {
		if p := (Place{ID: streams.MessageID(id(value, 0)), Seq: id(key[len(prefix):], 0)}); !skip(p.Seq) {
			all = append(all, p)
		}
		return len(all) < most
	})
	return all
}

// HeldBy lists up to most messages that a device keeps after its leases lapsed.
// Phones without a name cannot be told apart, so nothing is held for one.
func (a Account) HeldBy(d streams.DeviceID, most int, skip func(seq uint64) bool) (all []Place, err error) {
	if d == 0 {
		return nil, nil
	}
	prefix := devicePrefix(a.account, d, held)
	eachKey(a.bucket(devicesBucket), prefix, func(key, _ []byte) bool {
		l := id(key[len(prefix):], 0)
		eachKey(a.bucket(membersBucket), leaseKey(a.account, streams.LeaseID(l)), func(key, _ []byte) bool {
			m := streams.MessageID(id(key, 2))
			r, ok, failed := a.record(m)
			if err = failed; ok && r.known() && !skip(r.seq) {
				all = append(all, Place{ID: m, Seq: r.seq})
			}
			return err == nil && len(all) < most
		})
		return err == nil && len(all) < most
	})
	return all, err
}

// OldestWaiting is when the oldest waiting message was made: the first one of one
// of the lanes. It costs one seek for each lane that has any.
func (v View) OldestWaiting() (time.Time, bool) {
	const prefix = 8 + 1 + laneBytes
	oldest := ^streams.MessageID(0)
	c := v.bucket(waitingBucket).Cursor()
	for key, value := c.First(); key != nil; {
		oldest = min(oldest, streams.MessageID(id(value, 0)))
		past := append([]byte(nil), key[:prefix]...)
		past = append(past, 255, 255, 255, 255, 255, 255, 255, 255)
		key, value = c.Seek(past)
	}
	if oldest == ^streams.MessageID(0) {
		return time.Time{}, false
	}
	return oldest.Time(), true
}
