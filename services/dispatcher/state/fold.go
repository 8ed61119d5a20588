package state

import (
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Fold is the projection of one shard: ENQUEUE and STATUS into message states.
// docs/states.md draws what it does.
type Fold struct {
	Shard streams.Shard
}

// Schema is raised whenever the same events would give another file.
func (f Fold) Schema() int { return 5 }

// Sources names the shard's two streams, with all that is folded of them.
func (f Fold) Sources() []projection.Source {
	return []projection.Source{
		{Stream: streams.EnqueueStream(f.Shard), Subjects: streams.AcceptedSubjects(f.Shard)},
		{Stream: streams.StatusStream(f.Shard), Subjects: []string{">"}},
	}
}

// Apply folds one event. An event whose kind it does not know is set aside: it
// comes from a later version.
func (f Fold) Apply(tx *bolt.Tx, e projection.Event) error {
	if tx.Bucket(metaBucket) == nil {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("create bucket %s: %w", name, err)
			}
		}
	}
	w := writer{Account: Account{View: View{tx}}, seq: e.Seq, at: e.Time}
	horizon, _ := w.Horizon()
	w.oldest = streams.FirstIDAt(horizon)
	switch event.Kind(e.Kind) {
	case event.KindHorizon:
		return apply(e.Data, w.moveHorizon)
	case event.KindEnqueued, event.KindScheduled:
		return w.accept(e)
	}
	account, err := streams.ParseStatusSubject(e.Subject)
	if err != nil {
		return nil //nolint:nilerr // a subject of a later version
	}
	w.account = account
	if err := w.count(statusStream, e, e.Time); err != nil {
		return err
	}
	if strings.HasSuffix(e.Subject, ".decision") {
		// The fence: what the account's next decision must expect.
		if err := w.bucket(decisionsBucket).Put(key8(uint64(account)), key8(w.seq, millis(w.at))); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
	}
	switch event.Kind(e.Kind) {
	case event.KindReported:
		return apply(e.Data, w.reported)
	case event.KindLeased:
		return apply(e.Data, w.leased)
	case event.KindRenewed:
		return apply(e.Data, w.renewed)
	case event.KindLapsed:
		return apply(e.Data, w.lapsed)
	case event.KindCancelled:
		return apply(e.Data, func(e event.Cancelled) error { return w.ended(e.Messages, streams.Cancelled) })
	case event.KindExpired:
		return apply(e.Data, func(e event.Expired) error { return w.ended(e.Messages, streams.Expired) })
	case event.KindRequeued:
		return apply(e.Data, w.requeued)
	}
	return nil
}

func apply[E event.Event](data []byte, f func(E) error) error {
	e, err := event.Decode[E](data)
	if err != nil {
		return fmt.Errorf("%w: %w", projection.ErrUnreadable, err)
	}
	return f(e)
}

// writer applies one event.
type writer struct {
	Account // that the event is about
	seq     uint64
	at      time.Time         // when the engine stored the event
	oldest  streams.MessageID // messages before it are behind the horizon
}

// change lets f change a message's record, and keeps every index in step. It
// writes nothing if f says that nothing changed. A message behind the horizon is
// left alone. A message that is not known yet has a record too, a stub: its report
// may be folded before its enqueue, since the two streams are read side by side.
func (w *writer) change(m streams.MessageID, f func(*record) (bool, error)) error {
	if m < w.oldest {
		return nil
	}
	r, _, err := w.record(m)
	if err != nil {
		return err
	}
	old := r
	if changed, err := f(&r); err != nil || !changed {
		return err
	}
	if err := w.bucket(messagesBucket).Put(messageKey(w.account, m), r.encode()); err != nil {
		return fmt.Errorf("write message %s: %w", m, err)
	}
	return w.reindex(m, &old, &r)
}

// step is change for an event of STATUS: the record remembers the event.
func (w *writer) step(m streams.MessageID, f func(*record) (bool, error)) error {
	return w.change(m, func(r *record) (bool, error) {
		changed, err := f(r)
		if changed {
			r.remember(step{seq: w.seq, at: w.at, state: r.state})
		}
		return changed, err
	})
}

// accept folds a message of ENQUEUE.
func (w *writer) accept(e projection.Event) error {
	h, err := ReadEnvelope(e.Data)
	if err == nil && event.Kind(e.Kind) == event.KindScheduled {
		w.account, err = streams.ParseScheduledSubject(e.Subject)
	} else if err == nil {
		w.account, h.Lane, err = streams.ParseEnqueueSubject(e.Subject)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: read %s: %w", projection.ErrUnreadable, e.Kind, err)
	}
	if err := w.count(enqueueStream, e, h.StoredAt()); err != nil {
		return err
	}
	switch {
	case event.Kind(e.Kind) == event.KindScheduled:
		return w.scheduled(h)
	default:
		return w.enqueued(h)
	}
}

// enqueued folds a message that may be handed out, or one that was scheduled and
// is due. A second event of the same message changes nothing.
func (w *writer) enqueued(h Envelope) error {
	return w.change(h.ID, func(r *record) (bool, error) {
		if r.known() && r.due.IsZero() {
			return false, nil
		}
		r.accept(w.seq, h)
		r.due = time.Time{}
		return true, nil
	})
}

