package state

import (
	"time"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// IsOffered says whether a message that a lane's consumer gave at a sequence was
// never handed out, and is to be handed out from there. A scheduled message may
// stand in the stream twice, enqueued by two dispatchers: the first one counts.
func (a Account) IsOffered(p Place) (bool, error) {
	r, _, err := a.record(p.ID)
	if err != nil {
		return false, err
	}
	return r.fresh() && (!r.waiting() || r.seq == p.Seq), nil
}

// Attempt gives the attempt in which a message may be handed to a device now;
// false if it may not. Until is its validity as its event says it, for a message
// that is not folded yet.
func (a Account) Attempt(m streams.MessageID, until time.Time, to streams.DeviceID, now time.Time) (event.Attempt, bool, error) {
	r, ok, err := a.record(m)
	if err != nil {
		return event.Attempt{}, false, err
	}
	if !ok || !r.known() {
		r.until = until
	}
	if r.expired(now) {
		return event.Attempt{}, false, nil
	}
	offered := r.state == streams.Pending
	if r.state == streams.Leased {
		l, ok, err := a.lease(r.lease)
		if err != nil {
			return event.Attempt{}, false, err
		}
		offered = ok && l.held && l.device == to
	}
	return event.Attempt{ID: m, Round: r.round}, offered, nil
}

// IsUnder says whether a message is under a lease, and whether it was never
// handed out at all.
func (a Account) IsUnder(l streams.LeaseID, m streams.MessageID) (under, fresh bool, err error) {
	r, _, err := a.record(m)
	return r.state == streams.Leased && r.lease == l, r.fresh(), err
}

// EachReturned calls f with the account and the lane of each message that can be
// handed out again because of a lapse or a requeue, once that event is folded. A
// message that its device keeps is in the device's own lane.
func (v View) EachReturned(e projection.Event, f func(streams.AccountID, streams.Lane)) error {
	account, err := streams.ParseStatusSubject(e.Subject)
	if err != nil {
		return err
	}
	var messages []streams.MessageID
	switch event.Kind(e.Kind) {
	case event.KindLapsed:
		lapsed, err := event.Decode[event.Lapsed](e.Data)
		if err != nil {
			return err
		}
		for _, lapse := range lapsed.Messages {
			messages = append(messages, lapse.ID)
		}
	case event.KindRequeued:
		requeued, err := event.Decode[event.Requeued](e.Data)
		if err != nil {
			return err
		}
		for _, attempt := range requeued.Messages {
			messages = append(messages, attempt.ID)
		}
	}
	a := v.Account(account)
	for _, m := range messages {
		r, _, err := a.record(m)
		if err != nil {
			return err
		}
		held, err := a.isHeld(&r)
		switch {
		case err != nil:
			return err
		case r.waiting():
			f(account, r.lane)
		case held && r.state == streams.Leased && r.device != 0:
			f(account, streams.Lane{Target: r.device, Class: streams.Text})
		}
	}
	return nil
}
