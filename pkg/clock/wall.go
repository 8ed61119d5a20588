package clock

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// Bound is the largest step of the wall clock that is followed at once, and how far the clocks of parts may
	// differ.
	//
	// Limit: a step of the clock of up to 5 s is followed at once, and the clocks of the parts may differ so much.
	// Beyond it: health, a metric and the log warn.
	// Used up by: a wrong clock. Hurts: nobody; what must not follow from a wrong clock waits. Test:
	// TestClock_SmallStepIsFollowed.
	Bound = 5 * time.Second
	// Apart is how far the clock of a part may differ from the engines', with
	// which it compares itself, and still decide what is over.
	//
	// Limit: the clock of a dispatcher may differ from the clocks of all nodes by 30 s. Beyond it: it decides
	// nothing until one of them is set right: its pulls get 503.
	// Used up by: a wrong clock. Hurts: the accounts of its shards. Test: TestLeasesWaitForAClockThatAgrees.
	Apart = 30 * time.Second
	// Settles is after how long a larger step is believed, if it is not more
	// than Most.
	//
	// Limit: a larger step is believed after 10 min. Small steps that add up to more than one in that time count
	// as a larger one. Beyond it: a clock that keeps going wrong is followed 10 minutes late.
	// Used up by: a wrong clock. Hurts: all accounts: what is due or over waits. Test: TestClock_ManySmallSteps.
	Settles = 10 * time.Minute
	// Most is how far ahead time alone can move a clock. Beyond it an operator
	// has to say that the clock is right.
	//
	// Limit: time alone moves a clock at most 4 days ahead, and the server starts the engine on a data directory
	// at most so far ahead of it. Beyond it: an operator has to say that the clock is right.
	// Used up by: a clock that is days ahead. Hurts: all accounts: until then nothing starts. Test:
	// TestAwait_ClockAhead.
	Most = 4 * 24 * time.Hour
	// Away is how long a server may have been stopped without any doubt about
	// the clock that it finds.
	//
	// Limit: a server may have been off for 1 h without any doubt about its clock. Beyond it: the horizon, the
	// month and validities wait for 10 minutes after the start.
	// Used up by: a server that was off for longer. Hurts: all accounts, for those minutes. Test:
	// TestClock_AheadAtTheStart.
	Away = time.Hour
	// lookEvery is how often the machine's clock is looked at, at least.
	lookEvery = time.Second
)

// Options are what a Clock is made of.
type Options struct {
	Now   func() time.Time // the machine's clock, with a monotonic reading; nil: time.Now
	Known time.Time        // a time that has surely passed; zero: none is known
	Right bool             // somebody says that the machine's clock is right
	Log   *zap.Logger
}

// Clock is a wall clock that steps only with a line in the log. It compares
// what the machine says with the time that has passed since: a step of more
// than Bound is doubted, and the Clock goes on as if there had been none, until
// it is confirmed by time or by an operator.
//
// The times it gives have monotonic readings, so that what lies between two of
// them is the time that has passed, whatever the machine's clock did.
type Clock struct {
	read func() time.Time
	log  *zap.Logger

	mu      sync.Mutex
	base    time.Time     // a reading of the machine's clock that is believed
	since   time.Time     // the reading at which the Clock began, or last stepped
	known   time.Time     // the latest time that has surely come
	at      time.Time     // the reading at which that was known
	held    time.Time     // what was known at the start, while how far the machine's clock was ahead of it is not confirmed; zero: it is
	ahead   time.Duration // that far
	doubted time.Time     // the reading at which it was seen to have stepped; zero: it has not
	by      time.Duration
	stood   time.Time // what the Clock said when it was seen to have stepped
	skew    [2]time.Duration
}

// New makes a Clock that begins with what the machine says.
func New(o Options) *Clock {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	c := &Clock{read: o.Now, log: o.Log, known: o.Known.Round(0)}
	c.base = c.read()
	c.since, c.at = c.base, c.base
	wall := c.base.Round(0)
	switch ahead := wall.Sub(c.known); {
	case o.Right || o.Known.IsZero():
		c.known = wall
	case ahead > Away:
		c.held, c.ahead = c.known, ahead
		c.log.Warn("the clock is far ahead of when it was read last: the horizon, the month and validities wait until it is confirmed",
			zap.Duration("ahead", ahead), zap.Duration("confirmed_after", Settles))
	case ahead > Bound:
		c.held, c.ahead = c.known, ahead
	case ahead < -Bound:
		c.log.Warn("the clock is behind the latest time that is known: the horizon and the month wait until it has caught up",
			zap.Duration("behind", -ahead))
	}
	return c
}

// Now is the time. It is safe for concurrent use, as all methods are.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, _ := c.look()
	return now
}

