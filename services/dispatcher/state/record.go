package state

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// record is what the streams say of one message. Its first fields come from
// ENQUEUE, the others from STATUS alone, so that the two streams may be folded
// in any interleaving.
type record struct {
	seq   uint64 // of its event in ENQUEUE; 0: a stub, its enqueue has not come yet
	lane  streams.Lane
	until time.Time         // its validity; zero: without end
	due   time.Time         // while it is scheduled; zero: it is not, or was released
	group streams.MessageID // the first message of its group; zero: it is a group alone
	name  string            // the sender's id of the group, in its first message

	state    streams.State // pending also while it is scheduled: see currentState
	round    int
	tries    int             // how often it was handed out since it was last requeued
	lease    streams.LeaseID // the last one
	device   streams.DeviceID
	reason   string
	extended time.Time // a validity given later, if it ends after until
	steps    []step    // what changed it, in order
}

// Limit: the record of a message remembers 256 steps: the first one, and those that came last. Beyond it: its timeline
// leaves out those in between.
// Used up by: phones that are handed the same message, or report on it, again and again. Hurts: nobody else: it is the
// timeline of that message alone. Test: TestRecord_Steps.
const maxSteps = 256

// remember appends a step. A phone that holds a message may be handed it again and again, and each time leaves two
// steps. So of steps in a row to the same state only the first and the last are kept.
func (r *record) remember(s step) {
	switch n := len(r.steps); {
	case n >= 2 && r.steps[n-1].state == s.state && r.steps[n-2].state == s.state:
		r.steps[n-1] = s
		return
	case n >= maxSteps:
		r.steps = append(r.steps[:1], r.steps[2:]...)
	}
	r.steps = append(r.steps, s)
}

// step is a STATUS event that changed a message.
type step struct {
	seq   uint64
	at    time.Time // when the engine stored it
	state streams.State
}

func newRecord() record { return record{state: streams.Pending} }

// known says that the message was accepted, as far as the fold knows.
func (r *record) known() bool { return r.seq != 0 }

// currentState is the message's state.
func (r *record) currentState() streams.State {
	if r.state == streams.Pending && !r.due.IsZero() {
		return streams.Scheduled
	}
	return r.state
}

// waiting says that the message is to be handed out.
func (r *record) waiting() bool { return r.known() && r.currentState() == streams.Pending }

// valid is until when the message may be sent; zero: whenever.
func (r *record) valid() time.Time {
	if !r.until.IsZero() && r.extended.After(r.until) {
		return r.extended
	}
	return r.until
}

// expired says that its validity is over.
func (r *record) expired(now time.Time) bool {
	valid := r.valid()
	return !valid.IsZero() && !now.Before(valid)
}

// fresh says that the message was never handed out.
func (r *record) fresh() bool { return r.state == streams.Pending && r.round == 0 }

// changedBy says whether a STATUS event changed the message.
func (r *record) changedBy(seq uint64) bool {
	for _, step := range r.steps {
		if step.seq == seq {
			return true
		}
	}
	return false
}

// recordFormat leads a stored record. Another number is another schema.
const recordFormat = 2

func (r *record) encode() []byte {
	b := make([]byte, 0, 64+len(r.reason)+3*len(r.steps))
	b = append(b, recordFormat)
	b = binary.BigEndian.AppendUint64(b, r.seq)
	b = appendLane(b, r.lane)
	for _, t := range []time.Time{r.until, r.due, r.extended} {
		b = binary.AppendUvarint(b, millis(t))
	}
	b = binary.AppendUvarint(b, uint64(r.group))
	b = binary.AppendUvarint(b, uint64(len(r.name)))
	b = append(b, r.name...)
	b = append(b, byte(r.state))
	b = binary.AppendUvarint(b, uint64(r.round))
	b = binary.AppendUvarint(b, uint64(r.tries))
	b = binary.BigEndian.AppendUint64(b, uint64(r.lease))
	b = binary.BigEndian.AppendUint64(b, uint64(r.device))
	b = binary.AppendUvarint(b, uint64(len(r.reason)))
	b = append(b, r.reason...)
	b = binary.AppendUvarint(b, uint64(len(r.steps)))
	for _, step := range r.steps {
		b = binary.AppendUvarint(b, step.seq)
		b = binary.AppendUvarint(b, millis(step.at))
		b = append(b, byte(step.state))
	}
	return b
}

func decodeRecord(b []byte) (record, error) {
	d := decoder{b: b}
	if d.byte() != recordFormat {
		return record{}, errors.New("decode record: another format")
	}
	r := record{seq: d.uint64(), lane: d.lane()}
	r.until, r.due, r.extended = fromMillis(d.uvarint()), fromMillis(d.uvarint()), fromMillis(d.uvarint())
	r.group = streams.MessageID(d.uvarint())
	r.name = string(d.bytes(d.uvarint()))
	r.state = streams.State(d.byte())
	r.round, r.tries = int(d.uvarint()), int(d.uvarint())
	r.lease, r.device = streams.LeaseID(d.uint64()), streams.DeviceID(d.uint64())
	r.reason = string(d.bytes(d.uvarint()))
	if n := d.uvarint(); n <= uint64(len(d.b)) {
		r.steps = make([]step, n)
		for i := range r.steps {
			r.steps[i] = step{seq: d.uvarint(), at: fromMillis(d.uvarint()), state: streams.State(d.byte())}
		}
	} else {
		d.failed = true
	}
	if d.failed || len(d.b) != 0 || r.state > streams.Delivered {
		return record{}, errors.New("decode record: damaged")
	}
	return r, nil
}
