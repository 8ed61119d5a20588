package state

import (
	"fmt"

	"github.com/trunkline-sms/trunkline/streams"
)

var present = []byte{} // the value of a key that says everything itself

// reindex moves a message's index entries from where old has them to where r
// has them; r nil takes them away.
func (w *writer) reindex(m streams.MessageID, old, r *record) error {
	var from, to []byte
	if old.waiting() {
		from = waitingKey(w.account, old)
	}
	if r != nil && r.waiting() {
		to = waitingKey(w.account, r)
	}
	if err := w.move(waitingBucket, from, to, key8(uint64(m))); err != nil {
		return err
	}
	if err := w.addDepth(from, to); err != nil {
		return err
	}
	if err := w.reindexTimes(m, old, r); err != nil {
		return err
	}
	if err := w.reindexGroup(m, old, r); err != nil {
		return err
	}
	from, to = nil, nil
	if old.state == streams.Leased {
		from = memberKey(w.account, old.lease, m)
	}
	if r != nil && r.state == streams.Leased {
		to = memberKey(w.account, r.lease, m)
	}
	if err := w.move(membersBucket, from, to, present); err != nil {
		return err
	}
	if from != nil && string(from) != string(to) {
		return w.endIfEmpty(old.lease)
	}
	return nil
}

// reindexTimes moves a message's entries in the indexes by time: when it is due,
// and when its validity ends.
func (w *writer) reindexTimes(m streams.MessageID, old, r *record) error {
	due := func(r *record) []byte {
		if r == nil || !r.known() || r.currentState() != streams.Scheduled {
			return nil
		}
		return timeKey(r.due, w.account, m)
	}
	if err := w.move(scheduledBucket, due(old), due(r), present); err != nil {
		return err
	}
	valid := func(r *record) []byte {
		if r == nil || !r.known() || r.state.Terminal() || r.valid().IsZero() {
			return nil
		}
		return timeKey(r.valid(), w.account, m)
	}
	return w.move(validBucket, valid(old), valid(r), present)
}

// reindexGroup moves a message's entries in the indexes of groups and their names.
func (w *writer) reindexGroup(m streams.MessageID, old, r *record) error {
	member := func(r *record) []byte {
		if r == nil || r.group == 0 {
			return nil
		}
		return groupKey(w.account, r.group, m)
	}
	if err := w.move(groupsBucket, member(old), member(r), present); err != nil {
		return err
	}
	name := func(r *record) []byte {
		if r == nil || r.name == "" {
			return nil
		}
		return append(namePrefix(w.account, r.name), key8(uint64(m))...)
	}
	return w.move(namesBucket, name(old), name(r), present)
}

// move takes a key out of an index and puts another in; either may be nil.
func (w *writer) move(bucket, from, to, value []byte) error {
	if string(from) == string(to) {
		return nil
	}
	b := w.bucket(bucket)
	if from != nil {
		if err := b.Delete(from); err != nil {
			return fmt.Errorf("unindex in %s: %w", bucket, err)
		}
	}
	if to != nil {
		if err := b.Put(to, value); err != nil {
			return fmt.Errorf("index in %s: %w", bucket, err)
		}
	}
	return nil
}

func (w *writer) addDepth(from, to []byte) error {
	depth := w.Depth()
	switch {
	case from == nil && to != nil:
		depth++
	case from != nil && to == nil:
		depth--
	default:
		return nil
	}
	var err error
	if depth == 0 {
		// As in a file that never had any.
		err = w.bucket(metaBucket).Delete(depthKey)
	} else {
		err = w.bucket(metaBucket).Put(depthKey, key8(depth))
	}
	if err != nil {
		return fmt.Errorf("write depth: %w", err)
	}
	return nil
}

func (w *writer) changeLease(l streams.LeaseID, f func(*lease)) error {
	stored, ok, err := w.lease(l)
	if err != nil || !ok {
		return err
	}
	old := stored
	f(&stored)
	return w.putLease(l, &old, &stored)
}

// endIfEmpty forgets a lease that holds nothing any more.
func (w *writer) endIfEmpty(l streams.LeaseID) error {
	prefix := leaseKey(w.account, l)
	if key, _ := w.bucket(membersBucket).Cursor().Seek(prefix); len(key) > len(prefix) && string(key[:len(prefix)]) == string(prefix) {
		return nil
	}
	stored, ok, err := w.lease(l)
	if err != nil || !ok {
		return err
	}
	return w.putLease(l, &stored, nil)
}

// putLease writes a lease and its index entries. It is a new one if old is nil, and
// is deleted if l is nil.
func (w *writer) putLease(leaseID streams.LeaseID, old, l *lease) error {
	key := leaseKey(w.account, leaseID)
	b := w.bucket(leasesBucket)
	var err error
	if l == nil {
		err = b.Delete(key)
	} else {
		err = b.Put(key, l.encode())
	}
	if err != nil {
		return fmt.Errorf("write lease %s: %w", leaseID, err)
	}
	due := func(l *lease) []byte {
		if l == nil || l.held {
			return nil
		}
		return dueKey(l.until, w.account, leaseID)
	}
	device := func(l *lease) []byte {
		switch {
		case l == nil:
			return nil
		case l.held:
			return deviceKey(w.account, l.device, held, leaseID)
		}
		return deviceKey(w.account, l.device, running, leaseID)
	}
	if err := w.move(dueBucket, due(old), due(l), present); err != nil {
		return err
	}
	return w.move(devicesBucket, device(old), device(l), present)
}
