package dispatcher

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

const (
	// lookAtLeast is how often a reaction looks that knows of nothing, for the
	// clock may have stepped.
	lookAtLeast = time.Minute
	// retryAfter follows a decision that could not be stored, or that did not have its effect.
	//
	// Limit: a dispatcher decides about a lease by itself once in 1 s. Beyond it: the next decision waits.
	// Used up by: a lease whose end other dispatchers or a stepping clock move. Hurts: nobody: without it a dispatcher
	// could decide in a loop. Test: TestLeasesAreNotEndedInALoop.
	retryAfter = time.Second
	// pace lies between two looks of a reaction, whatever happens meanwhile.
	pace = 10 * time.Millisecond
)

// reaction does what is due as time passes. The state says what that is, so a
// rebuild decides nothing, and a dispatcher that was away misses nothing.
type reaction struct {
	*shard
	look chan struct{} // has a token when something may be due sooner than thought
	do   func(context.Context) (next time.Time, err error)
}

func newReaction(s *shard, do func(context.Context) (time.Time, error)) *reaction {
	return &reaction{shard: s, look: make(chan struct{}, 1), do: do}
}

// lookAgain makes it look for the next thing due.
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
		if err != nil && !again && !failed && ctx.Err() == nil && s.file.Err() == nil { // which says so itself
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

// errAgain ends a look that found what it had decided about already.
var errAgain = errors.New("decided already")
