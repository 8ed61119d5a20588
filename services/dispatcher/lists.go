package dispatcher

import (
	"context"
	"slices"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// laneWork is what the projection knows of a lane's work.
type laneWork struct {
	lane     streams.Lane
	returned []candidate // handed out before, without their bodies
	first    candidate   // of what was never handed out; its seq is 0 if there is none
}

// heldBy lists what a device keeps after its leases lapsed, up to so much of it.
// Phones without a name cannot be told apart, so nothing is listed again to one.
func (v view) heldBy(a streams.AccountID, d streams.DeviceID, most int, passed func(uint64) bool) (all []candidate, err error) {
	if d == 0 {
		return nil, nil
	}
	prefix := devicePrefix(a, d, held)
	eachKey(v.bucket(devicesBucket), prefix, func(key, _ []byte) bool {
		l := id(key[len(prefix):], 0)
		eachKey(v.bucket(membersBucket), leaseKey(a, streams.LeaseID(l)), func(key, _ []byte) bool {
			m := streams.MessageID(id(key, 2))
			r, ok, failed := v.record(a, m)
			if err = failed; ok && r.known() && !passed(r.seq) {
				all = append(all, candidate{id: m, seq: r.seq})
			}
			return err == nil && len(all) < most
		})
		return err == nil && len(all) < most
	})
	return all, err
}

// lanes are those that a phone can carry, the most urgent first.
func lanes(q request.Pull) (all []streams.Lane) {
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

// work lists the lanes with work that a phone can carry, the most urgent first.
func (v view) work(q request.Pull, most int, passed func(uint64) bool) []laneWork {
	var all []laneWork
	for _, lane := range lanes(q) {
		work := laneWork{lane: lane, returned: v.handedOut(q.Account, lane, most, passed)}
		if fresh := v.waitingIn(q.Account, neverOut, lane, 1, passed); len(fresh) > 0 {
			work.first = fresh[0]
		}
		if len(work.returned) > 0 || work.first.seq != 0 {
			all = append(all, work)
		}
	}
	return all
}

// handedOut lists what waits in a lane that was handed out before.
func (v view) handedOut(a streams.AccountID, l streams.Lane, most int, passed func(uint64) bool) []candidate {
	return v.waitingIn(a, handedOut, l, most, passed)
}

func (v view) waitingIn(a streams.AccountID, half byte, l streams.Lane, most int, passed func(uint64) bool) (all []candidate) {
	prefix := lanePrefix(a, half, l)
	eachKey(v.bucket(waitingBucket), prefix, func(key, value []byte) bool {
		if c := (candidate{id: streams.MessageID(id(value, 0)), seq: id(key[len(prefix):], 0)}); !passed(c.seq) {
			all = append(all, c)
		}
		return len(all) < most
	})
	return all
}

// unreadablePerLane bounds how many messages that cannot be read a pull reads in
// a lane, to get past them. The next one passes over those. Only a broken
// disk uses it up; it hurts the account with those messages.
const unreadablePerLane = 1000

// addListed adds what the projection lists, whose bodies are read from ENQUEUE by
// sequence, and lists more for what cannot be read. It says whether it gave up.
func (s *shard) addListed(ctx context.Context, p *page, limit int, listed []candidate, list func(v view, most int) ([]candidate, error)) (gaveUp bool, err error) {
	before := len(p.candidates)
	listed = listed[:min(limit-before, len(listed))]
	for unread := 0; len(listed) > 0; {
		if err := s.read(ctx, listed); err != nil {
			return false, err
		}
		missed := 0
		for _, c := range listed {
			if c.body == nil {
				missed++
			} else if len(p.candidates) < limit {
				p.candidates = append(p.candidates, c)
			}
		}
		if unread += missed; missed == 0 || unread >= unreadablePerLane || len(p.candidates) == limit {
			return missed > 0 && len(p.candidates) < limit, nil
		}
		err := s.view(func(v view) (err error) {
			listed, err = list(v, len(p.candidates)-before+min(max(2*unread, limit), unreadablePerLane-unread))
			return err
		})
		if err != nil {
			return false, err
		}
		listed = slices.DeleteFunc(listed, func(c candidate) bool {
			return slices.ContainsFunc(p.candidates, func(has candidate) bool { return has.id == c.id })
		})
	}
	return false, nil
}
