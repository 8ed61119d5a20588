package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
)

const day = 24 * time.Hour

// stepping runs f with a clock over a machine's that has run on for a while.
func stepping(t *testing.T, known time.Duration, f func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		machine := &clocktest.Stepped{}
		time.Sleep(time.Hour)
		f(t, machine, clock.New(clock.Options{Now: machine.Now, Known: time.Now().Add(known)}))
	})
}

// wrong is how far a time is from the right one, to the second.
func wrong(at time.Time) time.Duration {
	return at.Round(0).Sub(time.Now().Round(0)).Round(time.Second)
}

type reading struct{ now, sure, doubt time.Duration }

func read(c *clock.Clock) reading {
	return reading{wrong(c.Now()), wrong(c.Sure()), c.Doubt().Round(time.Second)}
}

func expect(t *testing.T, when string, c *clock.Clock, want reading) {
	t.Helper()
	if got := read(c); got != want {
		t.Errorf("%s: got %+v, want %+v", when, got, want)
	}
}

func TestClock_SmallStepIsFollowed(t *testing.T) {
	stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		for _, by := range []time.Duration{5 * time.Second, -5 * time.Second, -3 * time.Second} {
			before := c.Now()
			machine.Step(by)
			time.Sleep(time.Second)
			if passed := c.Now().Sub(before); passed != time.Second {
				t.Errorf("step by %v: %v passed, want a second", by, passed)
			}
		}
		expect(t, "after small steps", c, reading{now: -3 * time.Second, sure: -3 * time.Second})
	})
}

// A step that is taken back soon is never followed, however large.
func TestClock_StepTakenBack(t *testing.T) {
	for _, by := range []time.Duration{time.Minute, 10 * time.Hour, 400 * day, -10 * time.Minute, -400 * day} {
		stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
			machine.Step(by)
			expect(t, "at the step", c, reading{doubt: by})
			time.Sleep(clock.Settles - time.Second)
			waits := time.Duration(0)
			if by < 0 {
				waits = clock.Settles - time.Second
			}
			expect(t, "before it is confirmed", c, reading{sure: -waits, doubt: by})
			machine.Step(-by)
			expect(t, "taken back", c, reading{})
			time.Sleep(2 * clock.Settles)
			expect(t, "long after", c, reading{})
		})
	}
}

func TestClock_StepIsConfirmed(t *testing.T) {
	for by, byTime := range map[time.Duration]bool{
		time.Minute: true, clock.Most: true, clock.Most + time.Minute: false, 400 * day: false,
		-10 * time.Minute: true, -400 * day: true,
	} {
		stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
			before := c.Now()
			machine.Step(by)
			expect(t, "at the step", c, reading{doubt: by})
			time.Sleep(clock.Settles)
			if byTime {
				expect(t, "after its time", c, reading{now: by, sure: by})
			} else {
				expect(t, "after its time", c, reading{doubt: by})
			}
			c.Confirm()
			expect(t, "after an operator's word", c, reading{now: by, sure: by})
			if passed := c.Now().Sub(before); passed != clock.Settles {
				t.Errorf("%v passed over a step by %v, want %v", passed, by, clock.Settles)
			}
		})
	}
}

// A second step is a new doubt.
func TestClock_StepsAgain(t *testing.T) {
	stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		for range 5 {
			machine.Step(time.Hour)
			c.Now()
			time.Sleep(clock.Settles - time.Second)
		}
		expect(t, "after five steps", c, reading{doubt: 5 * time.Hour})
		time.Sleep(time.Second)
		expect(t, "a while after the last", c, reading{now: 5 * time.Hour, sure: 5 * time.Hour})
	})
}

// What the machine's clock says at the start goes for all that can be taken
// back, and for the rest only when it has stood for a while.
func TestClock_AheadAtTheStart(t *testing.T) {
	stepping(t, -3*day, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		expect(t, "at the start", c, reading{sure: -3 * day, doubt: 3 * day})
		c.Known()
		time.Sleep(time.Minute)
		expect(t, "a minute later", c, reading{sure: -3 * day, doubt: 3 * day})
		c.Known()
		time.Sleep(clock.Settles - time.Minute)
		expect(t, "confirmed", c, reading{})
	})
	stepping(t, -time.Hour, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		expect(t, "an hour away", c, reading{})
	})
}