func (w *writer) scheduled(h Envelope) error {
	return w.change(h.ID, func(r *record) (bool, error) {
		if r.known() {
			return false, nil
		}
		r.accept(w.seq, h)
		return true, nil
	})
}

func (r *record) accept(seq uint64, h Envelope) {
	r.seq, r.lane, r.until, r.due, r.group, r.name = seq, h.Lane, h.Until, h.Due, h.Group, h.Name
}

// leased folds a page that was handed out. An attempt whose round is over is left
// out: the dispatcher decided before it had folded what ended the round.
func (w *writer) leased(e event.Leased) error {
	if _, taken, err := w.lease(e.Lease); err != nil || taken {
		return err // the id is another lease's
	}
	l := lease{
		device: e.Device, name: e.Name, start: e.At, until: e.Until, length: e.Until.Sub(e.At),
		policy: e.Policy, attempts: e.Attempts,
	}
	if err := w.putLease(e.Lease, nil, &l); err != nil {
		return err
	}
	for _, attempt := range e.Messages {
		err := w.step(attempt.ID, func(r *record) (bool, error) {
			if r.round != attempt.Round {
				return false, nil
			}
			switch r.state {
			case streams.Pending:
				r.tries++
			case streams.Leased: // its device holds it since an earlier lease lapsed, and is given it again
				if held, err := w.isHeld(r); err != nil || !held {
					return false, err
				}
			default:
				return false, nil
			}
			r.state, r.lease, r.device, r.reason = streams.Leased, e.Lease, e.Device, ""
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return w.endIfEmpty(e.Lease)
}

// renewed folds new ends of leases. If the last report on a lease has a time long
// after the renewal, a clock that was ahead gave it: it does not extend the lease.
func (w *writer) renewed(e event.Renewed) error {
	for _, renewal := range e.Leases {
		err := w.changeLease(renewal.Lease, func(l *lease) {
			l.until = renewal.Until
			if l.reported.Sub(e.At) > farAhead {
				l.reported = e.At
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lapsed ends a lease. The dispatcher that decided it may not have known of a
// report that was stored before. If that report makes the lease last, the lapse
// is void.
func (w *writer) lapsed(e event.Lapsed) error {
	if l, ok, err := w.lease(e.Lease); err != nil || ok && l.reportedUntil().After(e.At) {
		return err
	}
	for _, lapse := range e.Messages {
		err := w.step(lapse.ID, func(r *record) (bool, error) {
			if r.state != streams.Leased || r.lease != e.Lease || r.round != lapse.Round {
				return false, nil
			}
			switch lapse.To {
			case streams.Pending:
				r.round++
			case streams.Failed:
				r.reason = reasonLapsed
			}
			r.state = lapse.To
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	// What is left under it is held.
	return w.changeLease(e.Lease, func(l *lease) { l.held = true })
}

// ended ends messages that have not ended.
func (w *writer) ended(attempts []event.Attempt, as streams.State) error {
	for _, attempt := range attempts {
		err := w.step(attempt.ID, func(r *record) (bool, error) {
			if r.round != attempt.Round || r.state.Terminal() {
				return false, nil
			}
			r.state, r.reason = as, ""
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) requeued(e event.Requeued) error {
	for _, attempt := range e.Messages {
		err := w.step(attempt.ID, func(r *record) (bool, error) {
			if r.round != attempt.Round || r.state.Success() || r.state == streams.Pending {
				return false, nil
			}
			r.state, r.reason, r.tries = streams.Pending, "", 0
			r.round++
			r.extended = e.Until
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reasonLapsed is the reason of a message that failed because its lease lapsed.
const reasonLapsed = "lease_lapsed"

// reported folds what a phone says of messages. It counts whatever round it is for:
// an SMS that went out went out. A report of the device that holds a message also
// extends its lease, without any decision.
func (w *writer) reported(e event.Reported) error {
	at := w.at
	if !e.At.IsZero() { // earlier versions say nothing, and the engine's clock may have stepped
		at = e.At
	}
	for _, report := range e.Messages {
		err := w.step(report.ID, func(r *record) (bool, error) {
			holder, err := w.isHolder(r, e.Device)
			if err != nil {
				return false, err
			}
			if holder {
				err := w.changeLease(r.lease, func(l *lease) {
					if at.After(l.reported) {
						l.reported = at
					}
				})
				if err != nil {
					return false, err
				}
			}
			if !r.moves(report.State, holder) {
				return false, nil
			}
			r.state, r.reason = report.State, ""
			if report.State == streams.Failed {
				r.reason = report.Error
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// moves says whether a report changes the message. A success does whoever reports
// it, if it is further than what is known; a failure only if the device that holds
// the message reports it.
func (r *record) moves(to streams.State, holder bool) bool {
	if to.Success() {
		return to > r.state // the SMS went out, whatever was thought before
	}
	return to == streams.Failed && holder
}

// isHolder says whether a message is under a lease of that device. Devices are
// compared only when both lease and report name one.
func (a Account) isHolder(r *record, device streams.DeviceID) (bool, error) {
	if r.state != streams.Leased {
		return false, nil
	}
	l, ok, err := a.lease(r.lease)
	if err != nil || !ok {
		return false, err
	}
	return l.device == 0 || device == 0 || l.device == device, nil
}
