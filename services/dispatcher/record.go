package dispatcher

import (
	"encoding/binary"
	"errors"
	"math"
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

	state  streams.State // pending also while it is scheduled: see stands
	round  int
	tries  int             // how often it was handed out since it was last requeued
	lease  streams.LeaseID // the last one
	device streams.DeviceID
	reason string
	longer time.Time // a validity given later, if it ends after until
	steps  []step    // what changed it, in order
}

// maxSteps is the most that a record remembers: the first one, and those that came last. Used up by one
// message, whose timeline alone leaves steps out.
const maxSteps = 256

// remember appends a step. A phone that is handed what it holds again and again leaves two steps each time, and of
// those in a row that say the same the first and the last are kept.
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

// stands is the message's state.
func (r *record) stands() streams.State {
	if r.state == streams.Pending && !r.due.IsZero() {
		return streams.Scheduled
	}
	return r.state
}

// waiting says that the message is to be handed out.
func (r *record) waiting() bool { return r.known() && r.stands() == streams.Pending }

// valid is until when the message may be sent; zero: whenever.
func (r *record) valid() time.Time {
	if !r.until.IsZero() && r.longer.After(r.until) {
		return r.longer
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
	for _, t := range []time.Time{r.until, r.due, r.longer} {
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
	r.until, r.due, r.longer = fromMillis(d.uvarint()), fromMillis(d.uvarint()), fromMillis(d.uvarint())
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

// lease is what STATUS says of the messages of one pull. It is kept until none
// of them is under it.
type lease struct {
	device   streams.DeviceID // zero: the phone gave no name
	name     string
	start    time.Time
	until    time.Time
	length   time.Duration // what it was given for, and is renewed by
	reported time.Time     // the last report on one of its messages; zero: none
	policy   streams.LapsePolicy
	attempts int
	held     bool // it lapsed, and its messages stay with the device
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

// millis stores a time; the zero time is 0.
func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

func fromMillis(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// laneBytes is the length of a stored lane. Its byte order is the order of
// urgency.
const laneBytes = 1 + 8 + 1

func appendLane(b []byte, l streams.Lane) []byte {
	b = append(b, byte(l.Priority))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Target))
	return append(b, byte(l.Class))
}

// decoder takes values off the front of stored bytes. What is missing reads as
// zero and sets failed.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.failed, d.b = true, nil
		return nil
	}
	got := d.b[:n]
	d.b = d.b[n:]
	return got
}

func (d *decoder) byte() byte {
	if got := d.bytes(1); got != nil {
		return got[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if got := d.bytes(8); got != nil {
		return binary.BigEndian.Uint64(got)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	got, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return got
}

func (d *decoder) time() time.Time { return fromMillis(d.uint64()) }

func (d *decoder) lane() streams.Lane {
	priority, target, class := d.byte(), d.uint64(), d.byte()
	if priority > byte(streams.Low) || class > byte(streams.Other) {
		d.failed = true
		return streams.Lane{}
	}
	return streams.Lane{Priority: streams.Priority(priority), Target: streams.DeviceID(target), Class: streams.Class(class)}
}
