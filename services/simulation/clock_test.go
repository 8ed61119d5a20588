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
		w.machine.Step(w.amount(400 * 24 * time.Hour))
		time.Sleep(soon)
		w.machine.Right()
	case 1: // one that stands is believed, unless it is too large
		w.model.doubt()
		w.machine.Step(w.amount(2 * time.Hour))
		time.Sleep(clock.Settles + soon)
		w.machine.Right()
		time.Sleep(clock.Settles + time.Minute)
		w.model.trust()
	case 2: // the product begins on a wrong clock
		w.model.doubt()
		w.model.crashed()
		w.stop()
		w.machine.Step(w.amount(8 * 24 * time.Hour))
		go func() {
			time.Sleep(soon)
			w.machine.Right()
		}()
		w.start() // far ahead it waits until the clock is right
		time.Sleep(2*clock.Settles + time.Minute)
		w.model.trust()
	case 3: // the clock is wrong for a moment, and the product begins anew
		w.model.doubt()
		w.machine.Step(w.amount(400 * 24 * time.Hour))
		go func() {
			time.Sleep(soon)
			w.machine.Right()
		}()
		w.crash()
		time.Sleep(2*clock.Settles + time.Minute)
		w.model.trust()
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

// doubt says that the product's clock may be wrong from now on, trust that it is
// right again.
func (m *model) doubt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = true
	for _, s := range m.sms {
		s.odd = true
	}
}

func (m *model) trust() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = false
}