// One that was wrong at the start and is put right is right at once.
func TestClock_PutRightAfterTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := &clocktest.Stepped{}
		machine.Step(3 * day)
		c := clock.New(clock.Options{Now: machine.Now, Known: time.Now()})
		time.Sleep(time.Minute)
		machine.Right()
		expect(t, "put right", c, reading{})
		if known := wrong(c.Known()); known != 0 {
			t.Errorf("known is %v ahead", known)
		}
	})
}

// A machine that begins behind what is known is followed when it catches up,
// and at once where nobody can doubt it.
func TestClock_BehindAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := &clocktest.Stepped{}
		known := time.Now()
		machine.Step(-400 * day)
		c := clock.New(clock.Options{Now: machine.Now, Known: known})
		expect(t, "at the start", c, reading{now: -400 * day, sure: -400 * day})
		if got := c.Known(); !got.Equal(known) {
			t.Errorf("known is %v, want what it was", got)
		}
		time.Sleep(20 * day)
		if !c.Behind() {
			t.Error("it is behind, and does not say so")
		}
		machine.Step(200 * day)
		expect(t, "catching up", c, reading{now: -200 * day, sure: -200 * day})
		machine.Right()
		expect(t, "caught up with what was known, and has passed since", c, reading{})
		if c.Behind() {
			t.Error("it has caught up, and does not say so")
		}
	})
}

// Off for a day, and behind: the day is confirmed by time.
func TestClock_CatchesUpWithMoreThanIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := &clocktest.Stepped{}
		machine.Step(-400 * day)
		c := clock.New(clock.Options{Now: machine.Now, Known: time.Now().Add(-day)})
		machine.Right()
		expect(t, "at the step", c, reading{now: -400 * day, sure: -400 * day, doubt: 400 * day})
		time.Sleep(clock.Settles)
		expect(t, "confirmed by time", c, reading{})
	})
}

func TestClock_Right(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clock.New(clock.Options{Known: time.Now().Add(-400 * day), Right: true})
		expect(t, "somebody said so", c, reading{})
		c = clock.New(clock.Options{Known: time.Now().Add(400 * day), Right: true})
		if got := wrong(c.Known()); got != 0 {
			t.Errorf("known is %v from what somebody said", got)
		}
	})
}

// Between a time since Since and Now lies what they say.
func TestClock_Since(t *testing.T) {
	stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		began := c.Since()
		if got := wrong(began); got != 0 {
			t.Errorf("it began %v from when it did", got)
		}
		for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour, -10 * time.Minute} {
			machine.Step(by)
			if c.Now(); !c.Since().Equal(began) {
				t.Errorf("step by %v: it has another beginning before it is confirmed", by)
			}
			time.Sleep(clock.Settles)
			if began = c.Since(); !began.Equal(c.Now().Round(0)) {
				t.Errorf("step by %v, confirmed: it begins %v ago", by, c.Now().Round(0).Sub(began))
			}
			time.Sleep(time.Hour)
			if passed := c.Now().Round(0).Sub(c.Since()); passed != time.Hour {
				t.Errorf("step by %v: %v passed in an hour", by, passed)
			}
		}
	})
}

// Small steps, one after the other, are as wrong as a large one.
func TestClock_ManySmallSteps(t *testing.T) {
	stepping(t, 0, func(t *testing.T, machine *clocktest.Stepped, c *clock.Clock) {
		before := c.Now().Round(0)
		for range 120 {
			machine.Step(clock.Bound)
			time.Sleep(time.Second)
			c.Now()
		}
		if passed := c.Now().Round(0).Sub(before); passed > 2*time.Minute+clock.Bound {
			t.Errorf("%v passed in two minutes", passed)
		}
		if c.Doubt() == 0 {
			t.Error("it does not doubt")
		}
	})
}
