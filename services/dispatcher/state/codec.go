package state

import (
	"encoding/binary"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

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
