package simulation

import (
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// stepClock steps the machine's clock, and puts it right after a while: before
// the product believes the step, or long after it; while it runs, or while it
// does not.
func (w *world) stepClock() {
	w.model.mu.Lock()
	w.model.stats.Steps++
	w.model.mu.Unlock()
	soon := time.Duration(w.rng.Int64N(int64(clock.Settles - time.Minute)))
	switch w.rng.IntN(4) {
	case 0: // a step that is taken back soon is none
		by := w.amount(400 * 24 * time.Hour)
		right := w.model.doubt(by, clock.Bound)
		w.machine.Step(by)
		time.Sleep(soon)
		w.machine.Right()
		right()
	case 1: // one that stands is believed, unless it is too large
		by := w.amount(2 * time.Hour)
		right := w.model.doubt(by, 2*time.Hour)
		w.machine.Step(by)
		time.Sleep(clock.Settles + soon)
		w.machine.Right()
		time.Sleep(clock.Settles + time.Minute)
		right()
	case 2: // the product begins on a wrong clock
		by := w.amount(8 * 24 * time.Hour)
		right := w.model.doubt(by, clock.Away)
		w.model.crashed()
		w.stop()
		w.machine.Step(by)
		go func() {
			time.Sleep(soon)
			w.machine.Right()
		}()
		w.start() // far ahead it waits until the clock is right
		time.Sleep(2*clock.Settles + time.Minute)
		right()
	case 3: // the clock is wrong for a moment, and the product starts again
		by := w.amount(400 * 24 * time.Hour)
		right := w.model.doubt(by, clock.Away)
		w.machine.Step(by)
		go func() {
			time.Sleep(soon)
			w.machine.Right()
		}()
		w.crash()
		time.Sleep(2*clock.Settles + time.Minute)
		right()
	}
}

// amount draws a step, forward or back, small or as large as that.
func (w *world) amount(most time.Duration) time.Duration {
	by := time.Duration(w.rng.Int64N(int64(most)))
	if w.rng.IntN(2) == 0 {
		by = time.Duration(w.rng.Int64N(int64(2 * time.Hour)))
	}
	if w.rng.IntN(2) == 0 {
		by = -by
	}
	return by
}

// wrong is a time in which the machine's clock may be wrong, or the product may
// not know yet that it is right again.
type wrong struct {
	from, to time.Time // zero: it has not ended
	by       time.Duration
	sure     time.Duration // how far what cannot be taken back may go by it, ahead only
}

// doubt says that the machine's clock may be wrong from now on, until right is called. The product believes a step of so
// much. A time that was sure once it does not doubt later: the clock may go there again at once, and a start goes on from
// there.
func (m *model) doubt(by, believes time.Duration) (right func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var known time.Duration // how far ahead of the true time it may have been
	for _, one := range m.wrong {
		known = max(known, one.sure)
	}
	one := &wrong{from: time.Now(), by: by, sure: max(0, by)}
	if by > believes+known {
		one.sure = known
	}
	m.wrong = append(m.wrong, one)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		one.to = time.Now()
	}
}

// overlaps says whether it was so at some time between two.
func (w *wrong) overlaps(from, to time.Time) bool {
	return !w.from.After(to) && (w.to.IsZero() || !w.to.Before(from))
}

// furthest is the latest time that the product may have taken for sure between two times.
func (m *model) furthest(from, to time.Time) time.Time {
	furthest := to
	for _, one := range m.wrong {
		if one.sure > 0 && one.overlaps(from, to) {
			until := to
			if !one.to.IsZero() && one.to.Before(to) {
				until = one.to
			}
			if at := until.Add(one.sure); at.After(furthest) {
				furthest = at
			}
		}
	}
	return furthest
}

// doubted says whether the product's clock may have been wrong at a time.
func (m *model) doubted(at time.Time) bool {
	for _, one := range m.wrong {
		if one.overlaps(at, at) {
			return true
		}
	}
	return false
}

// counts says whether a message that was stored at a time may count in a month.
func (m *model) counts(in string, at time.Time) bool {
	const late = 10 * time.Minute // a grant is older than what it is for, and a month may begin late
	from, to := at.Add(-late), at
	for _, one := range m.wrong {
		if !one.overlaps(at.Add(-late), at) {
			continue
		}
		if one.from.Add(-late).Before(from) { // a month waits while the clock is behind
			from = one.from.Add(-late)
		}
		switch {
		case one.sure > 0:
			to = later(to, at.Add(one.sure))
		case one.by < 0 && one.by >= -2*time.Hour:
			if back := at.Add(one.by - late); back.Before(from) {
				from = back
			}
		}
	}
	return in == month(from) || in == month(to) || in == month(at)
}

func month(t time.Time) string { return t.UTC().Format("2006-01") }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
