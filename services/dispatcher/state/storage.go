package state

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
)

// The streams whose bytes are counted, as keys name them.
const (
	enqueueStream = byte(0)
	statusStream  = byte(1)
)

func storedKey(a streams.AccountID, stream byte) []byte { return append(key8(uint64(a)), stream) }

// days are the bytes of an account's events in a stream, by the UTC day on which
// they were stored, the earliest first. The day of a message is the one in its
// envelope. An event behind the horizon is in no day. The stream keeps events for
// some days longer than they are counted here, so that a rebuild counts the same.
type days []day

type day struct{ number, bytes uint64 }

const dayBytes = 16

func dayOf(t time.Time) uint64 { return millis(t) / uint64((24*time.Hour)/time.Millisecond) }

// firstDay is the first day that is wholly after the horizon.
func firstDay(horizon time.Time) uint64 {
	if horizon.IsZero() {
		return 0
	}
	return dayOf(horizon.Add(24*time.Hour - time.Millisecond))
}

// storedBytes is how many bytes an event takes in its stream's file.
func storedBytes(e projection.Event) uint64 {
	n := 22 + 8 + len(e.Subject) + len(e.Data) // of each record
	if len(e.Header) > 0 {
		n += 4 + len("NATS/1.0\r\n\r\n")
		for name, values := range e.Header {
			for _, value := range values {
				n += len(name) + len(value) + len(": \r\n")
			}
		}
	}
	return uint64(n)
}

// count adds an event that was stored at a time to the bytes of its account.
func (w *writer) count(stream byte, e projection.Event, at time.Time) error {
	horizon, _ := w.Horizon()
	number := dayOf(at)
	if number < firstDay(horizon) {
		return nil
	}
	key := storedKey(w.account, stream)
	all, err := decodeDays(w.bucket(storedBucket).Get(key))
	if err != nil {
		return err
	}
	if err := w.bucket(storedBucket).Put(key, all.add(number, storedBytes(e)).encode()); err != nil {
		return fmt.Errorf("count bytes: %w", err)
	}
	return nil
}

// dropDays forgets the days that are not wholly after the horizon. Events of STATUS
// that seem to be stored after the horizon event was made have their time from a
// clock that was ahead, and are moved to that day.
func (w *writer) dropDays(horizon, made time.Time) error {
	b, first := w.bucket(storedBucket), firstDay(horizon)
	changed := map[string]days{}
	var failed error
	eachKey(b, nil, func(key, value []byte) bool {
		all, err := decodeDays(value)
		failed = err
		if err != nil {
			return false
		}
		had := len(all)
		var moved bool
		if key[len(key)-1] == statusStream {
			all, moved = all.by(dayOf(made))
		}
		for len(all) > 0 && all[0].number < first {
			all = all[1:]
		}
		if moved || len(all) != had {
			changed[string(key)] = all
		}
		return true
	})
	for key, all := range changed {
		if failed != nil {
			break
		}
		if len(all) == 0 {
			failed = b.Delete([]byte(key))
		} else {
			failed = b.Put([]byte(key), all.encode())
		}
	}
	if failed != nil {
		return fmt.Errorf("drop days: %w", failed)
	}
	return nil
}

// EachStored calls f with the bytes that an account's events take in ENQUEUE or
// in STATUS, for each account and stream that has any.
func (v View) EachStored(f func(a streams.AccountID, status bool, bytes uint64)) (err error) {
	eachKey(v.bucket(storedBucket), nil, func(key, value []byte) bool {
		var all days
		if all, err = decodeDays(value); err != nil {
			return false
		}
		f(streams.AccountID(id(key, 0)), key[len(key)-1] == statusStream, all.sum())
		return true
	})
	return err
}

func (d days) sum() (n uint64) {
	for _, day := range d {
		n += day.bytes
	}
	return n
}

func (d days) add(number, bytes uint64) days {
	i := len(d)
	for i > 0 && d[i-1].number >= number {
		i--
	}
	if i == len(d) || d[i].number != number { // clocks can step back
		d = append(d, day{})
		copy(d[i+1:], d[i:])
		d[i] = day{number: number}
	}
	d[i].bytes += bytes
	return d
}

// by moves the bytes of days after last into last, and says whether there were any.
func (d days) by(last uint64) (days, bool) {
	i := len(d)
	var late uint64
	for i > 0 && d[i-1].number > last {
		i--
		late += d[i].bytes
	}
	if late == 0 {
		return d, false
	}
	return d[:i].add(last, late), true
}

func (d days) encode() []byte {
	b := make([]byte, 0, dayBytes*len(d))
	for _, day := range d {
		b = binary.BigEndian.AppendUint64(b, day.number)
		b = binary.BigEndian.AppendUint64(b, day.bytes)
	}
	return b
}

func decodeDays(b []byte) (days, error) {
	if len(b)%dayBytes != 0 || b != nil && len(b) == 0 {
		return nil, fmt.Errorf("decode days: damaged")
	}
	all := make(days, 0, len(b)/dayBytes+1)
	for ; len(b) > 0; b = b[dayBytes:] {
		all = append(all, day{id(b, 0), id(b, 1)})
	}
	return all, nil
}