// Sure is a time that has surely come, at most Now: what cannot be taken back
// goes by it. It stands behind Now while the clock is doubted.
func (c *Clock) Sure() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sure(c.look())
}

// Known is the latest time that was sure, to be kept for the next start.
func (c *Clock) Known() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wall := c.look()
	if sure := c.sure(now, wall); sure.After(c.known) {
		c.known, c.at = sure, now
	}
	return c.known
}

// Behind says whether the clock is behind a time that has surely come. Without a
// Clock it never is.
func (c *Clock) Behind() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known.Sub(c.sure(c.look())) > Bound
}

// Doubt is how far the machine's clock is ahead of the time that is sure, or
// behind Now, while that is not confirmed; 0 if there is no doubt, or no Clock.
func (c *Clock) Doubt() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wall := c.look()
	switch {
	case !c.doubted.IsZero():
		return c.by
	case !c.held.IsZero() && c.ahead > Away:
		return wall.Sub(c.sure(now, wall))
	}
	return 0
}

// Confirm is an operator's word that the machine's clock is right.
func (c *Clock) Confirm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, wall := c.look()
	c.held = time.Time{}
	if !c.doubted.IsZero() {
		c.step("by an operator")
	}
	c.known, c.at = wall, c.base
}

// Since is when the Clock began, or stepped last: two times that it gave since
// then are as far apart as they say, but for small steps, which are Bound
// together in Settles. Of any other times nobody knows that.
func (c *Clock) Since() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.since.Round(0)
}

// SetSkew notes how far this clock is ahead of the engines' clocks: of the one
// that it agrees with best, and of the one that it agrees with least.
func (c *Clock) SetSkew(least, most time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skew = [2]time.Duration{least, most}
}

// Skew is what SetSkew was told last.
func (c *Clock) Skew() (least, most time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew[0], c.skew[1]
}

// look reads the machine's clock and judges it. It gives the time, and what the
// machine says it is.
func (c *Clock) look() (now, wall time.Time) {
	r := c.read()
	wall = r.Round(0)
	now = c.base.Add(r.Sub(c.base)) // by the monotonic reading
	by := wall.Sub(now.Round(0))
	switch {
	case by.Abs() <= Bound:
		if !c.doubted.IsZero() {
			c.log.Warn("the clock is back where it was", zap.Duration("stepped", c.by), zap.Duration("after", r.Sub(c.doubted)))
			c.doubted, c.by = time.Time{}, 0
		}
		now = r
		if r.Sub(c.base) >= Settles { // many small steps are a large one
			c.base = r
		}
	case c.doubted.IsZero() || (by-c.by).Abs() > Bound:
		c.doubted, c.by, c.stood = r, by, now.Round(0)
		catchesUp := by > 0 && !wall.After(c.reached(now))
		takesBack := by < 0 && !c.held.IsZero() && !wall.Before(c.known)
		if catchesUp || takesBack {
			return c.step("by what was known"), wall
		}
		c.log.Warn("the clock has stepped: it is not followed, and the horizon, the month and validities wait, until the step is confirmed",
			zap.Duration("by", by), zap.Bool("by_time", c.settles(now, wall)), zap.Duration("confirmed_after", Settles))
	case r.Sub(c.doubted) >= Settles && c.settles(now, wall):
		now = c.step("by time")
	}
	if !c.held.IsZero() && c.doubted.IsZero() && r.Sub(c.since) >= Settles && c.since.Round(0).Sub(c.held) <= Most {
		if c.ahead > Away {
			c.log.Info("the clock is confirmed by time")
		}
		c.held = time.Time{}
	}
	return now, wall
}

// settles says whether time alone confirms the step.
func (c *Clock) settles(now, wall time.Time) bool {
	return wall.Sub(Later(now.Round(0), c.reached(now))) <= Most
}

// reached is what the time that was known has come to since.
func (c *Clock) reached(now time.Time) time.Time { return c.known.Add(now.Sub(c.at)) }

// step follows the machine's clock.
func (c *Clock) step(confirmed string) time.Time {
	c.log.Warn("the clock steps", zap.Duration("by", c.by), zap.String("confirmed", confirmed))
	c.base = c.read()
	c.since = c.base
	c.held, c.doubted, c.by = time.Time{}, time.Time{}, 0
	return c.base
}

func (c *Clock) sure(now, wall time.Time) time.Time {
	sure := now.Round(0)
	if !c.doubted.IsZero() && c.by < 0 {
		sure = Earlier(sure, Later(wall, c.stood)) // it waits, and does not go back
	}
	if !c.held.IsZero() && c.ahead > Away {
		sure = Earlier(sure, c.held.Add(now.Sub(c.since)))
	}
	return sure
}
