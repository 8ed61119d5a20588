package natsd

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

const (
	// What is written until the next measurement has to fit into the reserve.
	//
	// Limit: a measurement of the disk may be 1 s old.
	// Used up by: a disk that fills within that time. Hurts: nobody: the reserve
	// covers that. Test: TestDisk_NotMeasured.
	measureEvery = time.Second
	// The engine must not run into a full disk: when a write to a stream has
	// failed, it never writes to that stream again.
	//
	// Limit: everything leaves free a quarter of the reserve, at most 16 MiB. Beyond
	// it: 503 for pulls and reports too, and no start.
	// Used up by: phones' reports, and other programs that write to the disk. Hurts:
	// all accounts: nothing is stored. Test: TestDisk_Thresholds.
	mostFloor = 16 << 20
	// fewFiles counts as none: each atomic batch makes files of its own.
	fewFiles = 256
)

// Disk is the file system of a data directory: how full it is, and what may
// still be stored on it. It is measured when a method is called, at most once a
// second.
//
// Senders leave a reserve free, so that phones can still report what they have
// sent. Phones leave a part of that free, the floor, so that the engine never
// fails to write.
type Disk struct {
	path    string
	percent int
	least   int64
	measure func(path string) (space, error)
	log     *zap.Logger

	mu       sync.Mutex
	measured time.Time
	found    space
	failed   error // of measuring
	low      bool  // free space is below the reserve, or was and is still close to it
	out      bool  // the same with the floor
	broken   error // why the engine stores nothing
}

// space is what a file system has, in bytes and, if it counts them, in files.
type space struct {
	total, free, used uint64 // used and free are not all: some is kept for root
	files             uint64 // free ones
	noFiles           bool   // it does not bound them
	readOnly          bool
}

func newDisk(o Options) *Disk {
	return &Disk{path: o.Dir, percent: o.ReservePercent, least: o.ReserveBytes, measure: measureSpace, log: o.Log}
}

// Room is nil while senders' messages may be accepted. Otherwise its error says
// why not: free space is below the reserve, or Writable fails. It is nil again when
// free space is somewhat above the reserve. The error is bus.ErrFull where the
// disk is full, and always bus.ErrNotStored.
func (d *Disk) Room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	if d.low {
		return fmt.Errorf("%w: the disk of %s has %s free and keeps %s for reports: make room", bus.ErrFull, d.path, inMiB(d.found.free), inMiB(d.reserve()))
	}
	return nil
}

// RoomFor is Room, as it would be once so many more bytes are stored.
func (d *Disk) RoomFor(bytes int64) error {
	if err := d.Room(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil && d.found.free < d.reserve()+uint64(bytes) {
		return fmt.Errorf("%w: the disk of %s has %s free, which is too little for %s more: make room", bus.ErrFull, d.path, inMiB(d.found.free), inMiB(uint64(bytes)))
	}
	return nil
}

// Writable is nil while anything may be stored. Otherwise its error says why
// nothing may: the reserve is used up as well, or the disk cannot be written. The
// errors are those of Room.
func (d *Disk) Writable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writable()
}

// Used is how full the disk is in percent, 0 where that is not known.
func (d *Disk) Used() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	if d.found.used+d.found.free == 0 {
		return 0
	}
	return int(d.found.used * 100 / (d.found.used + d.found.free))
}

func (d *Disk) writable() error {
	d.look()
	switch {
	case d.found.readOnly:
		return fmt.Errorf("%w: the disk of %s is read-only", bus.ErrNotStored, d.path)
	case d.out:
		return fmt.Errorf("%w: the disk of %s has %s free: make room", bus.ErrFull, d.path, inMiB(d.found.free))
	case d.broken != nil:
		return fmt.Errorf("%w: %w", bus.ErrNotStored, d.broken)
	}
	return nil
}

// look measures if the last measurement is old. A disk that cannot be measured
// counts as one with room: the engine finds out.
func (d *Disk) look() {
	now := time.Now()
	if age := now.Sub(d.measured); !d.measured.IsZero() && age >= 0 && age < measureEvery {
		return
	}
	d.measured = now
	found, err := d.measure(d.path)
	if err != nil {
		if d.failed == nil && !errors.Is(err, errors.ErrUnsupported) {
			d.log.Warn("free space is not known", zap.String("path", d.path), zap.Error(err))
		}
		d.found, d.failed, d.low, d.out = space{}, err, false, false
		return
	}
	before := d.found.readOnly
	d.found, d.failed = found, nil
	fields := []zap.Field{zap.String("path", d.path), zap.String("free", inMiB(found.free)), zap.String("reserve", inMiB(d.reserve()))}
	if found.readOnly != before {
		d.log.Warn(map[bool]string{true: "the disk is read-only: nothing is stored", false: "the disk can be written again"}[found.readOnly], fields...)
	}
	if low := d.below(d.low, d.reserve()); low != d.low {
		d.low = low
		d.log.Warn(map[bool]string{true: "the disk is nearly full: senders get 503", false: "the disk has room again for senders"}[low], fields...)
	}
	if out := d.below(d.out, d.floor()); out != d.out {
		d.out = out
		d.log.Warn(map[bool]string{true: "the disk is full: nothing is stored", false: "the disk has room again for reports"}[out], fields...)
	}
}

// below reports whether less than limit is free. To leave that state takes an
// eighth more than to enter it, so that requests are not accepted and rejected in
// turn.
func (d *Disk) below(already bool, limit uint64) bool {
	files := uint64(fewFiles)
	if already {
		limit += limit / 8
		files *= 2
	}
	return limit > 0 && (d.found.free < limit || !d.found.noFiles && d.found.files < files)
}

// reserve is how many bytes senders' messages leave free.
func (d *Disk) reserve() uint64 {
	return max(d.found.total/100*uint64(d.percent), uint64(d.least))
}

// floor is how many bytes everything leaves free.
func (d *Disk) floor() uint64 { return min(d.reserve()/4, mostFloor) }

// full reports whether even the floor is used up.
func (d *Disk) full() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	return d.out
}

// fail notes why the engine stores nothing; nil means that it does again.
func (d *Disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = err
}

func inMiB(bytes uint64) string { return fmt.Sprintf("%d MiB", bytes>>20) }
