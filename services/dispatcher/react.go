package dispatcher

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

const (
	// lookAtLeast is how often a reaction looks even if it knows of nothing due: the clock may have stepped.
	lookAtLeast = time.Minute
	// retryAfter follows a decision that could not be stored, or that did not have its effect.
	//
	// Limit: a dispatcher decides about a lease by itself once in 1 s. Beyond it: the next decision waits.
	// Used up by: a lease whose end other dispatchers or a stepping clock move. Hurts: nobody: without it a dispatcher
	// could decide in a loop. Test: TestLeasesAreNotEndedInALoop.
	retryAfter = time.Second
	// pace lies between two looks of a reaction, however often it is woken.
	pace = 10 * time.Millisecond
)

// reaction does what is due as time passes: it ends leases and validities, enqueues scheduled messages, and moves the
// horizon. It is a loop over one function, which asks the state what is due now, does that, and says when the next thing
// is due. Then the loop sleeps until that time, or until an event that may bring something sooner is folded.
//
// A reaction keeps no timers and no list of what to do: all of that is in the state. So nothing is decided while events
// are folded, a rebuild decides nothing twice, and a dispatcher that was away finds what it missed at its first look.
// Several dispatchers may look at the same time: their decisions are fenced, and the second one finds nothing due.
type reaction struct {
	*shard
	look chan struct{} // has a token when something may be due before the time that the last look gave
	do   func(context.Context) (next time.Time, err error)
}

func newReaction(s *shard, do func(context.Context) (time.Time, error)) *reaction {
	return &reaction{shard: s, look: make(chan struct{}, 1), do: do}
}

// lookAgain wakes the reaction: something may be due sooner.
func (s *reaction) lookAgain() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// run does what is due, one after the other, until ctx is done.
func (s *reaction) run(ctx context.Context) error {
	if err := s.file.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	failed := false
	for {
		next, err := s.now().Add(lookAtLeast), s.file.Err()
		if err == nil && !s.deps.Agrees() {
			err = errClock
		}
		if err == nil {
			next, err = s.do(ctx)
		}
		again := errors.Is(err, errAgain)
		// A projection that cannot be written logs that itself.
		if err != nil && !again && !failed && ctx.Err() == nil && s.file.Err() == nil {
			s.deps.Log.Warn("could not store a decision, trying again until it is stored", zap.Error(err), zap.Int("shard", int(s.number)))
		}
		failed = err != nil && !again
		rest := pace
		if err != nil {
			rest, next = retryAfter, time.Time{}
		}
		if clock.Sleep(ctx, rest) != nil {
			return nil
		}
		timer := time.NewTimer(min(next.Sub(s.deps.Now()), lookAtLeast))
		select {
		case <-timer.C:
		case <-s.look:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// errAgain ends a look that found only leases about which it has just decided. What it decided may be void, because
// another dispatcher or a report came first, so it looks once more after retryAfter.
var errAgain = errors.New("decided already")
