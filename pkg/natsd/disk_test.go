package natsd

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

const mib = 1 << 20

// Senders are refused below the reserve, everything at its last quarter, and
// each is admitted again only when there is some more room than was missed.
func TestDisk_Thresholds(t *testing.T) {
	type step struct {
		free           uint64 // in MiB, of 1000
		room, writable bool
	}
	for name, test := range map[string]struct {
		percent int
		least   int64
		steps   []step
	}{
		"percent": {5, 20 * mib, []step{
			{51, true, true}, {50, true, true}, {49, false, true}, {50, false, true}, {56, false, true}, {57, true, true},
			{13, false, true}, {12, false, false}, {13, false, false}, {15, false, true}, {100, true, true},
		}},
		"least":         {1, 200 * mib, []step{{200, true, true}, {199, false, true}, {224, false, true}, {225, true, true}}},
		"floor is 16":   {50, 0, []step{{16, false, true}, {15, false, false}, {17, false, false}, {18, false, true}}},
		"nothing kept":  {0, 0, []step{{1, true, true}, {0, true, true}}},
		"full at start": {5, 0, []step{{0, false, false}, {900, true, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := space{total: 1000 * mib, noFiles: true}
				d := diskOf(&now, zap.NewNop())
				d.percent, d.least = test.percent, test.least
				for i, want := range test.steps {
					now.free = want.free * mib
					time.Sleep(measureEvery)
					room, writable := d.Room(), d.Writable()
					if (room == nil) != want.room || (writable == nil) != want.writable {
						t.Errorf("step %d, %d MiB free: got %v and %v, want room %t, writable %t", i, want.free, room, writable, want.room, want.writable)
					}
					if room != nil && !errors.Is(room, bus.ErrFull) || writable != nil && !errors.Is(writable, bus.ErrFull) {
						t.Errorf("step %d: got %v and %v, want them to be ErrFull", i, room, writable)
					}
				}
			})
		})
	}
}

// Who knows how much will be stored is refused before the reserve is touched.
func TestDisk_RoomFor(t *testing.T) {
	now := space{total: 1000 * mib, free: 150 * mib, noFiles: true}
	d := diskOf(&now, zap.NewNop())
	d.percent = 5
	for bytes, want := range map[int64]bool{0: true, 100 * mib: true, 100*mib + 1: false, 1 << 40: false} {
		if err := d.RoomFor(bytes); (err == nil) != want || err != nil && !errors.Is(err, bus.ErrFull) {
			t.Errorf("%d bytes: got %v, want room %t", bytes, err, want)
		}
	}
}

// What else keeps anything from being stored.
func TestDisk_Writable(t *testing.T) {
	for name, test := range map[string]struct {
		now  space
		fail error
		want string
		full bool
	}{
		"room":          {space{total: 100 * mib, free: 50 * mib, files: 10_000}, nil, "", false},
		"no files left": {space{total: 100 * mib, free: 50 * mib, files: 10}, nil, "make room", true},
		"read-only":     {space{total: 100 * mib, free: 50 * mib, noFiles: true, readOnly: true}, nil, "read-only", false},
		"failed write":  {space{total: 100 * mib, free: 50 * mib, noFiles: true}, errors.New("the engine cannot write"), "cannot write", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := diskOf(&test.now, zap.NewNop())
			d.percent = 5
			d.fail(test.fail)
			err := d.Writable()
			if test.want == "" {
				if err != nil {
					t.Errorf("got %v, want it to be writable", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, bus.ErrNotStored) || errors.Is(err, bus.ErrFull) != test.full {
				t.Errorf("got %v, want an ErrNotStored with %q, full %t", err, test.want, test.full)
			}
			if d.Room() == nil {
				t.Error("got room where nothing can be stored")
			}
			d.fail(nil)
		})
	}
}

// A change is told once, however often it is asked, and the disk is measured
// once a second.
func TestDisk_SaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.InfoLevel)
		now := space{total: 100 * mib, used: 20 * mib, free: 80 * mib, noFiles: true}
		d := diskOf(&now, zap.New(core))
		d.percent = 10
		if got := d.Used(); got != 20 {
			t.Errorf("got %d %% used, want 20", got)
		}
		now.used, now.free = 95*mib, 5*mib
		if err := d.Room(); err != nil {
			t.Errorf("got %v from a measurement of this second, want room", err)
		}
		for range 3 {
			time.Sleep(measureEvery)
			if err := d.Room(); err == nil || !strings.Contains(err.Error(), "has 5 MiB free and keeps 10 MiB") {
				t.Errorf("got %v, want both numbers", err)
			}
		}
		now.used, now.free = 20*mib, 80*mib
		time.Sleep(measureEvery)
		if err := d.Room(); err != nil {
			t.Error(err)
		}
		var said []string
		for _, line := range logged.All() {
			said = append(said, line.Message)
		}
		if len(said) != 2 || !strings.Contains(said[0], "nearly full") || !strings.Contains(said[1], "room again") {
			t.Errorf("got the lines %q, want one of each change", said)
		}
	})
}

// What cannot be measured is taken for room.
func TestDisk_NotMeasured(t *testing.T) {
	d := newDisk(Options{Dir: "/nowhere/at/all", ReservePercent: 90, Log: zap.NewNop()})
	if err := d.Room(); err != nil {
		t.Errorf("got %v, want room", err)
	}
}

func TestMeasureSpace(t *testing.T) {
	got, err := measureSpace(t.TempDir())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil || got.total == 0 || got.used+got.free > got.total || got.readOnly {
		t.Errorf("got %+v, %v", got, err)
	}
}

func diskOf(now *space, log *zap.Logger) *Disk {
	d := newDisk(Options{Log: log})
	d.measure = func(string) (space, error) { return *now, nil }
	return d
}
